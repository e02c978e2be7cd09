"""``hardpoint weights sign``: a signature beside weights, so that others can tell who made them."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import OK, console, emit_json, json_option
from hardpoint.cli.work import stdout_kept
from hardpoint.registry.registry import default_registry
from hardpoint.units import size

PASSWORD = "HARDPOINT_KEY_PASSWORD"  # noqa: S105 - the name of a variable


@click.command("sign")
@click.argument("path", type=click.Path(path_type=Path), callback=existing_file)
@click.option(
    "--key", type=click.Path(path_type=Path), callback=existing_file, metavar="KEY.pem",
    help=f"The private key: EC, in PEM. Its password, if any, is in {PASSWORD}.",
)  # fmt: skip
@click.option(
    "--certificate", type=click.Path(path_type=Path), callback=existing_file, metavar="CERT.pem",
    help="The certificate of that key, to go into the signature.",
)  # fmt: skip
@click.option(
    "--cert-chain", "chain", multiple=True, type=click.Path(path_type=Path, exists=True),
    metavar="CA.pem", help="Certificates between that one and the root; may be repeated.",
)  # fmt: skip
@click.option(
    "--sigstore", is_flag=True,
    help="Sign as yourself, or as this CI job, by the public Sigstore services (network).",
)  # fmt: skip
@click.option(
    "--signature", type=click.Path(path_type=Path), metavar="FILE",
    help="Where to; else PATH.sig, or model.sig in a directory.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a signature that is there.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    path: Path,
    key: Path | None,
    certificate: Path | None,
    chain: tuple[Path, ...],
    sigstore: bool,
    signature: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Sign PATH: a file, an index with its shards, or a directory with all below it.

    The signature is in the OpenSSF model signing format; `hardpoint weights verify` checks it.
    """
    from hardpoint.weights.signers import Key, Signer, Sigstore
    from hardpoint.weights.signing import sign

    if (key is None) is not sigstore:
        raise click.UsageError("Name who signs: --key KEY.pem, or --sigstore.")
    if key is None and (certificate is not None or chain):
        raise click.UsageError("--certificate and --cert-chain go with --key.")
    if certificate is None and chain:
        raise click.UsageError("--cert-chain goes with --certificate.")
    signer: Signer = (
        Sigstore()
        if key is None
        else Key(
            key=key, password=os.environ.get(PASSWORD) or None, certificate=certificate, chain=chain
        )
    )
    with stdout_kept():
        done = sign(path, signer, registry=default_registry(), signature=signature, force=force)
    if as_json:
        emit_json(
            {
                "file": path,
                "signature": done.signature,
                "signer": str(signer),
                "files": list(done.files),
                "bytes": done.nbytes,
                "ignored": list(done.ignored),
            }
        )
        ctx.exit(OK)
    console().print(
        f"{done.signature}: {len(done.files)} file{'s' * (len(done.files) != 1)}, "
        f"{size(done.nbytes)}, signed with {signer}",
        markup=False,
    )
    if done.ignored:
        console().print(f"not covered: {', '.join(done.ignored)}", markup=False)
