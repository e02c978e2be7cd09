"""A session, called with PyTorch's tensors where they lie, giving tensors of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
import torch.utils.dlpack

from hardpoint import ArtifactError, Executable
from hardpoint_onnxruntime import native
from hardpoint_onnxruntime.faults import fault
from hardpoint_onnxruntime.origin import artifact_error
from hardpoint_onnxruntime.session import runtime

# ONNX's numbers of element types (onnx.TensorProto.DataType).
ELEMENTS: Mapping[torch.dtype, int] = {
    torch.float32: 1, torch.uint8: 2, torch.int8: 3, torch.int16: 5, torch.int32: 6,
    torch.int64: 7, torch.bool: 9, torch.float16: 10, torch.float64: 11, torch.bfloat16: 16,
}  # fmt: skip
# The same by ONNX Runtime's names.
ONNX_TYPES: Mapping[str, int] = {
    f"tensor({name})": ELEMENTS[dtype]
    for name, dtype in {
        "float": torch.float32, "uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16,
        "int32": torch.int32, "int64": torch.int64, "bool": torch.bool, "float16": torch.float16,
        "double": torch.float64, "bfloat16": torch.bfloat16,
    }.items()
}  # fmt: skip
# Sets of sizes whose results' sizes are remembered.
REMEMBERED = 1024
Shapes = tuple[torch.Size, ...]


# One entry for each fork between the first process and this one.
_FORKS: list[None] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _FORKS.append(None))


def _not_made_for(port: Port, tensor: torch.Tensor) -> ArtifactError:
    """What is handed over by address must reach as far as the artifact reads, whatever it says."""
    last = max((start + max(count, 1) for start, count, _ in port.slices), default=0)
    rows = f" with {last} rows or more" if last else ""
    return artifact_error(
        f"the artifact was not made for this program: input {port.name!r} is {tensor.dtype} of "
        f"shape {list(tensor.shape)}",
        cause=f"its metadata say {port.dtype}{rows}",
        remedy="get the package again from its source, or compile the segment again",
    )


def _closed(*_: object) -> NoReturn:
    raise RuntimeError("the executable was closed")


class Port(NamedTuple):
    """An input or output: ONNX Runtime's name, and what lies there.

    :param slices: (start, count, name) of each of ONNX Runtime's inputs that it is handed over as:
        parts along its first dimension; a count of 0: one place, without that dimension. Empty: it
        is one input.
    """

    name: str
    dtype: torch.dtype
    slices: tuple[tuple[int, int, str], ...] = ()


def to_ort(tensor: torch.Tensor) -> Any:
    """An ``OrtValue`` on a contiguous tensor's memory, which must outlive it."""
    ort, plain = runtime(), tensor.detach()
    if plain.numel() == 0:  # DLPack gives no memory, and ONNX Runtime asks for some
        return ort.OrtValue.ortvalue_from_shape_and_type(list(plain.shape), ELEMENTS[plain.dtype])
    if plain.dtype is torch.bool:  # which its reader of DLPack does not know
        return ort.OrtValue.ortvalue_from_numpy(plain.numpy())
    return ort.OrtValue.from_dlpack(plain)


def from_ort(value: Any) -> torch.Tensor:
    """A tensor on the memory of one of the bindings' values, which it keeps."""
    made: torch.Tensor = torch.utils.dlpack.from_dlpack(value)
    return made.view(torch.bool) if value.data_type() == "tensor(bool)" else made


