"""One infer request, and how PyTorch's tensors get into it and out of it.

What is small has a place of the request's own, which OpenVINO is told of once; calls copy into and
out of it. All else is read and written where it lies, which OpenVINO is told of at each call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from hardpoint import InputError
from hardpoint_openvino.runtime import ov

_LEAST, _GREATEST = -(2**31), 2**31 - 1
# Bytes: to copy so few takes less than to tell OpenVINO of other memory (some 2 us for each).
_SMALL = 16384


class Port(NamedTuple):
    """Type and sizes of an input or a result, and whether a request has a place of its own for it.

    The shape is one without elements where sizes depend on the call: OpenVINO gives such a tensor
    memory of its own, of the right size.
    """

    kind: ov.Type
    shape: ov.Shape
    small: bool


def port_of(port: ov.ConstOutput, *, alone: bool) -> Port:
    """What a call must know of an input or a result of a compiled model.

    :param alone: whether its memory may be chosen apart from that of all others.
    """
    kind, shape = port.get_element_type(), port.get_partial_shape()
    if not shape.is_static:
        known = shape if shape.rank.is_static else ()
        sizes = [d.get_length() if d.is_static else 0 for d in known] or [0]
        return Port(kind, ov.Shape(sizes), small=False)
    sizes = [d.get_length() for d in shape]
    return Port(kind, ov.Shape(sizes), alone and 0 < math.prod(sizes) * kind.size <= _SMALL)


class Request:
    """One infer request. It is for one call at a time.

    :param alone: whether results may have memory of their choice; else they are copied.
    """

    def __init__(
        self, compiled: ov.CompiledModel, ins: Sequence[Port], outs: Sequence[Port], *, alone: bool
    ) -> None:
        request = compiled.create_infer_request()
        self.puts = [_taker(request, i, port) for i, port in enumerate(ins)]
        self._request, self._outs, self._alone = request, outs, alone
        self._mine = [_place(request.set_output_tensor, i, port) for i, port in enumerate(outs)]
        self._large = [(i, *port[:2]) for i, port in enumerate(outs) if not port.small]

    def run(self) -> tuple[torch.Tensor, ...]:
        """Results of what was put."""
        return self._in_place() if self._alone else self._copied()

    def _in_place(self) -> tuple[torch.Tensor, ...]:
        """Results of a size are written where they stay; small ones are copied out."""
        made = {i: ov.Tensor(kind, shape) for i, kind, shape in self._large}
        for i, tensor in made.items():
            self._request.set_output_tensor(i, tensor)
        # Without sharing, OpenVINO copies each result for an answer that nobody reads.
        self._request.infer(share_outputs=True)
        return tuple(
            [
                _torch(self._outs[i].kind, made[i]) if mine is None else mine.clone()
                for i, mine in enumerate(self._mine)
            ]
        )

    def _copied(self) -> tuple[torch.Tensor, ...]:
        """All results are copied out of the request."""
        self._request.infer(share_outputs=True)
        found = [self._request.get_output_tensor(i) for i in range(len(self._outs))]
        return tuple([_torch(p.kind, t).clone() for p, t in zip(self._outs, found, strict=True)])


def numbers(tensor: torch.Tensor) -> Any:
    """A tensor for a calibration of NNCF's."""
    plain = tensor.detach().contiguous()
    return _bf16(plain)[1] if plain.dtype is torch.bfloat16 else plain.numpy()


def _taker(request: ov.InferRequest, i: int, port: Port) -> Callable[[torch.Tensor], object]:
    """How input ``i`` gets into a request. It gives what must live until the call is done, as
    OpenVINO keeps no reference to memory that it is given.
    """
    mine = _place(request.set_input_tensor, i, port)
    view = _bf16 if port.kind == ov.Type.bf16 else _plain
    checked = port.kind == ov.Type.i64

    def lies(tensor: torch.Tensor) -> object:
        given = view(tensor.detach().contiguous())
        if checked:
            _refuse_beyond_32_bits(given[0])
        request.set_input_tensor(i, given[1])
        return given

    if mine is None:
        return lies
    place, shape, dtype = mine, mine.shape, mine.dtype

    def copied(tensor: torch.Tensor) -> None:
        if tensor.shape != shape or tensor.dtype is not dtype:  # a copy would cast or repeat it
            raise InputError(
                f"input {i} is {tensor.dtype} of shape {list(tensor.shape)}",
                cause=f"the segment was compiled for {dtype} of shape {list(shape)}",
            )
        plain = tensor.detach()
        if checked:
            _refuse_beyond_32_bits(plain.numpy())
        place.copy_(plain)

    return copied


def _place(tell: Callable[[int, ov.Tensor], None], i: int, port: Port) -> torch.Tensor | None:
    """The request's own memory for input or result ``i``, where that is small."""
    if not port.small:
        return None
    with torch.inference_mode(False):  # a later call may be outside of that mode
        made = ov.Tensor(port.kind, port.shape)
        tell(i, made)
        return _torch(port.kind, made)


_Given = tuple[Any, ov.Tensor]  # numbers, and OpenVINO's view of their memory


def _plain(tensor: torch.Tensor) -> _Given:
    array = tensor.numpy()
    return array, ov.Tensor(array, shared_memory=True)


def _bf16(tensor: torch.Tensor) -> _Given:
    bits = tensor.view(torch.int16).numpy()  # numpy has no such dtype
    return bits, ov.Tensor(bits, ov.Shape(list(bits.shape)), ov.Type.bf16)


def _refuse_beyond_32_bits(array: Any) -> None:
    """OpenVINO's devices compute 64-bit integers in 32 bits: what does not fit is refused."""
    if array.size and not (array.min() >= _LEAST and array.max() <= _GREATEST):
        raise InputError(
            "an int64 input holds a number beyond 32 bits",
            cause=f"its numbers go from {array.min()} to {array.max()}, and OpenVINO's devices "
            "compute in 32 bits",
            remedy="leave openvino out of targets= for this model",
        )


def _torch(kind: ov.Type, tensor: ov.Tensor) -> torch.Tensor:
    """OpenVINO's tensor as PyTorch's, where it lies."""
    if kind == ov.Type.bf16:  # which OpenVINO shows as numpy's float16 over the same bits
        return torch.from_numpy(tensor.data.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(tensor.data)
