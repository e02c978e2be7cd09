"""Which files a new plugin consists of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import hardpoint
from hardpoint.errors import ConfigError
from hardpoint.interfaces.kinds import API_MAJOR, Kind
from hardpoint.scaffold.names import Names
from hardpoint.scaffold.render import render
from hardpoint.scaffold.versions import REQUIRES_API, CoreVersions

_LINE = 100


@dataclass(frozen=True, slots=True)
class NewFile:
    """One file, ready to be written.

    :param path: relative to the plugin's folder, with ``/``.
    :param purpose: what it is for, in words.
    """

    path: str
    text: str
    purpose: str


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a file comes from; ``src`` and ``tests`` are put before the paths of modules."""

    path: str
    template: str
    purpose: str


_KINDS: Mapping[Kind, tuple[_Source, ...]] = {
    "serializer": (
        _Source("src/serializer.py", "serializer/serializer.py", "tells, opens, saves files"),
        _Source("src/file_format.py", "serializer/file_format.py", "the format; a strict parser"),
        _Source("src/reader.py", "serializer/reader.py", "maps a file, cuts exact slices"),
        _Source("src/writer.py", "serializer/writer.py", "saves atomically"),
        _Source("tests/test_serializer.py", "serializer/tests.py", "the serializer by itself"),
    ),
    "backend": (
        _Source("src/backend.py", "backend/backend.py", "compiles, loads and runs segments"),
        _Source("src/device.py", "backend/device.py", "which devices there are"),
        _Source("src/operators.py", "backend/operators.py", "which operators they run, or why not"),
        _Source("src/program_file.py", "backend/program_file.py", "a compiled segment as a file"),
        _Source("tests/test_backend.py", "backend/tests.py", "the backend by itself"),
    ),
    "partitioner": (
        _Source("src/partitioner.py", "partitioner/partitioner.py", "decides what runs where"),
        _Source("tests/test_partitioner.py", "partitioner/tests.py", "the partitioner by itself"),
    ),
    "transport": (
        _Source("src/transport.py", "transport/transport.py", "makes process groups"),
        _Source("tests/test_transport.py", "transport/tests.py", "the transport by itself"),
    ),
}
_BEFORE = (
    _Source("pyproject.toml", "project/pyproject.toml", "name, needs, entry points, tools"),
    _Source("README.md", "project/README.md", "what it is, and your next steps"),
    _Source("LICENSE", "project/LICENSE", "Apache-2.0, or put yours here"),
    _Source(".gitignore", "project/gitignore", "what git leaves out"),
    _Source(".github/workflows/ci.yml", "project/ci.yml", "lint, tests and kit on every push"),
    _Source("conformance.toml", "project/conformance.toml", "settings of the conformance kit"),
    _Source("src/__init__.py", "project/package.py", "the package"),
    _Source("src/plugin.py", "project/plugin.py", "the hooks: light, what hardpoint reads first"),
    _Source("src/origin.py", "project/origin.py", "the plugin's name in messages; checks"),
)
_CONFORMANCE = _Source(
    "tests/test_conformance.py", "project/conformance.py", "the conformance kit, in pytest"
)

# What each kind's hooks use besides what all use.
_HOOK_NAMES: Mapping[Kind, tuple[str, ...]] = {
    "serializer": ("Serializer", "SerializerInfo"),
    "backend": ("Backend", "BackendInfo"),
    "partitioner": ("Partitioner", "PartitionerInfo"),
    "transport": ("ConfigError", "Transport", "TransportInfo"),
}
_AUTHOR = re.compile(r"(?P<name>[^<>]+?)\s*(?:<(?P<email>[^<>@\s]+@[^<>@\s]+)>)?")


def contents(names: Names, kinds: Sequence[Kind], author: str = "") -> list[NewFile]:
    """Every file of the plugin ``names`` that provides ``kinds``.

    :param author: ``"Name"`` or ``"Name <mail>"``.
    :raises ConfigError: the author is written otherwise.
    """
    sources = [*_BEFORE, *(source for kind in kinds for source in _KINDS[kind]), _CONFORMANCE]
    values = _values(names, kinds, author)
    placed = [(_path(source, names), source) for source in sources]
    typed = f"src/{names.package}/py.typed"
    rows = [(path, source.purpose) for path, source in placed]
    values["file_table"] = "\n".join(f"| `{path}` | {purpose} |" for path, purpose in rows)
    made = [NewFile(path, render(s.template, values), s.purpose) for path, s in placed]
    return [*made, NewFile(typed, "", "says that the package has types")]


