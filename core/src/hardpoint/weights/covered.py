"""Which files a signature is over."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hardpoint.errors import WeightsError, WeightsMismatch
from hardpoint.storage.refusal import show
from hardpoint.weights.statement import Statement

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

# What model-signing leaves out unless told otherwise: none of it is weights.
_GIT = (".git", ".gitattributes", ".github", ".gitignore")
_MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class Covered:
    """Files to hash.

    :param root: the directory that names count from; or the file, if it is one alone.
    :param files: those that are there.
    :param rules: paths below ``root`` that are left out, whether there or not.
    :param ignored: those that are there; the signature is not told.
    """

    root: Path
    files: tuple[Path, ...]
    rules: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Paths of the files, for people."""
        if self.files == (self.root,):
            return (self.root.name,)
        return tuple(file.relative_to(self.root).as_posix() for file in self.files)


def to_sign(path: Path, signature: Path, registry: Registry) -> Covered:
    """What signing ``path`` is to cover; never the signature itself.

    :raises WeightsError: nothing is there, or something that cannot be signed.
    """
    if path.is_dir():
        found = _all_below(path, _GIT, _below(signature, path))
        if not found.files:
            raise WeightsError(
                f"{path} cannot be signed", cause="no file is in it", remedy="check the path"
            )
        return found
    parts = parts_of(path, registry)
    if len({part.resolve() for part in parts}) == 1:
        return Covered(path, (path,))
    return Covered(path.parent, tuple(sorted({_beside(path, part) for part in parts})))


def covered_by(statement: Statement, path: Path, signature: Path) -> Covered:
    """What of ``path`` is to be held against a signature; of a directory, everything.

    :raises WeightsMismatch: it is a signature of something else.
    """
    if path.is_dir():
        if statement.alone:
            raise _of_others(signature, path, "it is of one file, not of a directory")
        return _all_below(path, statement.ignored, _below(signature, path))
    if statement.alone:
        return Covered(path, (path,))
    if path.name not in statement.files:
        names = ", ".join(show(name) for name in statement.files[:3])
        raise _of_others(signature, path, f"it is of {names}")
    listed = (path.parent / name for name in statement.files)
    return Covered(path.parent, tuple(file for file in listed if file.is_file()))


def parts_of(path: Path, registry: Registry) -> set[Path]:
    """The file and all others that its tensors are in, as its reader calls them.

    :raises WeightsError: a serializer knows such files, and refuses this one.
    """
    from hardpoint.weights.choose import open_weights

    parts = {path}
    try:
        reader = open_weights(path, registry=registry)
    except WeightsError as error:
        if error.provider:
            raise
        return parts  # nobody knows the format: it is signed as the one file it is
    with reader:
        parts |= {Path(file) for file in reader.files()}
    return parts


def _beside(path: Path, part: Path) -> Path:
    """A part by its path below the directory of ``path``; links stay, as in a hub's cache."""
    relative = os.path.relpath(part, path.parent)
    if relative.startswith(".."):
        raise WeightsError(
            f"{path} cannot be signed",
            cause=f"tensors of it are in {part}, outside of its directory",
            remedy="sign the directory that has them all",
        )
    return path.parent / relative


def _below(signature: Path, root: Path) -> tuple[str, ...]:
    place = signature.absolute().parent.resolve() / signature.name
    base = root.resolve()
    return (place.relative_to(base).as_posix(),) if place.is_relative_to(base) else ()


def _all_below(root: Path, ignored: Iterable[str], own: tuple[str, ...]) -> Covered:
    """Every file below ``root``, links to files too, but not the signature itself.

    :raises WeightsError: something is there whose bytes nobody could sign.
    """
    rules = (*ignored, *own)
    left_out = {os.path.normpath(name) for name in rules}
    files: list[Path] = []
    seen_ignored: list[str] = []

    def fail(error: OSError) -> None:
        raise _cannot(Path(error.filename), error.strerror or "it cannot be read") from error

    for folder, below, names in os.walk(root, onerror=fail):
        here = Path(folder)
        for name in sorted((*below, *names)):
            path = here / name
            relative = path.relative_to(root).as_posix()
            if relative in left_out:
                if relative not in own:
                    seen_ignored.append(relative)
                if name in below:
                    below.remove(name)
            elif name in below:
                if path.is_symlink():
                    raise _cannot(path, "it is a link to a directory: what is in it may change")
            elif not path.is_file():
                raise _cannot(path, "it is no file (a broken link, a pipe or a device)")
            else:
                files.append(path)
        below.sort()
        if len(files) > _MAX_FILES:
            raise _cannot(root, f"it holds more than {_MAX_FILES} files")
    return Covered(root, tuple(sorted(files)), rules, tuple(seen_ignored))


def _cannot(path: Path, cause: str) -> WeightsError:
    return WeightsError(
        f"{path} cannot be covered by a signature",
        cause=cause,
        remedy="move it away, or put a plain file in its place",
    )


def _of_others(signature: Path, path: Path, cause: str) -> WeightsMismatch:
    return WeightsMismatch(
        f"{signature} is no signature of {path}",
        cause=cause,
        remedy="name the signature that came with these weights, with --signature",
    )
