"""Load a package, in any process, without unpickling.

What compiles, saves or reads the program is imported when it is asked for: PyTorch's serializer and
sympy take a second to import, and a package that merely runs needs neither. What a package needs in
order to run is imported while threads hash its entries already.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hardpoint.collection import young_only
from hardpoint.package.archive import Archive
from hardpoint.package.integrity import Checking, Level, check_manifest

if TYPE_CHECKING:
    from hardpoint.package.contents import Contents
    from hardpoint.program.program import Program
    from hardpoint.registry.registry import Registry
    from hardpoint.runtime.model import CompiledModel
    from hardpoint.runtime.step import OpenedSegment


def load_package(
    path: Path,
    *,
    registry: Registry,
    verify: Level = "full",
) -> CompiledModel:
    """Open a package on the targets that it was compiled for.

    :param verify: check every hash, or all but the weights'. Weights that only the program uses are
        checked when it is read.
    :raises PackageError: damaged, hostile, or no hardpoint package.
    :raises ProviderError: a backend that it needs is missing, denied, broken or unavailable here.
    :raises ArtifactError: an artifact was made for another machine or version.
    """
    archive = Archive.open(path)
    opened: list[OpenedSegment] = []
    try:
        with young_only(), Checking(archive, verify, program=False) as checking:
            # While threads hash: our imports and the backends', and what needs the manifest alone.
            from hardpoint.package.contents import entries_of, read_contents
            from hardpoint.planning.devices import find_device
            from hardpoint.runtime.opening import open_artifact

            contents = read_contents(archive, checking.manifest)
            targets = dict.fromkeys(target for target, _ in contents.artifacts.values())
            devices = {target: find_device(registry, target) for target in targets}
            names = dict.fromkeys(target.backend for target in targets)
            backends = {name: registry.open("backend", name) for name in names}
            checking.files()
            for segment, (target, artifact) in contents.artifacts.items():
                device, backend = devices[target], backends[target.backend]
                opened.append(open_artifact(segment, target, device, artifact, backend, registry))
        copied = {segment.id for segment in opened if segment.executable.copies_weights}
        if copied:
            archive.give_back(entries_of(checking.manifest, copied))
        return _assemble(archive, contents, tuple(opened), registry, verify)
    except BaseException:
        for made in opened:
            made.executable.close()
        raise


def _assemble(
    archive: Archive,
    contents: Contents,
    opened: tuple[OpenedSegment, ...],
    registry: Registry,
    verify: Level,
) -> CompiledModel:
    from hardpoint.runtime.model import CompiledModel, ModelFacts

    return CompiledModel(
        signature=contents.signature,
        schedule=contents.schedule,
        segments=opened,
        # A copy: a run changes the state, and what is mapped belongs to all who loaded it.
        held={name: tensor.clone() for name, tensor in contents.held.items()},
        facts=ModelFacts(
            name=contents.name,
            plan=contents.plan,
            verification=contents.verification,
            program=_Program(archive, contents, verify),
            examples=contents.examples,
            expected=contents.expected,
        ),
        emit=registry.emit,
        write=_save,
    )


@dataclass(eq=False)
class _Program:
    """Reads the program, and first checks, once, what nobody has checked of it."""

    archive: Archive
    contents: Contents
    verify: Level
    checked: bool = False

    def __call__(self) -> Program:
        from hardpoint.package.pt2 import read_program
        from hardpoint.program.program import Program

        if not self.checked:
            check_manifest(self.archive, self.verify)
            self.checked = True
        contents = self.contents
        exported = read_program(self.archive)
        return Program(exported, contents.signature, contents.examples, contents.name)


def _save(model: CompiledModel, path: Path) -> Path:
    from hardpoint.package.save import save_package

    return save_package(model, path)
