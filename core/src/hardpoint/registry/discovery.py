"""Reading what is installed, from metadata alone: nothing of a plugin is imported.

One pass over ``importlib.metadata.distributions`` serves all kinds. Of a wheel without an entry
point of ours only ``entry_points.txt`` is read, and its folder tells its name. Names and
versions of the others are read from the first header lines by hand, because parsing whole METADATA
files as e-mail, README included, costs more than all the rest.

The formats: https://packaging.python.org/specifications/entry-points/ and /core-metadata/.
"""

from __future__ import annotations

import importlib.metadata as metadata
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hardpoint.interfaces.kinds import KINDS, Kind
from hardpoint.registry.reserved import normalize

PROVIDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

# Far beyond any Name and Version line: both are among the first three of every known build tool.
_HEADER_CHARS = 16_384
_HEADER_LINE = re.compile(r"^(name|version)[ \t]*:[ \t]*(.*?)[ \t]*$", re.IGNORECASE | re.MULTILINE)
_OBJECT = re.compile(r"(?P<module>\w+(?:\.\w+)*)(?:\s*:\s*(?P<attr>\w+(?:\.\w+)*))?\s*(?:\[.*\])?")


class Claim(NamedTuple):
    """One entry point: a distribution's claim to provide ``kind:name``.

    :param major: of the contract, from the group's name.
    :param value: what the entry point refers to, as written.
    :param module: the module to import, or ``""`` if ``value`` is malformed.
    :param attr: dotted attribute in it that is the plugin, or ``""`` for the module itself.
    """

    kind: Kind
    name: str
    major: int
    value: str
    module: str
    attr: str
    dist: str
    version: str
    files: metadata.Distribution

    @property
    def key(self) -> str:
        """``kind:name``."""
        return f"{self.kind}:{self.name}"

    @property
    def origin(self) -> str:
        """``distribution version``."""
        return f"{self.dist} {self.version}"


class Scan(NamedTuple):
    """What one pass found.

    :param claims: in the order of the search path.
    :param problems: distributions and lines that were left out, and why.
    """

    claims: tuple[Claim, ...]
    problems: tuple[str, ...]


def scan(path: Sequence[str] | None, prefix: str) -> Scan:
    """Read the metadata of every distribution on ``path`` (default: ``sys.path``).

    The first distribution of a name hides later ones, as it does for imports, even if only the
    later one has our entry points. One that cannot be read hides none.
    """
    folders = _once(sys.path if path is None else path)
    claims: list[Claim] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    for dist in metadata.distributions(path=folders):
        try:
            points = _entry_points(dist, prefix)
            name, version = (points is None and _name_of_folder(dist)) or parse_header(
                dist.read_text("METADATA") or dist.read_text("PKG-INFO") or ""
            )
        except (OSError, UnicodeError) as error:
            problems.append(f"{_where(dist)}: unreadable metadata: {type(error).__name__}: {error}")
            continue
        if not name:
            problems.append(f"{_where(dist)}: its metadata has no Name")
            continue
        normalized, folder = normalize(name), str(dist.locate_file(""))
        if normalized in seen:
            # Two in one folder are a broken upgrade, and which one comes first is chance.
            if seen[normalized] == folder:
                problems.append(f"{name}: installed twice in {folder}; reinstall it")
            continue
        seen[normalized] = folder
        if points is None:
            continue
        for entry in parse_entry_points(points, prefix):
            if isinstance(entry, str):
                problems.append(f"{name} {version}: {entry}")
            else:
                claims.append(Claim(*entry, name, version, dist))
    return Scan(tuple(claims), tuple(problems))


def _entry_points(dist: metadata.Distribution, prefix: str) -> str | None:
    """Its ``entry_points.txt``, if that may hold an entry of ours.

    :raises OSError, UnicodeError: it cannot be read.
    """
    folder = _folder(dist)
    if folder is None:  # another finder's: a zip archive, a frozen application
        text = dist.read_text("entry_points.txt") or ""
        return text if f"{prefix}." in text else None
    try:
        # Not by pathlib: most of a listing is this.
        with open(os.path.join(folder, "entry_points.txt"), "rb") as file:  # noqa: PTH118, PTH123
            raw = file.read()
    except (FileNotFoundError, NotADirectoryError):  # there is none; distutils wrote single files
        return None
    return raw.decode("utf-8") if f"{prefix}.".encode() in raw else None


def _name_of_folder(dist: metadata.Distribution) -> tuple[str, str] | None:
    """Name (as wheels escape it) and version, where the folder tells them without doubt: it is one
    that an uninstall left behind, if it has no METADATA.
    """
    folder = _folder(dist)
    if folder is None:
        return None
    stem, _, kind = folder.name.rpartition(".")
    name, _, version = stem.partition("-")
    if not name or not version[:1].isdigit() or "-" in version or kind != "dist-info":
        return None
    try:
        whole = os.stat(os.path.join(folder, "METADATA")).st_size > 0  # noqa: PTH116, PTH118
    except OSError:
        return None
    return (name, version) if whole else None


Entry = tuple[Kind, str, int, str, str, str]


def parse_entry_points(text: str, prefix: str) -> Iterator[Entry | str]:
    """Our entries of an entry_points.txt, as the first six fields of :class:`Claim`.

    A line that names no provider comes as a sentence that says so.
    """
    group = re.compile(rf"{re.escape(prefix)}\.({'|'.join(KINDS)})\.v([0-9]{{1,4}})")
    ours: re.Match[str] | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            ours = group.fullmatch(line[1:-1].strip())
            continue
        if ours is None or not line or line.startswith(("#", ";")):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not PROVIDER_NAME.fullmatch(name):
            yield (
                f"entry_points.txt line {number}: {line!r} does not name a provider "
                "(letters, digits, '_', '.' and '-', then '= module')"
            )
            continue
        target = _OBJECT.fullmatch(value)
        module, attr = (target["module"], target["attr"] or "") if target else ("", "")
        kind: Kind = ours[1]  # type: ignore[assignment]  # the pattern lists the kinds
        yield kind, name, int(ours[2]), value, module, attr


def parse_header(text: str) -> tuple[str, str]:
    """Name and Version (``"0"`` where absent) from a METADATA file's header."""
    end = text.find("\n\n", 0, _HEADER_CHARS)
    header = text[: end if end >= 0 else _HEADER_CHARS]
    fields: dict[str, str] = {}
    for match in _HEADER_LINE.finditer(header):
        fields.setdefault(match[1].lower(), match[2])
    return fields.get("name", ""), fields.get("version", "") or "0"


def _once(path: Sequence[str]) -> list[str]:
    """Each folder once: ``""`` and the working directory's name are the same place."""
    by_place: dict[str, str] = {}
    for folder in path:
        by_place.setdefault(os.path.realpath(folder), os.path.abspath(folder))  # noqa: PTH100  # keeps links
    return list(by_place.values())


def _where(dist: metadata.Distribution) -> str:
    """A way to find a distribution that cannot tell its name."""
    return str(_folder(dist) or dist.locate_file(""))


def _folder(dist: metadata.Distribution) -> Path | None:
    """The dist-info folder itself, to which there is no public way; ``None`` in a zip archive."""
    folder = getattr(dist, "_path", None)
    return folder if isinstance(folder, Path) else None