def _path(source: _Source, names: Names) -> str:
    if source.path.startswith("src/"):
        return f"src/{names.package}/{source.path.removeprefix('src/')}"
    return source.path


def _values(names: Names, kinds: Sequence[Kind], author: str) -> dict[str, str]:
    """What the templates ask for."""
    core = CoreVersions.of(hardpoint.__version__)
    words = _and(kinds)
    values = {
        "name": names.provider,
        "dist": names.dist,
        "package": names.package,
        "prefix": names.prefix,
        "suffix": f".{names.provider}",
        # As in PNG: no text file begins so, and a transfer that mends line ends shows.
        "magic": f'b"\\x89{names.provider.upper()}\\r\\n\\x1a\\n"',
        "requires_api": str(REQUIRES_API),
        "core_range": core.range,
        "core_minors": ", ".join(f'"{minor}"' for minor in core.minors),
        "core_comment": core.comment,
        "kinds": ",".join(kinds),
        "keys": " ".join(f"{kind}:{names.provider}" for kind in kinds),
        "author": _author(author or f"The {names.dist} authors"),
        "summary": f"The {words} `{names.provider}`",
        "description": f"hardpoint {words}: {names.prefix}.",
        "entry_points": "\n\n".join(
            f'[project.entry-points."hardpoint.{kind}.v{API_MAJOR}"]\n'
            f'{names.provider} = "{names.package}.plugin"'
            for kind in kinds
        ),
    }
    for part in ("steps.md", "conformance.toml"):
        texts = [render(f"{kind}/{part}", values).strip() for kind in kinds]
        values[part.partition(".")[0]] = "\n\n".join(texts)
    hooks = [render(f"{kind}/plugin.py", values).strip() for kind in kinds]
    values["hooks"] = "\n\n\n".join(hooks)
    values["imports"] = _plugin_imports(kinds)
    values["suites"] = _import_line(
        "hardpoint.testing", sorted(f"{k.capitalize()}Suite" for k in kinds)
    )
    values["classes"] = "\n\n\n".join(
        f"class Test{names.prefix}{kind.capitalize()}({kind.capitalize()}Suite):\n"
        f'    provider = "{kind}:{names.provider}"'
        for kind in kinds
    )
    return values


def _plugin_imports(kinds: Sequence[Kind]) -> str:
    """The import block of ``plugin.py``, sorted as ruff sorts it."""
    used = {"Probe", "ProbeRequest", "hookimpl", *(n for kind in kinds for n in _HOOK_NAMES[kind])}
    ours = ["check_options", "check_ready", *(["origin"] if "transport" in kinds else [])]
    standard = ["import os", "import sys"] if "serializer" in kinds else []
    blocks = [
        "\n".join([*standard, "from collections.abc import Mapping"]),
        _import_line("hardpoint", sorted(used)),
        _import_line(".origin", ours),
    ]
    return "\n\n".join(blocks)


def _import_line(module: str, names: Sequence[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _LINE:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in names), ")"])


def _author(text: str) -> str:
    """As an inline table of TOML.

    :raises ConfigError: it is neither a name nor a name with an address.
    """
    match = _AUTHOR.fullmatch(text.strip())
    if match is None or not text.isprintable():
        raise ConfigError(
            f"{text!r} names no author", remedy="write --author 'Name' or 'Name <name@example.org>'"
        )
    # A JSON string of printable characters is a TOML string too.
    parts = [f"name = {json.dumps(match['name'], ensure_ascii=False)}"]
    if match["email"]:
        parts.append(f"email = {json.dumps(match['email'], ensure_ascii=False)}")
    return f"{{ {', '.join(parts)} }}"


def _and(words: Sequence[str]) -> str:
    """``"a, b and c"``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
