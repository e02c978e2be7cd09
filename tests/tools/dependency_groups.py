"""Read the dependency groups (PEP 735) of a pyproject.toml, for a pip that has no ``--group``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10 has no TOML parser of its own; every pip carries one.
    from pip._vendor import tomli as tomllib


class GroupError(ValueError):
    """A group is missing, malformed, or includes itself."""


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    with path.open("rb") as file:
        tables: dict[str, Any] = tomllib.load(file)
    return tables


def requirements(pyproject: Path, group: str) -> list[str]:
    """The requirements of ``group``, its included groups expanded in place.

    :raises GroupError: no such group, an entry of another shape, or a cycle of inclusions.
    """
    groups = read_toml(pyproject).get("dependency-groups", {})
    by_name = {_normalized(name): entries for name, entries in groups.items()}
    return _expand(by_name, group, ())


def _expand(groups: dict[str, list[Any]], group: str, inside: tuple[str, ...]) -> list[str]:
    name = _normalized(group)
    if name in inside:
        raise GroupError(f"dependency group {group!r} includes itself: {' -> '.join(inside)}")
    if name not in groups:
        raise GroupError(f"no dependency group {group!r}; known: {', '.join(sorted(groups))}")
    found: list[str] = []
    for entry in groups[name]:
        if isinstance(entry, str):
            found.append(entry)
        elif isinstance(entry, dict) and set(entry) == {"include-group"}:
            found += _expand(groups, str(entry["include-group"]), (*inside, name))
        else:
            raise GroupError(f"dependency group {group!r} holds {entry!r}")
    return found


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
