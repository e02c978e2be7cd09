"""Who signs, and whom one trusts: keys, certificates, identities, each told to model-signing."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hardpoint.errors import WeightsError

_MAKE_KEY = "make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem"
_PUBLIC = "take the public half: openssl pkey -in key.pem -pubout -out key.pub.pem"


def library(module: str) -> Any:
    """A module of model-signing, e.g. ``"signing"``.

    :raises WeightsError: it is not installed, or what it needs is not.
    """
    try:
        return importlib.import_module(f"model_signing.{module}")
    except ImportError as error:
        raise WeightsError(
            "signatures need the library model-signing",
            cause=f"{type(error).__name__}: {error}",
            remedy="pip install 'hardpoint[signing]'",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Signs with a private key on the curve P-256, P-384 or P-521.

    :param key: file with the private key, in PEM.
    :param password: of an encrypted key; an empty one is none.
    :param certificate: file with the certificate of that key, in PEM, to go into the signature.
    :param chain: files with the certificates between that one and a root.
    """

    key: Path
    password: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return f"the key {self.key}"

    def configure(self, config: Any) -> None:
        """Tell a ``model_signing.signing.Config``.

        :raises WeightsError: no such file, no such key, or a certificate of another.
        """
        with _explained("no private key to sign with", self.key, _MAKE_KEY):
            # model-signing reads it again; what it says of other kinds of keys is no help.
            _check_curve(_load_private(self.key.read_bytes(), self.password))
            if self.certificate is None:
                # It hands the password on to cryptography as it is, which wants bytes.
                password: Any = self.password.encode() if self.password else None
                config.use_elliptic_key_signer(private_key=self.key, password=password)
                return
        if self.password:
            raise WeightsError(
                "an encrypted key cannot sign with a certificate",
                cause="model-signing takes no password there",
                remedy="decrypt the key where only you can read it, or sign without a certificate",
            )
        remedy = "name the certificate of this very key, and those between it and the root"
        with _explained("no certificate to sign with", self.certificate, remedy):
            config.use_certificate_signer(
                private_key=self.key,
                signing_certificate=self.certificate,
                # It takes no empty chain; a certificate may well stand there twice.
                certificate_chain=self.chain or (self.certificate,),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigstore:
    """Signs as a person or a CI job, by the public Sigstore services. Needs the network.

    :param token: an OpenID Connect token; else that of the CI job, else a browser asks who you are.
    """

    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return "Sigstore"

    def configure(self, config: Any) -> None:
        """Tell a ``model_signing.signing.Config``.

        :raises WeightsError: the services cannot be reached.
        """
        with _explained("Sigstore is out of reach", None, "try again, or sign with --key"):
            config.use_sigstore_signer(
                use_ambient_credentials=self.token is None, identity_token=self.token
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """Trusts what was signed with the private half of a key.

    :param key: file with the public key, in PEM.
    """

    key: Path

    def __str__(self) -> str:
        return f"the key {self.key}"

    def configure(self, config: Any) -> None:
        """Tell a ``model_signing.verifying.Config``.

        :raises WeightsError: no such file, or no such key.
        """
        with _explained("no public key to verify with", self.key, _PUBLIC):
            loaded = importlib.import_module(
                "cryptography.hazmat.primitives.serialization"
            ).load_pem_public_key(self.key.read_bytes())
            _check_curve(loaded)
            config.use_elliptic_key_verifier(public_key=self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Trusts whoever has a certificate for signing from this authority.

    Dates are held against the day on which the certificate began; revocation is not looked up.

    :param chain: files with the authority's certificates, in PEM: at least the root.
    """

    chain: tuple[Path, ...]

    def __str__(self) -> str:
        return f"the authority of {', '.join(map(str, self.chain))}"

    def configure(self, config: Any) -> None:
        """Tell a ``model_signing.verifying.Config``.

        :raises WeightsError: no such files, or no certificates.
        """
        remedy = "name files with certificates, in PEM"
        with _explained("no certificates to verify with", self.chain[0], remedy):
            config.use_certificate_verifier(certificate_chain=self.chain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Trusts one identity, as the public Sigstore services tell it. Needs the network.

    :param name: who signed: an e-mail address, or the URL of a CI job.
    :param issuer: URL of the OpenID Connect provider that says so.
    """

    name: str
    issuer: str

    def __str__(self) -> str:
        return f"{self.name} by {self.issuer}"

    def configure(self, config: Any) -> None:
        """Tell a ``model_signing.verifying.Config``.

        :raises WeightsError: the services cannot be reached.
        """
        with _explained("Sigstore is out of reach", None, "try again with the network there"):
            config.use_sigstore_verifier(identity=self.name, oidc_issuer=self.issuer)


Signer = Key | Sigstore
Trust = PublicKey | Authority | Identity


def _load_private(raw: bytes, password: str | None) -> Any:
    serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
    try:
        return serialization.load_pem_private_key(raw, password.encode() if password else None)
    except TypeError as error:  # says whether a password is missing, or one too many
        raise ValueError(str(error)) from error


def _check_curve(key: Any) -> None:
    """Curves that signatures are defined for; other keys have none."""
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve not in ("secp256r1", "secp384r1", "secp521r1"):
        kind = f"a key on the curve {curve}" if curve else type(key).__name__.strip("_")
        raise ValueError(f"it is {kind}, and P-256, P-384 or P-521 is wanted")


class _explained:  # noqa: N801 - reads as a clause
    """Turns whatever cryptography or Sigstore raises about a file into one error."""

    def __init__(self, what: str, file: Path | None, remedy: str) -> None:
        self.what = what if file is None else f"{file}: {what}"
        self.remedy = remedy

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception):
            text = error.strerror if isinstance(error, OSError) else str(error)
            cause = " ".join((text or type(error).__name__).split())
            raise WeightsError(self.what, cause=cause[:400], remedy=self.remedy) from error