class OrtExecutable(Executable):
    """An opened session. Any number of threads may call it: ONNX Runtime's sessions allow that,
    and each thread has bindings of its own.

    :param weights: tensors whose memory the session uses.
    :param place: (kind, index) of the device whose memory inputs and outputs are in.
    :param facts: what :meth:`facts` gives.
    """

    # It packs the weights of products and convolutions anew; a table that is looked up in is read
    # where it lies.
    copies_weights = True

    def __init__(
        self,
        session: Any,
        weights: Sequence[object],
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        place: tuple[str, int],
        facts: Mapping[str, object],
    ) -> None:
        self._session = session
        self._run = native.runner(session)
        self._weights = weights
        self._ins = [(p.name, ELEMENTS[p.dtype], p) for p in inputs]
        self._outs = [(p.name, ELEMENTS[p.dtype], p.dtype) for p in outputs]
        self._place = native.place(*place)
        self._device = torch.device("cpu") if place[0] == "cpu" else torch.device(*place)
        self._waits = place[0] != "cpu"
        self._facts = dict(facts)
        self._local = threading.local()
        self._shapes: dict[Shapes, list[torch.Size]] = {}
        self._forks = len(_FORKS)

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run on the inputs' own memory; they are contiguous.

        :raises InputError: an index is out of range.
        :raises ArtifactError: its metadata belong to another program.
        :raises RuntimeError: the executable was closed, or is a forked child's.
        :raises OutOfMemory: the call needs more memory than there is.
        :raises DeviceLost: no call on this device will work any more.
        """
        session = self._session  # until this call ends, whatever another thread closes
        if session is None or len(_FORKS) != self._forks:
            raise self._unusable()
        try:
            binding = self._local.binding
        except AttributeError:
            binding = self._local.binding = native.binding(session)
        place = self._place
        shapes = tuple([t.shape for t in inputs])
        for (name, element, port), tensor, shape in zip(self._ins, inputs, shapes, strict=True):
            address = tensor.data_ptr()
            if tensor.dtype is not port.dtype:
                raise _not_made_for(port, tensor)
            if port.slices:
                self._bind_slices(binding, element, port, tensor)
            elif address:
                binding.bind_input(name, place, element, shape, address)
            else:
                binding.bind_ortvalue_input(name, to_ort(tensor)._ortvalue)
        if self._waits:
            torch.cuda.current_stream(self._device).synchronize()
        sizes = self._shapes.get(shapes)
        try:
            if sizes is None:
                return self._first(binding, shapes)
            made = []
            for (name, element, dtype), size in zip(self._outs, sizes, strict=True):
                out = torch.empty(size, dtype=dtype, device=self._device)
                binding.bind_output(name, place, element, size, out.data_ptr())
                made.append(out)
            self._run(binding, None)
        except Exception as error:
            known = fault(error, f"the device {self._device}")
            if known is None:
                raise
            raise known from error
        return tuple(made)

    def _bind_slices(self, binding: Any, element: int, port: Port, tensor: torch.Tensor) -> None:
        """Bind each part where it lies; see :class:`Port`."""
        have, *rest = tensor.shape or (0,)
        step, address = tensor.nbytes // have if have else 0, tensor.data_ptr()
        for start, count, name in port.slices:
            if start + max(count, 1) > have:
                raise _not_made_for(port, tensor)
            size = (count, *rest) if count else rest
            if address:
                binding.bind_input(name, self._place, element, size, address + start * step)
            else:
                part = torch.empty(size, dtype=tensor.dtype, device=tensor.device)
                binding.bind_ortvalue_input(name, to_ort(part)._ortvalue)

    def _first(self, binding: Any, shapes: Shapes) -> tuple[torch.Tensor, ...]:
        """A call with sizes not seen before: ONNX Runtime tells how large the results are."""
        for name, _, _ in self._outs:
            binding.bind_output(name, self._place)
        self._run(binding, None)
        made = [from_ort(value).clone() for value in binding.get_outputs()]
        if all(t.numel() for t in made):  # there is no address of nothing
            if len(self._shapes) >= REMEMBERED:
                self._shapes.clear()
            self._shapes[shapes] = [t.shape for t in made]
        return tuple(made)

    def _unusable(self) -> RuntimeError:
        if self._session is None:
            return RuntimeError("the executable was closed")
        return RuntimeError(
            "the process was forked after the executable was loaded, and ONNX Runtime's threads "
            "are not in the child; start it with 'spawn' and load there"
        )

    def facts(self) -> Mapping[str, object]:
        """What ONNX Runtime said when the session was opened."""
        return self._facts

    def close(self) -> None:
        """Let go of the session and the weights, as soon as no call runs any more."""
        self._session = None
        self._run = _closed
        self._local = threading.local()
        self._weights = ()
        self._shapes = {}
