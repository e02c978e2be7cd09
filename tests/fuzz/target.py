"""A target: a parser, the bytes it starts from, and what is known of their form."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
PLUGINS = HERE.parents[1] / "plugins"

Mutate = Callable[[bytes, int], bytes]


def _nothing(folder: Path) -> None:
    """Most targets need no files beside the input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser.

    :param run: gives it an input, whose file it writes into a folder of the target's own; raises
        where an invariant breaks.
    :param seeds: inputs that exercise it: good files and bad ones.
    :param prepare: puts into the folder what must stand beside every input.
    :param lazy: modules that the parser imports when first needed. They are imported beforehand:
        while a file is read, nothing may be.
    :param mutate: (input, most bytes, seed, libFuzzer's own mutation) -> input, where plain
        mutation only breaks lengths and checksums.
    :param words: for the mutations: keys, opcodes, magic numbers.
    :param longest: bytes of an input.
    """

    run: Callable[[bytes, Path], None]
    seeds: Callable[[], Iterable[bytes]]
    prepare: Callable[[Path], None] = _nothing
    lazy: tuple[str, ...] = ()
    mutate: Callable[[bytes, int, int, Mutate], bytes] | None = None
    words: Callable[[], Iterable[bytes]] = tuple
    longest: int = 8192


def names() -> list[str]:
    """All targets."""
    return sorted(path.stem for path in (HERE / "targets").glob("[!_]*.py"))


def load(name: str) -> Target:
    """The target of that name."""
    made: Target = importlib.import_module(f"targets.{name}").TARGET
    return made


def files(plugin: str, *patterns: str, longest: int = 1 << 16) -> list[bytes]:
    """The golden and hostile files of a plugin's tests."""
    tests = PLUGINS / plugin / "tests"
    found = [path for pattern in patterns for path in sorted(tests.glob(pattern))]
    return [path.read_bytes() for path in found if path.stat().st_size <= longest]
