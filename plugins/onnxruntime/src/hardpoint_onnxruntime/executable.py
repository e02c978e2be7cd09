"""A session, called with PyTorch's tensors where they lie, giving tensors of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hardpoint import Executable
from hardpoint_onnxruntime.session import runtime

# ONNX's numbers of element types (onnx.TensorProto.DataType).
ELEMENTS: Mapping[torch.dtype, int] = {
    torch.float32: 1, torch.uint8: 2, torch.int8: 3, torch.int16: 5, torch.int32: 6,
    torch.int64: 7, torch.bool: 9, torch.float16: 10, torch.float64: 11, torch.bfloat16: 16,
}  # fmt: skip
# Sets of sizes whose results' sizes are remembered.
REMEMBERED = 1024
Shapes = tuple[torch.Size, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: ONNX Runtime's name, and what lies there."""

    name: str
    dtype: torch.dtype


def to_ort(tensor: torch.Tensor) -> Any:
    """An ``OrtValue`` on a contiguous tensor's memory, which must outlive it."""
    ort, plain = runtime(), tensor.detach()
    if plain.numel() == 0:  # DLPack gives no memory, and ONNX Runtime asks for some
        return ort.OrtValue.ortvalue_from_shape_and_type(list(plain.shape), ELEMENTS[plain.dtype])
    if plain.dtype is torch.bool:  # which its reader of DLPack does not know
        return ort.OrtValue.ortvalue_from_numpy(plain.numpy())
    return ort.OrtValue.from_dlpack(plain)


def from_ort(value: Any) -> torch.Tensor:
    """A tensor on the memory of an ``OrtValue``, which it keeps."""
    made = torch.from_dlpack(value._ortvalue)
    return made.view(torch.bool) if value.data_type() == "tensor(bool)" else made


class OrtExecutable(Executable):
    """An opened session. Any number of threads may call it: ONNX Runtime's sessions allow that,
    and each thread has bindings of its own.

    :param weights: tensors whose memory the session uses.
    :param place: (kind, index) of the device whose memory inputs and outputs are in.
    :param facts: what :meth:`facts` gives.
    """

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
        self._weights = weights
        self._ins = [(p.name, ELEMENTS[p.dtype]) for p in inputs]
        self._outs = [(p.name, ELEMENTS[p.dtype], p.dtype) for p in outputs]
        self._kind, self._index = place
        self._device = torch.device(*place) if place[0] != "cpu" else torch.device("cpu")
        self._facts = dict(facts)
        self._bindings = threading.local()
        self._shapes: dict[Shapes, list[torch.Size]] = {}
        self._process = os.getpid()

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run on the inputs' own memory; they are contiguous.

        :raises RuntimeError: the executable was closed, or is a forked child's.
        """
        bindings = self._bindings
        binding = getattr(bindings, "binding", None)
        if binding is None:
            binding = bindings.binding = self._open().io_binding()
        session = self._session
        if session is None or os.getpid() != self._process:
            session = self._open()
        kind, index = self._kind, self._index
        shapes = tuple([t.shape for t in inputs])
        for (name, element), tensor in zip(self._ins, inputs, strict=True):
            if tensor.numel():
                binding.bind_input(name, kind, index, element, tensor.shape, tensor.data_ptr())
            else:
                binding.bind_ortvalue_input(name, to_ort(tensor))
        sizes = self._shapes.get(shapes)
        if kind != "cpu":
            torch.cuda.current_stream(self._device).synchronize()
        if sizes is None:
            return self._first(session, binding, shapes)
        made = []
        for (name, element, dtype), size in zip(self._outs, sizes, strict=True):
            out = torch.empty(size, dtype=dtype, device=self._device)
            binding.bind_output(name, kind, index, element, size, out.data_ptr())
            made.append(out)
        session.run_with_iobinding(binding)
        return tuple(made)

    def _first(self, session: Any, binding: Any, shapes: Shapes) -> tuple[torch.Tensor, ...]:
        """A call with sizes not seen before: ONNX Runtime tells how large the results are."""
        for name, _, _ in self._outs:
            binding.bind_output(name, self._kind, self._index)
        session.run_with_iobinding(binding)
        made = [from_ort(value).clone() for value in binding.get_outputs()]
        if all(t.numel() for t in made):  # a pointer to nothing is not bound
            if len(self._shapes) >= REMEMBERED:
                self._shapes.clear()
            self._shapes[shapes] = [t.shape for t in made]
        return tuple(made)

    def _open(self) -> Any:
        if self._session is None:
            raise RuntimeError("the executable was closed")
        if os.getpid() != self._process:
            raise RuntimeError(
                "the process was forked after the executable was loaded, and ONNX Runtime's "
                "threads are not in the child; start it with 'spawn' and load there"
            )
        return self._session

    def facts(self) -> Mapping[str, object]:
        """What ONNX Runtime said when the session was opened."""
        return self._facts

    def close(self) -> None:
        """Let go of the session and the weights, as soon as no call runs any more."""
        self._session = None
        self._bindings = threading.local()
        self._weights = ()
        self._shapes = {}
