"""The shared libraries that AOTInductor makes: as files of an artifact, and open.

On the CPU an artifact holds the library itself. PyTorch's usual package would be written out as a
file and unpacked into another, weights and all, before any of it runs; and a process that is killed
leaves that behind. Libraries for other devices come with kernels in files of their own: they stay
packages, which PyTorch knows how to unpack.
"""

from __future__ import annotations

import errno
import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

PACKAGE = "model.pt2"
LIBRARY = "model.so"
# Operators that the library asks PyTorch for by name; the runner looks for it beside the library.
CALLS = "model.json"
_FACTS = "_metadata.json"
_CHUNK = 16 << 20
# linux/memfd.h: not to be run as a program, which hardened systems insist on; a library may be.
_MFD_NOEXEC_SEAL = 0x8


def files(made: Sequence[str], device: torch.device) -> tuple[dict[str, bytes], Mapping[str, str]]:
    """What an artifact keeps of the files that AOTInductor made, and what these say of themselves.

    :param made: their paths. :returns: contents by name; ``AOTI_PLATFORM`` and the like.
    """
    facts = json.loads(_one(made, f".wrapper{_FACTS}").read_text())
    if device.type != "cpu":
        from torch._inductor.package.package import package_aoti

        target = io.BytesIO()
        package_aoti(target, list(made))
        return {PACKAGE: target.getvalue()}, facts
    kept = {LIBRARY: _one(made, ".so").read_bytes()}
    if any(path.endswith(".wrapper.json") for path in made):
        kept[CALLS] = _one(made, ".wrapper.json").read_bytes()
    return kept, facts


def _one(made: Sequence[str], suffix: str) -> Path:
    [path] = [path for path in made if path.endswith(suffix)]
    return Path(path)


class Library:
    """An open one. Its file is gone from the disk already.

    :param run: tensors in, tensors out; PyTorch holds the GIL meanwhile.
    :param constants: names of the weights that it must be given, by its own names for them.
    :param owner: the object of PyTorch's that is the library: with it, it goes.
    """

    def __init__(self, contents: Mapping[str, bytes | memoryview], device: torch.device) -> None:
        """Open it. Both of PyTorch's loaders read files only, and all that they need at once."""
        self.owner: Any
        self.run: Callable[[list[torch.Tensor]], Any]
        self.constants: set[str]
        self._load: Callable[[Mapping[str, torch.Tensor], bool, bool, bool], None]
        if device.type == "cpu":  # a package would be unpacked to the disk all the same
            # Not Linux, or forbidden; what is wrong with the library itself, the disk tells again.
            with suppress(AttributeError, OSError, RuntimeError):
                self._open(contents, device, _in_memory)
                return
        self._open(contents, device, _on_disk)

    def _open(
        self, contents: Mapping[str, bytes | memoryview], device: torch.device, write: _Write
    ) -> None:
        with ExitStack() as opened:
            # The loader of libraries goes by names: each needs one that no other ever had.
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="hardpoint-aot-"))
            for name, data in contents.items():
                write(Path(folder) / name, data, opened)
            if device.type == "cpu":
                self.owner = torch._C._aoti.AOTIModelContainerRunnerCpu(f"{folder}/{LIBRARY}", 1)
                # Not by what they were called in the program: two may have been called the same.
                self.constants = set(self.owner.get_constant_names_to_original_fqns())
                self.run, self._load = self.owner.run, self.owner.update_constant_buffer
                return
            index = -1 if device.index is None else device.index
            self.owner = torch._C._aoti.AOTIModelPackageLoader(
                f"{folder}/{PACKAGE}", "model", False, 1, index
            )
            self.constants = set(self.owner.get_constant_fqns())
            self.run, self._load = self.owner.boxed_run, self.owner.load_constants

    def give(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Use these as :attr:`constants`, where they lie, not copied."""
        self._load(tensors, False, True, True)


_Write = Callable[[Path, "bytes | memoryview", ExitStack], None]


def _in_memory(path: Path, data: bytes | memoryview, opened: ExitStack) -> None:
    """A link at ``path`` to a file that no disk has a part in, until ``opened`` is left.

    :raises OSError: the system forbids it.
    """
    try:
        file = os.memfd_create(path.name, os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what Linux before 6.3 says of a flag that it lacks
            raise
        file = os.memfd_create(path.name)
    opened.callback(os.close, file)
    path.symlink_to(f"/proc/self/fd/{file}")
    with open(file, "wb", buffering=0, closefd=False) as memory:
        done, view = 0, memoryview(data)
        while done < len(view):
            done += memory.write(view[done : done + _CHUNK])


def _on_disk(path: Path, data: bytes | memoryview, opened: ExitStack) -> None:
    path.write_bytes(data)
