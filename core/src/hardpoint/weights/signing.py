"""Signatures over files of weights, in the OpenSSF model signing format.

A checksum in the file finds damage; a signature beside it also finds who changed the file on
purpose, since only the key's owner can make another. model-signing makes and judges the signatures
(https://github.com/sigstore/model-transparency): what it signed is verified here, and the other way
round. What is signed are names and bytes of files; nothing is said about what is in them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardpoint.errors import WeightsError, WeightsMismatch
from hardpoint.storage.atomic import replace
from hardpoint.storage.refusal import show
from hardpoint.weights.covered import Covered, covered_by, parts_of, to_sign
from hardpoint.weights.hashed import Hashed
from hardpoint.weights.progress import bar
from hardpoint.weights.signers import Signer, Trust, library
from hardpoint.weights.statement import (
    Statement,
    damaged,
    file_of,
    is_signature,
    parse,
    read_signature,
)

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature covers.

    :param signature: the file with the signature.
    :param files: paths of the files, below the directory that was signed.
    :param ignored: what there is in the directory that it does not cover.
    :param nbytes: bytes of the files.
    """

    signature: Path
    files: tuple[str, ...]
    ignored: tuple[str, ...]
    nbytes: int


def default_signature(path: Path) -> Path:
    """Where the signature of ``path`` stands: ``FILE.sig``, or ``model.sig`` in a directory."""
    return path / "model.sig" if path.is_dir() else path.with_name(f"{path.name}.sig")


def sign(
    path: Path,
    signer: Signer,
    *,
    registry: Registry,
    signature: Path | None = None,
    force: bool = False,
    progress: bool | None = None,
) -> Signed:
    """Sign one file, an index with its shards, or a directory with all below it.

    A file that keeps tensors in others (shards, external data) is signed together with those.
    Links to files are followed. Git's own files in a directory are left out.

    :param signature: the file to write, atomically; ``None``: :func:`default_signature`.
    :param force: replace a signature that is there. Nothing but a signature is replaced.
    :param progress: whether to show a bar on stderr; ``None``: if that is a terminal.
    :raises WeightsError: a file or key cannot be used, the signature is there already, or
        model-signing is not installed.
    """
    goal = default_signature(path) if signature is None else signature
    what = to_sign(path, goal, registry)
    _check_goal(goal, what, signer, force=force)
    config = library("signing").Config()
    signer.configure(config)
    with bar(f"signing {path.name}", wanted=progress) as show_bar:
        hashed = Hashed(what, progress=show_bar)
        raw = _signature(config.set_hashing_config(hashed), what.root, signer)
    try:
        replace(goal, len(raw), lambda write: write(memoryview(raw)))
    except OSError as error:
        raise WeightsError(
            f"the signature {goal} cannot be written",
            cause=error.strerror or str(error),
            remedy="name another file with --signature",
        ) from error
    return Signed(goal, what.names, what.ignored, hashed.nbytes)


def verify_signature(
    path: Path,
    trust: Trust,
    *,
    registry: Registry,
    signature: Path | None = None,
    progress: bool | None = None,
) -> Signed:
    """Hold ``path`` against a signature, and the signature against whom you trust.

    Of a directory no file may be missing, added or changed; of a file and those that it keeps
    tensors in, none missing or changed. The key is asked first: nothing is read from the weights
    if it did not sign.

    :param signature: ``None``: :func:`default_signature`.
    :raises WeightsMismatch: it does not verify; the message says why.
    :raises WeightsError: a file or key cannot be read, or model-signing is not installed.
    """
    place = default_signature(path) if signature is None else signature
    raw = read_signature(place)
    statement = parse(raw, place)
    config = library("verifying").Config()
    trust.configure(config)
    with bar(f"verifying {path.name}", wanted=progress) as show_bar:
        hashed = Hashed(
            lambda: covered_by(statement, path, place),
            how=statement,
            progress=show_bar,
        )
        config.set_hashing_config(hashed)
        root = path if path.is_dir() or statement.alone else path.parent
        _verify(config, hashed, root, raw, statement, trust, path, place)
    what = hashed.what
    if not path.is_dir():
        _check_whole(path, what, place, registry)
    return Signed(place, what.names, what.ignored, hashed.nbytes)


