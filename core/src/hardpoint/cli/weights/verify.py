"""``hardpoint weights verify``: whether weights are as they were saved, and as they were signed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import OK, VERIFICATION, console, emit_json, fail, json_option
from hardpoint.cli.work import stdout_kept
from hardpoint.errors import WeightsError
from hardpoint.registry.registry import default_registry
from hardpoint.units import size

if TYPE_CHECKING:
    from hardpoint.weights.signers import Trust
    from hardpoint.weights.signing import Signed


class _Sums(NamedTuple):
    """What the checksum was held against; with ``unchecked`` (why not), nothing."""

    tensors: int
    nbytes: int
    unchecked: str


@click.command("verify")
@click.argument("path", type=click.Path(path_type=Path), callback=existing_file)
@click.option(
    "--key", type=click.Path(path_type=Path), callback=existing_file, metavar="PUB.pem",
    help="Verify the signature too: the signer's public key, in PEM.",
)  # fmt: skip
@click.option(
    "--cert-chain", "chain", multiple=True, type=click.Path(path_type=Path, exists=True),
    metavar="CA.pem", help="Or: certificates of an authority whose signers are trusted.",
)  # fmt: skip
@click.option("--identity", metavar="WHO", help="Or: who signed with --sigstore (network).")
@click.option("--oidc-issuer", "issuer", metavar="URL", help="Who vouches for that identity.")
@click.option(
    "--signature", type=click.Path(path_type=Path), callback=existing_file, metavar="FILE",
    help="The signature; else PATH.sig, or model.sig in a directory.",
)  # fmt: skip
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    path: Path,
    key: Path | None,
    chain: tuple[Path, ...],
    identity: str | None,
    issuer: str | None,
    signature: Path | None,
    as_json: bool,
) -> None:
    """Hold the weights of PATH against a signature, and against the checksum in them.

    Without --key, --cert-chain or --identity: against the checksum alone. Ends with status 4 where
    they are something else.
    """
    from hardpoint.weights.signing import verify_signature

    trust = _trust(key, chain, identity, issuer)
    if trust is None and signature is not None:
        raise click.UsageError("Name whom you trust: --key PUB.pem, --cert-chain or --identity.")
    signed = None
    if trust is not None:
        with stdout_kept():
            signed = verify_signature(path, trust, registry=default_registry(), signature=signature)
    try:
        sums = _checksum(path, signed)
    except WeightsError as error:
        if not error.provider:
            raise
        ctx.exit(fail(error) and VERIFICATION)  # damaged so that it cannot even be opened
    if as_json:
        emit_json(
            {
                "file": path,
                "tensors": sums.tensors,
                "bytes": sums.nbytes,
                "verified": True,
                "checked": {
                    "signature": None if signed is None else _facts(signed, str(trust)),
                    "checksum": not sums.unchecked,
                },
            }
        )
        ctx.exit(OK)
    _print(path, signed, trust, sums)


def _trust(
    key: Path | None, chain: tuple[Path, ...], identity: str | None, issuer: str | None
) -> Trust | None:
    from hardpoint.weights.signers import Authority, Identity, PublicKey

    if (identity is None) is not (issuer is None):
        raise click.UsageError("--identity and --oidc-issuer go together.")
    named: list[Trust] = []
    if key is not None:
        named.append(PublicKey(key=key))
    if chain:
        named.append(Authority(chain=chain))
    if identity is not None and issuer is not None:
        named.append(Identity(name=identity, issuer=issuer))
    if len(named) > 1:
        raise click.UsageError("Name one of --key, --cert-chain and --identity.")
    return named[0] if named else None


def _checksum(path: Path, signed: Signed | None) -> _Sums:
    from hardpoint.weights import load_weights, open_weights
    from hardpoint.weights.checksum import KEY
    from hardpoint.weights.signing import default_signature

    registry = default_registry()
    try:
        with open_weights(path, registry=registry) as reader:
            stated = KEY in reader.metadata
    except WeightsError as error:
        if signed is None:
            raise
        # What was signed may be in a format that nobody here reads; it is what was signed.
        return _Sums(0, 0, f"{error.what}: {error.cause}")
    if not stated and signed is not None:
        return _Sums(0, 0, "there is none in it")
    if not stated:
        beside = default_signature(path)
        raise WeightsError(
            f"there is nothing to hold {path} against",
            cause=f"its metadata have no {KEY!r}, and "
            + (
                f"whom to trust for the signature {beside} was not said"
                if beside.exists()
                else "no signature was named"
            ),
            remedy="save it with checksum=True, or verify a signature: --key PUB.pem --signature"
            " FILE; `hardpoint weights sign` makes one",
        )
    found = load_weights(path, registry=registry, verify=True)
    return _Sums(len(found), sum(tensor.nbytes for tensor in found.values()), "")


def _facts(signed: Signed, by: str) -> dict[str, object]:
    return {
        "file": signed.signature,
        "by": by,
        "files": list(signed.files),
        "bytes": signed.nbytes,
        "ignored": list(signed.ignored),
    }


def _print(path: Path, signed: Signed | None, trust: Trust | None, sums: _Sums) -> None:
    out = console()
    if signed is not None:
        count = len(signed.files)
        out.print(
            f"{path}: {count} file{'s' * (count != 1)}, {size(signed.nbytes)}, as signed with"
            f" {trust} ({signed.signature})",
            markup=False,
        )
        if signed.ignored:
            out.print(f"not covered: {', '.join(signed.ignored)}", markup=False)
    if sums.unchecked:
        out.print(f"no checksum was looked at: {sums.unchecked}", markup=False)
    else:
        out.print(
            f"{path}: {sums.tensors} tensors, {size(sums.nbytes)}, as they were saved",
            markup=False,
        )
