"""Keys and certificates, made anew for each test."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


def key_pair(folder, name="key", *, curve=None, password=None):
    """Files ``NAME.pem`` and ``NAME.pub.pem``."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    write_private(folder / f"{name}.pem", key, password)
    write_public(folder / f"{name}.pub.pem", key)
    return folder / f"{name}.pem", folder / f"{name}.pub.pem"


def rsa_pair(folder):
    key = rsa.generate_private_key(65537, 2048)
    write_private(folder / "rsa.pem", key, None)
    write_public(folder / "rsa.pub.pem", key)
    return folder / "rsa.pem", folder / "rsa.pub.pem"


def write_private(path, key, password):
    how = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    )


def write_public(path, key):
    path.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def authority(folder, name="ca"):
    """A root certificate ``NAME.crt`` and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = _certificate(called, called, key.public_key(), key, ca=True)
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder / f"{name}.crt", (called, key)


def certified(folder, ca, name="signer"):
    """A key ``NAME.pem`` and its certificate ``NAME.crt``, from an authority."""
    issuer, issuer_key = ca
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(folder / f"{name}.pem", key, None)
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = _certificate(called, issuer, key.public_key(), issuer_key, ca=False)
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder / f"{name}.pem", folder / f"{name}.crt"


def _certificate(subject, issuer, public_key, issuer_key, *, ca):
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca, content_commitment=False, key_encipherment=False,
                data_encipherment=False, key_agreement=False, key_cert_sign=ca, crl_sign=ca,
                encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .sign(issuer_key, hashes.SHA256())
    )  # fmt: skip