def _signature(config: Any, root: Path, signer: Signer) -> bytes:
    """The bytes of the signature file; model-signing writes them in place, so elsewhere first."""
    with tempfile.TemporaryDirectory(prefix="hardpoint-sign-") as folder:
        made = Path(folder, "made.sig")
        try:
            config.sign(root, made)
        except WeightsError:
            raise
        except OSError as error:
            raise WeightsError(
                f"{root} cannot be signed",
                cause=f"{error.filename or root}: {error.strerror or error}",
                remedy="see that every file can be read",
            ) from error
        except Exception as error:
            raise WeightsError(
                f"{root} cannot be signed with {signer}",
                cause=f"{type(error).__name__}: {show(str(error))[1:-1]}",
                remedy="try again; with --key no network is needed",
            ) from error
        return made.read_bytes()


def _verify(
    config: Any,
    hashed: Hashed,
    root: Path,
    raw: bytes,
    statement: Statement,
    trust: Trust,
    path: Path,
    place: Path,
) -> None:
    with tempfile.TemporaryDirectory(prefix="hardpoint-verify-") as folder:
        # A copy, so that what we have parsed and what is verified are the same bytes.
        copy = Path(folder, "given.sig")
        copy.write_bytes(raw)
        try:
            config.verify(root, copy)
        except WeightsError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and hashed.began:
                raise WeightsError(
                    f"{path} cannot be read",
                    cause=f"{error.filename or root}: {error.strerror or error}",
                    remedy="check its permissions",
                ) from error
            if not hashed.began:
                raise _not_signed(place, trust, error) from error
            if hashed.digests is None:
                raise damaged(place, f"{type(error).__name__}: {show(str(error))[1:-1]}") from error
            raise WeightsMismatch(
                f"{path} is not what was signed",
                cause=_difference(statement, hashed.digests),
                remedy="get the files again from where they came from; if they are meant to be so,"
                " their publisher has to sign them anew",
            ) from error


def _not_signed(place: Path, trust: Trust, error: Exception) -> WeightsMismatch:
    said = " ".join(str(error).split())
    cause = f"{type(error).__name__}: {show(said)[1:-1]}" if said else type(error).__name__
    return WeightsMismatch(
        f"{place} was not signed by {trust}",
        cause="the signature does not fit: it is another's, or it was changed" + f" ({cause})",
        remedy="ask the publisher for the key and the signature; trust neither from the place that"
        " the weights came from alone",
    )


def _difference(statement: Statement, found: dict[str, str]) -> str:
    """What is changed, missing and added, by name."""
    signed = statement.digests
    changed = [name for name in signed if name in found and found[name] != signed[name]]
    missing = [name for name in signed if name not in found]
    added = [name for name in found if name not in signed]
    if statement.alone and changed:
        return "its bytes are others"
    parts = []
    for words, pieces in (("changed", changed), ("missing", missing), ("added", added)):
        files = statement.method == "files"
        names = list(dict.fromkeys(pieces if files else map(file_of, pieces)))
        if names:
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            parts.append(f"{words}: {', '.join(map(show, names[:_MOST_NAMED]))}{more}")
    return "; ".join(parts)


def _check_whole(path: Path, what: Covered, place: Path, registry: Registry) -> None:
    """No tensor may come from a file that was not signed."""
    covered = {file.resolve() for file in what.files}
    beyond = sorted(part for part in parts_of(path, registry) if part.resolve() not in covered)
    if beyond:
        raise WeightsMismatch(
            f"{path} is signed only in part",
            cause=f"{place} does not cover {beyond[0]}, where tensors of it are",
            remedy="have all of it signed: hardpoint weights sign takes such files together",
        )


def _check_goal(goal: Path, what: Covered, signer: Signer, *, force: bool) -> None:
    resolved = {file.resolve() for file in what.files}
    key = getattr(signer, "key", None)
    if key is not None and key.resolve() in resolved:
        raise WeightsError(
            f"the private key {key} lies among what is signed",
            cause="it would be handed on with the weights",
            remedy="keep it elsewhere",
        )
    if not goal.absolute().parent.is_dir() or goal.is_dir():
        raise WeightsError(
            f"the signature {goal} cannot be written",
            cause="it is a folder" if goal.is_dir() else f"there is no folder {goal.parent}",
            remedy="name another file with --signature",
        )
    if not goal.exists():
        return
    if goal.resolve() in resolved or not is_signature(goal):
        raise WeightsError(
            f"{goal} is there, and is no signature",
            cause="only signatures are replaced, by --force or not",
            remedy="name another file with --signature",
        )
    if not force:
        raise WeightsError(
            f"the signature {goal} is there already",
            cause="it may be somebody else's",
            remedy="replace it with --force, or name another file with --signature",
        )
