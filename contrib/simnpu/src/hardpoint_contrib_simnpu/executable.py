"""An opened program: weights in the device's memory, calls from any thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hardpoint import Artifact, Device, Executable, InputError, ProviderError
from hardpoint_contrib_simnpu.chip import in_bytes
from hardpoint_contrib_simnpu.codec import FILE, decode
from hardpoint_contrib_simnpu.isa import FORMAT
from hardpoint_contrib_simnpu.machine import Counters, run
from hardpoint_contrib_simnpu.memory import Arena
from hardpoint_contrib_simnpu.origin import ORIGIN, PROVIDER, artifact_error
from hardpoint_contrib_simnpu.program import Program

TORCH = {"f32": torch.float32, "f16": torch.float16, "i8": torch.int8}


class SimExecutable(Executable):
    """One program on one device.

    Calls take turns, as the device has one queue; each works on memory of its own, so nothing of
    one call is left for the next. :meth:`counters` tells what was copied and computed.
    """

    def __init__(self, program: Program, const: Arena) -> None:
        self.program = program
        self._const: Arena | None = const
        self._counters = Counters()
        self._queue, self._process = threading.Lock(), os.getpid()

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run once. Inputs are copied in, outputs are new memory.

        :raises InputError: not the tensors that the program declares.
        :raises ProviderError: it was closed.
        """
        self._check(inputs)
        arrays = [t.numpy(force=True) for t in inputs]
        with self._turn():
            if self._const is None:
                raise ProviderError(
                    "the executable was closed", provider=PROVIDER, origin=ORIGIN,
                    remedy="load the artifact again",
                )  # fmt: skip
            outputs, counted = run(self.program, self._const, arrays)
            self._counters = self._counters.plus(counted)
        return tuple(torch.from_numpy(array) for array in outputs)

    def counters(self) -> Counters:
        """What all calls so far did together."""
        return self._counters

    def close(self) -> None:
        """Let go of the weights' memory."""
        with self._turn():
            self._const = None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._process != os.getpid():
            # A fork copies a lock that another thread held, and not the thread to let it go.
            self._queue, self._process = threading.Lock(), os.getpid()
        with self._queue:
            yield

    def _check(self, inputs: tuple[torch.Tensor, ...]) -> None:
        ports = self.program.inputs
        wanted = [(TORCH[p.dtype], p.shape) for p in ports]
        given = [(t.dtype, tuple(t.shape)) for t in inputs]
        if given != wanted:
            raise InputError(
                f"the program takes {_listed(wanted)}, got {_listed(given)}",
                provider=PROVIDER, origin=ORIGIN,
                remedy="sizes are fixed when a program is compiled for simnpu",
            )  # fmt: skip


def _listed(tensors: list[tuple[torch.dtype, tuple[int, ...]]]) -> str:
    shown = [f"{str(d).removeprefix('torch.')}{list(s)}" for d, s in tensors]
    return ", ".join(shown) or "nothing"


def open_artifact(artifact: Artifact, device: Device) -> SimExecutable:
    """Read an artifact, trusting nothing in it, and copy its weights to ``device``.

    :raises ArtifactError: another format, chip or version; damaged; more than the device's memory.
    """
    if artifact.format != FORMAT:
        raise artifact_error(
            f"the artifact's format {artifact.format!r} is not one that the simnpu backend reads",
            cause=f"it reads {FORMAT}",
            remedy="open it with the backend that made it, or compile the segment again",
        )
    if FILE not in artifact.files:
        raise artifact_error(
            f"the artifact has no file {FILE}",
            cause=f"it has {', '.join(sorted(artifact.files)) or 'no files'}",
            remedy="compile the segment again",
        )
    program = decode(artifact.files[FILE])
    if device.memory is not None and program.memory > device.memory:
        raise artifact_error(
            f"the artifact does not fit device {device.id}",
            cause=f"it needs {in_bytes(program.memory)} of DRAM, the device has "
            f"{in_bytes(device.memory)}",
            remedy="open the backend with a larger dram_mib, or compile a smaller segment",
        )
    return SimExecutable(program, _weights(program, artifact))


def _weights(program: Program, artifact: Artifact) -> Arena:
    """The weights, copied into device memory."""
    odd = sorted(program.weights.keys() ^ artifact.weights.keys())
    if odd:
        has = "lacks" if odd[0] in program.weights else "does not know"
        whose = "the artifact" if odd[0] in program.weights else "its program"
        raise _no_weights(f"{whose} {has} weight {odd[0]!r}")
    arena = Arena(program.const_bytes)
    for name, region in program.weights.items():
        tensor = artifact.weights[name]
        found, wanted = (tensor.dtype, tuple(tensor.shape)), (TORCH[region.dtype], region.shape)
        if found != wanted:
            raise _no_weights(
                f"weight {name!r} is {_listed([found])}, the program says {_listed([wanted])}"
            )
        arena.at(region)[...] = tensor.numpy(force=True)
    return arena


def _no_weights(cause: str) -> Exception:
    return artifact_error(
        "the artifact's weights are not those of its program",
        cause=cause,
        remedy="compile the segment again",
    )
