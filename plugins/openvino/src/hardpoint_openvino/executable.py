"""A compiled model, called with PyTorch's tensors, from any thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from hardpoint import Executable, InputError
from hardpoint_openvino.indices import refuse_beyond
from hardpoint_openvino.runtime import ov

_LEAST, _GREATEST = -(2**31), 2**31 - 1


class _Request:
    """One infer request with what each call must set on it."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        request = compiled.create_infer_request()
        self.infer = request.infer
        self.set_input = request.set_input_tensor
        self.set_output = request.set_output_tensor
        self.get_output = request.get_output_tensor


class OpenVinoExecutable(Executable):
    """Runs one infer request a call; a request is never shared by two calls at once.

    Inputs are read where they lie. Results are written into memory of their own, new at each call:
    a request's own output memory is overwritten by its next call.

    :param facts: what was read back from the compiled model.
    :param indices: whose indices the last result tells of, as :mod:`.indices` made it.
    :param holds: objects whose memory the compiled model reads.
    """

    copies_weights = True  # repacked for the device; tables are read where they lie

    def __init__(
        self,
        compiled: ov.CompiledModel,
        facts: Mapping[str, object],
        indices: Sequence[str] = (),
        holds: Sequence[object] = (),
    ) -> None:
        self._compiled: ov.CompiledModel | None = compiled
        self._facts = facts
        self._indices = indices
        self._holds = holds  # also after close(): a call may still run
        self._free: list[_Request] = []
        self._in = [_reader(port.get_element_type()) for port in compiled.inputs]
        self._out = [_writer(port) for port in compiled.outputs]
        self._run = self._copied if _gives_an_input(compiled) else self._in_place

    def facts(self) -> Mapping[str, object]:
        """Read back from OpenVINO: precision, device, threads, streams, operations by precision."""
        return self._facts

    def close(self) -> None:
        """Let go of the model and its requests; calls that run end first."""
        self._compiled = None
        self._free.clear()

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run. The runtime has checked dtypes, sizes and ranges; strides are made right here.

        :raises InputError: an index is out of range.
        """
        # OpenVINO keeps no reference to the memory that it is given.
        held = [read(tensor) for read, tensor in zip(self._in, inputs, strict=True)]
        try:
            request = self._free.pop()
        except IndexError:
            request = self._new()
        for i, (_, tensor) in enumerate(held):
            request.set_input(i, tensor)
        results: Sequence[torch.Tensor] = self._run(request)
        del held
        if self._compiled is not None:
            self._free.append(request)
        if self._indices:
            *results, beyond = results
            refuse_beyond(beyond, self._indices)
        return tuple(results)

    def _in_place(self, request: _Request) -> tuple[torch.Tensor, ...]:
        """Results are written where they stay."""
        made = [(kind, ov.Tensor(kind, shape)) for kind, shape in self._out]
        for i, (_, tensor) in enumerate(made):
            request.set_output(i, tensor)
        # Without sharing, OpenVINO copies each result for an answer that nobody reads.
        request.infer(share_outputs=True)
        return tuple([_finished(kind, tensor) for kind, tensor in made])

    def _copied(self, request: _Request) -> tuple[torch.Tensor, ...]:
        """Results are copied out of the request."""
        request.infer(share_outputs=True)
        found = [request.get_output(i) for i in range(len(self._out))]
        return tuple(
            [_finished(kind, t).clone() for (kind, _), t in zip(self._out, found, strict=True)]
        )

    def _new(self) -> _Request:
        compiled = self._compiled
        if compiled is None:
            raise RuntimeError("the executable was closed")
        return _Request(compiled)


def _gives_an_input(compiled: ov.CompiledModel) -> bool:
    """Whether some result is an input as it is.

    Where such a result is given memory of its own, OpenVINO takes that memory for the input's:
    the result is never written, and neighbours compute on garbage.
    """
    for node in compiled.get_runtime_model().get_results():
        if node.input_value(0).get_node().get_type_name() == "Parameter":
            return True
    return False


_Given = tuple[Any, ov.Tensor]  # numbers, and OpenVINO's view of their memory


def _reader(kind: ov.Type) -> Callable[[torch.Tensor], _Given]:
    """How an input of this type becomes OpenVINO's, where it lies."""
    if kind == ov.Type.bf16:  # numpy has no such dtype
        return _read_bf16
    return _read_int64 if kind == ov.Type.i64 else _read


def _read(tensor: torch.Tensor) -> _Given:
    array = tensor.detach().contiguous().numpy()
    return array, ov.Tensor(array, shared_memory=True)


def numbers(tensor: torch.Tensor) -> Any:
    """A tensor for a calibration of NNCF's."""
    plain = tensor.detach().contiguous()
    return _read_bf16(plain)[1] if plain.dtype is torch.bfloat16 else plain.numpy()


def _read_bf16(tensor: torch.Tensor) -> _Given:
    bits = tensor.detach().contiguous().view(torch.int16).numpy()
    return bits, ov.Tensor(bits, ov.Shape(list(bits.shape)), ov.Type.bf16)


def _read_int64(tensor: torch.Tensor) -> _Given:
    """OpenVINO's devices compute 64-bit integers in 32 bits: what does not fit is refused."""
    array = tensor.detach().contiguous().numpy()
    if array.size and not (array.min() >= _LEAST and array.max() <= _GREATEST):
        raise InputError(
            "an int64 input holds a number beyond 32 bits",
            cause=f"its numbers go from {array.min()} to {array.max()}, and OpenVINO's devices "
            "compute in 32 bits",
            remedy="leave openvino out of targets= for this model",
        )
    return array, ov.Tensor(array, shared_memory=True)


def _writer(port: ov.ConstOutput) -> tuple[ov.Type, ov.Shape]:
    """Type and size of a result's memory; without elements where the size depends on the call.

    OpenVINO gives such a tensor memory of its own, of the right size.
    """
    shape = port.get_partial_shape()
    sizes = [d.get_length() if d.is_static else 0 for d in shape] if shape.rank.is_static else [0]
    return port.get_element_type(), ov.Shape(sizes)


def _finished(kind: ov.Type, tensor: ov.Tensor) -> torch.Tensor:
    """A result as PyTorch's tensor, where it lies."""
    if kind == ov.Type.bf16:  # which OpenVINO shows as numpy's float16 over the same bits
        return torch.from_numpy(tensor.data.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(tensor.data)
