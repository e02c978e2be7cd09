"""Looking through files and folders for weights that nobody should load.

A format that can hold code is scanned by its serializer; of any other, the header is opened by the
real reader, and what that refuses is refused here. No file is passed over in silence: one that
nobody knows is told as such. It is refused where it may be a pickle: by its name, for any opcode
may come first in one; as a zip archive, by the names of its members; else by its first bytes.
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
from hardpoint.weights.progress import Progress, by_file

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

FINE = "fine"
REFUSED = "refused"
UNKNOWN = "unknown"

_HEAD = 512
_ZIP = b"PK\x03\x04"
# An entry of a zip directory: 42 bytes after the signature comes the name, whose length is told.
_ENTRY = re.compile(rb"PK\x01\x02(?=[\s\S]{24}([\s\S]{2})[\s\S]{16})")
# Case does not matter to the reader of torch.load.
_PICKLED_MEMBER = re.compile(
    rb"\.(pkl|pickle|p|pk|joblib|dill|pt|pth|th|ckpt|bin)(?![a-z0-9])", re.IGNORECASE
)
# Archives are searched up to so many bytes and so many entries.
_MAX_ZIP = 64 << 20
_MAX_ENTRIES = 100_000
# Protocols 0 and 1 begin with no magic: a name, maybe after a few marks.
_OLD_PICKLE = re.compile(rb"[(\]}l0-9pd\n]{0,16}[ci][A-Za-z_][\w.]*\r?\n[A-Za-z_][\w.]*\r?\n")
_PICKLE_SUFFIXES = frozenset(
    {".pkl", ".pickle", ".p", ".pk", ".joblib", ".dill", ".pt", ".pth", ".th", ".ckpt", ".tar"}
)
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
    progress: Progress | None = None,
) -> list[Scanned]:
    """Look at each file, and at each one below a folder, once.

    :param format: the serializer that looks at what is named; ``None``: by content, then by suffix.
    :param progress: told of each file before it is looked at, and of the end.
    :raises ProviderError: the serializer named is missing or broken.
    """
    found: list[Scanned] = []
    seen: set[Path] = set()
    todo = [
        (True, [path]) if format is not None or not path.is_dir() else (False, list(_below(path)))
        for path in paths
    ]
    tell = by_file(progress, [file for _, files in todo for file in files])
    for named, files in todo:
        parts: set[Path] = set()
        results: list[Scanned] = []
        for file in files:
            tell(file)
            if format is not None:
                results.append(_ask(file, format, registry))
                continue
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
    tell(None)
    return _without_doubles(found)


def _is_part(result: Scanned, parts: set[Path], registry: Registry) -> bool:
    """Whether a file was looked at with the set that it belongs to, and is nothing by itself.

    A set may call any file its part. So one that is named as weights or as a pickle, or that anyone
    could unpickle, stands for itself.
    """
    file = result.file
    if result.status == FINE or result.dangerous or file.resolve() not in parts:
        return False
    suffix = file.suffix.lower()
    if suffix in _PICKLE_SUFFIXES:
        return False
    names = [name for name, _ in registry.available("serializer").ready]
    claimed = any(file.name.endswith(registry.info("serializer", n).suffixes) for n in names)
    if claimed and suffix not in _GENERIC:
        return False
    if result.status == UNKNOWN:
        return True
    head = _head(file)
    # Other sets do have zip archives for parts: those of a distributed checkpoint are.
    return not _raw_pickle(head) and not (suffix in _GENERIC and head.startswith(_ZIP))


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
    scanners = [name for name in names if _looks_for_code(registry.open("serializer", name))]
    why = _why_a_pickle(
        file, [s for n in scanners for s in registry.info("serializer", n).suffixes]
    )
    if why is not None:
        asked = [_ask(file, name, registry) for name in scanners]
        if not asked:
            return Scanned(file, REFUSED, reason=f"{why}\n  it holds {words}\n  {remedy}")
        most = max(asked, key=lambda result: len(result.globals))
        reason = why if most.reason is None else f"{why}\n  {most.reason}"
        return replace(most, status=REFUSED, reason=reason)
    for name in names:
        if file.name.endswith(registry.info("serializer", name).suffixes):
            return _ask(file, name, registry)
    return Scanned(file, UNKNOWN, reason=f"it holds {words}")


def _why_a_pickle(file: Path, claimed: Iterable[str]) -> str | None:
    """Why unpickling a file that nobody reads, or a member of it, may come to somebody's mind.

    :param claimed: the suffixes of the serializers that look for code.
    """
    head = _head(file)
    if _raw_pickle(head):
        return "it holds a pickle, which can run code"
    name = file.name.lower()
    if file.suffix.lower() in _PICKLE_SUFFIXES | _GENERIC or name.endswith(tuple(claimed)):
        return "nobody reads it, and a file of that name may be a pickle"
    return _why_a_zip(file) if head.startswith(_ZIP) else None


def _why_a_zip(file: Path) -> str | None:
    """As above. Readers find the directory in different ways: whatever may be an entry counts."""
    with file.open("rb") as opened:
        raw = opened.read(_MAX_ZIP + 1)
    if len(raw) > _MAX_ZIP:
        return f"nobody reads it, and a zip archive of more than {_MAX_ZIP} bytes is not searched"
    for number, entry in enumerate(_ENTRY.finditer(raw)):
        if number == _MAX_ENTRIES:
            return (
                f"nobody reads it, and a zip archive of more than {number} members is not searched"
            )
        length = int.from_bytes(entry[1], "little")
        if _PICKLED_MEMBER.search(raw, entry.end() + 42, entry.end() + 42 + length):
            return "nobody reads it, and a zip archive with such members may hold a pickle"
    return None


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
