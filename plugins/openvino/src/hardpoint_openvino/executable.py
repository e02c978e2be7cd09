"""A compiled model, called with PyTorch's tensors, from any thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from hardpoint import Executable, InputError
from hardpoint_openvino.indices import refuse_beyond
from hardpoint_openvino.request import Request, port_of
from hardpoint_openvino.runtime import ov


class OpenVinoExecutable(Executable):
    """Runs one infer request a call; a request is never shared by two calls at once.

    Results are never in a request's own memory, which its next call overwrites.

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
        self._free: list[Request] = []
        self._alone = not _gives_an_input(compiled)
        self._in = [port_of(port, alone=self._alone) for port in compiled.inputs]
        self._out = [port_of(port, alone=self._alone) for port in compiled.outputs]

    def facts(self) -> Mapping[str, object]:
        """Read back from OpenVINO: precision, device, threads, streams, operations by precision."""
        return self._facts

    def close(self) -> None:
        """Let go of the model and its requests; calls that run end first."""
        self._compiled = None
        self._free.clear()

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run. The runtime has checked dtypes, sizes and ranges; strides are made right here.

        :raises InputError: an index is out of range, a 64-bit number beyond 32 bits, or a small
            input is not what the segment was compiled for.
        """
        try:
            request = self._free.pop()
        except IndexError:
            request = self._new()
        try:
            held = [put(tensor) for put, tensor in zip(request.puts, inputs, strict=True)]
        except InputError:  # nothing ran
            self._back(request)
            raise
        results: Sequence[torch.Tensor] = request.run()
        del held
        self._back(request)
        if self._indices:
            *results, beyond = results
            refuse_beyond(beyond, self._indices)
        return tuple(results)

    def _back(self, request: Request) -> None:
        if self._compiled is not None:
            self._free.append(request)

    def _new(self) -> Request:
        compiled = self._compiled
        if compiled is None:
            raise RuntimeError("the executable was closed")
        return Request(compiled, self._in, self._out, alone=self._alone)


def _gives_an_input(compiled: ov.CompiledModel) -> bool:
    """Whether some result is an input as it is.

    Where such a result is given memory of its own, OpenVINO takes that memory for the input's:
    the result is never written, and neighbours compute on garbage.
    """
    for node in compiled.get_runtime_model().get_results():
        if node.input_value(0).get_node().get_type_name() == "Parameter":
            return True
    return False
