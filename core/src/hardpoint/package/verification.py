"""Every check of a package, one after another, with what each found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hardpoint.errors import PackageError
from hardpoint.package.archive import Archive
from hardpoint.package.integrity import check_manifest, read_manifest, references
from hardpoint.package.pickles import programs, refuse_pickles

Outcome = Literal["ok", "failed", "not checked"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    :param detail: what was found, in words.
    :param error: why it failed.
    """

    name: str
    outcome: Outcome
    detail: str
    error: PackageError | None = None


class _Package:
    """What the checks share: each may rely on those before it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.archive: Archive
        self.manifest: Mapping[str, Any]

    def structure(self) -> str:
        self.archive = Archive.open(self.path)
        return f"{len(self.archive.entries)} entries, stored and aligned, fill the file"

    def listing(self) -> str:
        self.manifest = read_manifest(self.archive)
        return f"its hash is right, and it lists all {len(self.manifest['entries'])} entries"

    def content(self) -> str:
        check_manifest(self.archive, "full")
        count = sum(self.archive.entries[name].size for name in self.manifest["entries"])
        return f"the SHA-256 of {count:,} bytes is right"

    def pickles(self) -> str:
        refuse_pickles(self.archive)
        return "none: nothing runs code when it is read"

    def tensors(self) -> str:
        from hardpoint.package.tensors import MappedTensors

        mapped = MappedTensors(self.archive)
        refs = list(references(self.manifest))
        for ref in refs:
            mapped.tensor(ref)
        return f"{len(refs)} references lie within their entries"

    def graphs(self) -> str:
        from hardpoint.package.pt2 import read_program

        sizes = [
            f"{name!r} with {len(read_program(self.archive, name).graph.nodes)} nodes"
            for name in programs(self.archive)
        ]
        return f"read and well-formed: {', '.join(sizes) or 'none'}"


def verify_package(path: str | Path) -> tuple[Check, ...]:
    """Check the file at ``path``. After a failure the checks that rely on it are not made.

    Imports torch only when the content is proven to be what was written.
    """
    package = _Package(Path(path))
    steps: tuple[tuple[str, Callable[[], str]], ...] = (
        ("structure", package.structure),
        ("manifest", package.listing),
        ("content", package.content),
        ("pickles", package.pickles),
        ("tensors", package.tensors),
        ("programs", package.graphs),
    )
    checks: list[Check] = []
    for name, step in steps:
        if any(check.error for check in checks):
            checks.append(Check(name, "not checked", "an earlier check failed"))
            continue
        try:
            checks.append(Check(name, "ok", step()))
        except PackageError as error:
            checks.append(Check(name, "failed", error.cause, error))
    return tuple(checks)
