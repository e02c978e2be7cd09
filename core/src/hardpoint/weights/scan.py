"""Looking through files and folders for weights that nobody should load.

A format that can hold code is scanned by its serializer; of any other, the header is opened by the
real reader, and what that refuses is refused here. No file is passed over in silence: one that
nobody knows is told as such, and a pickle that nobody reads is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardpoint.errors import ProviderError, WeightsError
from hardpoint.interfaces.serializer import Serializer

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

FINE = "fine"
REFUSED = "refused"
UNKNOWN = "unknown"

_HEAD = 512
_TAIL = 1 << 20
_ZIP = b"PK\x03\x04"
# Protocols 0 and 1 begin with no magic: a name, maybe after a few marks.
_OLD_PICKLE = re.compile(rb"[(\]}l0-9pd\n]{0,16}[ci][A-Za-z_][\w.]*\r?\n[A-Za-z_][\w.]*\r?\n")
_PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".dill"})
# Files of many kinds are called so: the name alone makes no checkpoint of one.
_GENERIC = frozenset({".bin"})


@dataclass(frozen=True, slots=True)
class Scanned:
    """What was found about one file.

    :param status: :data:`FINE`; :data:`REFUSED`: loading it is; :data:`UNKNOWN`: nobody reads it.
    :param format: the serializer that looked, or ``None``.
    :param reason: why it is refused, or what an unknown one seems to hold.
    :param globals: what its pickles name: see :meth:`hardpoint.Serializer.scan`.
    :param tools: what other scanners say, by name.
    :param named: whether the caller named it, rather than a folder above it.
    """

    file: Path
    status: str
    format: str | None = None
    reason: str | None = None
    globals: tuple[Mapping[str, Any], ...] = ()
    tools: Mapping[str, Any] = field(default_factory=dict)
    named: bool = False

    @property
    def dangerous(self) -> tuple[Mapping[str, Any], ...]:
        """The globals that no checkpoint needs."""
        return tuple(each for each in self.globals if not each["allowed"])


def scan_paths(
    paths: Iterable[Path],
    *,
    registry: Registry,
    format: str | None = None,  # noqa: A002 - the field's word
) -> list[Scanned]:
    """Look at each file, and at each one below a folder, once.

    :param format: the serializer that looks at what is named; ``None``: by content, then by suffix.
    :raises ProviderError: the serializer named is missing or broken.
    """
    found: list[Scanned] = []
    seen: set[Path] = set()
    for path in paths:
        if format is not None:
            found.append(replace(_ask(path, format, registry), named=True))
            continue
        named = not path.is_dir()
        parts: set[Path] = set()
        results: list[Scanned] = []
        for file in [path] if named else _below(path):
            real = file.resolve()
            if real not in seen:
                seen.add(real)
                who = _recognized(file, registry)
                results.append(
                    _unrecognized(file, registry)
                    if who is None
                    else _ask(file, who, registry, parts)
                )
        # Only now is it known which are parts of something that was looked at as a whole.
        found += [
            replace(each, named=named)
            for each in results
            if named or not _is_part(each, parts, registry)
        ]
    return _without_doubles(found)


def _is_part(result: Scanned, parts: set[Path], registry: Registry) -> bool:
    """Whether a file was looked at with the set that it belongs to, and is nothing by itself.

    A set may call any file its part. So one that is named as weights or as a pickle, or that anyone
    could unpickle, stands for itself.
    """
    file = result.file
    if result.status == FINE or result.dangerous or file.resolve() not in parts:
        return False
    if file.suffix in _PICKLE_SUFFIXES:
        return False
    names = [name for name, _ in registry.available("serializer").ready]
    claimed = any(file.name.endswith(registry.info("serializer", n).suffixes) for n in names)
    if claimed and file.suffix not in _GENERIC:
        return False
    return result.status == UNKNOWN or not _raw_pickle(_head(file))


def _below(folder: Path) -> Iterator[Path]:
    """All that is no folder, in order; links to folders are not followed, but told."""

    def fail(error: OSError) -> None:
        raise WeightsError(
            f"{error.filename} cannot be scanned",
            cause=error.strerror or str(error),
            remedy="check its permissions",
        ) from error

    for here, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        links = [name for name in folders if Path(here, name).is_symlink()]
        yield from (Path(here, name) for name in sorted((*names, *links)))


def _recognized(file: Path, registry: Registry) -> str | None:
    from hardpoint.weights.choose import serializer_for

    if not file.is_file():
        return None
    try:
        return serializer_for(file, registry=registry)[0]
    except WeightsError:
        return None  # looked at again, by its name and first bytes


def _ask(file: Path, name: str, registry: Registry, parts: set[Path] | None = None) -> Scanned:
    """What one serializer says of a file, and of what belongs to it."""
    from hardpoint.weights.choose import open_named

    serializer = registry.open("serializer", name)
    code = _looks_for_code(serializer)
    report: Mapping[str, Any] = {}
    try:
        if code:
            report = serializer.scan(file) or {}
        if not report.get("refused"):
            with open_named(file, registry=registry, format=name).reader as reader:
                _ = (list(reader.values()), dict(reader.metadata))
                if parts is not None:
                    parts |= {Path(each).resolve() for each in reader.files()}
    except (WeightsError, ProviderError) as error:
        report = {**report, "refused": True, "reason": str(error)}
    refused = bool(report.get("refused"))
    return Scanned(
        file,
        REFUSED if refused else FINE,
        name,
        report.get("reason"),
        tuple(report.get("globals", ())),
        dict(report.get("tools", {})),
    )


def _looks_for_code(serializer: Serializer) -> bool:
    return type(serializer).scan is not Serializer.scan


def _unrecognized(file: Path, registry: Registry) -> Scanned:
    """A file whose content nobody knows: asked about by its name, or as a pickle, or unknown."""
    from hardpoint.weights.content import look

    names = [name for name, _ in registry.available("serializer").ready]
    words, remedy = look(file, names)
    if not file.is_file():
        return Scanned(file, UNKNOWN, reason=f"it holds {words}")
    if _like_a_pickle(file):
        asked = [
            _ask(file, name, registry)
            for name in names
            if _looks_for_code(registry.open("serializer", name))
        ]
        if asked:
            return max(asked, key=lambda result: len(result.globals))
        return Scanned(file, REFUSED, reason=f"it holds a pickle, which can run code\n  {remedy}")
    if file.suffix not in _GENERIC:
        for name in names:
            if file.name.endswith(registry.info("serializer", name).suffixes):
                return _ask(file, name, registry)
    return Scanned(file, UNKNOWN, reason=f"it holds {words}")


def _like_a_pickle(file: Path) -> bool:
    """Whether unpickling it, or a member of it, may come to somebody's mind."""
    head = _head(file)
    if head.startswith(_ZIP):
        with file.open("rb") as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - _TAIL))
            return b".pkl" in opened.read(_TAIL)
    return file.suffix in _PICKLE_SUFFIXES or _raw_pickle(head)


def _raw_pickle(head: bytes) -> bool:
    return (head[:1] == b"\x80" and head[1:2] <= b"\x05") or _OLD_PICKLE.match(head) is not None


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_HEAD)
    except OSError as error:
        raise WeightsError(
            f"{file} cannot be scanned",
            cause=error.strerror or str(error),
            remedy="check its permissions",
        ) from error


def _without_doubles(found: list[Scanned]) -> list[Scanned]:
    """An index repeats what its shards name; each place is told once, with its own file."""
    told: set[tuple[object, ...]] = set()
    made = list(found)
    for turn in (False, True):
        for at, result in enumerate(found):
            if (result.file.suffix == ".json") is not turn:
                continue
            own = []
            for each in result.globals:
                place = Path(each.get("path") or result.file).resolve()
                key = (place, each["pickle"], each["position"], each["module"], each["name"])
                if key not in told:
                    told.add(key)
                    own.append(each)
            made[at] = replace(result, globals=tuple(own))
    return made
