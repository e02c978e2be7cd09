"""CUDA graphs: the kernels of one set of sizes are recorded once and launched as one.

A recording reads and writes the same memory each time. So inputs are copied in, and outputs are
copied out: they stay valid after the next replay. One lock and one event order the replays, from
whatever threads and streams they come.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from hardpoint import Executable
from hardpoint_cpu.origin import compile_error

_WARM_UP = 3  # calls before the recording: libraries allocate and choose kernels on the first ones
# Scalars are no compute nodes, and are recorded by the exporter all the same.
_NUMBERS = (torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default)
Key = tuple[tuple[torch.Size, torch.dtype], ...]


def refuse_unrecordable(program: ExportedProgram) -> None:
    """What the host must look at between two kernels cannot be recorded.

    :raises CompileError: the program has control flow, or sizes that depend on data.
    """
    for node in program.graph.nodes:
        target = node.target
        if node.op != "call_function":
            continue
        if isinstance(target, torch._ops.HigherOrderOperator):
            why = f"{target} decides on the host which kernels run"
        elif target in _NUMBERS:
            why = "it takes a number out of a tensor"
        elif _unknown_size(node.meta.get("val")):
            why = f"the size of {target}'s result depends on data"
        else:
            continue
        raise compile_error(
            f"node {node.name!r} cannot be recorded in a CUDA graph",
            cause=why,
            remedy="leave the option graphs out for this segment",
        )


def _unknown_size(value: object) -> bool:
    for leaf in tree_leaves(value):
        for size in leaf.shape if isinstance(leaf, torch.Tensor) else (leaf,):
            if isinstance(size, torch.SymInt):
                environment = size.node.shape_env
                symbols = size.node.expr.free_symbols
                if any(environment.is_unbacked_symint(symbol) for symbol in symbols):
                    return True
    return False


@dataclass(eq=False)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]


class GraphExecutable(Executable):
    """Records ``inner`` for each set of sizes that it is called with, and replays it.

    :param limit: so many recordings are kept; the one that was used longest ago goes.
    """

    def __init__(self, inner: Executable, device: torch.device, limit: int) -> None:
        self._inner = inner
        self._device = device
        self._limit = limit
        self._recordings: OrderedDict[Key, _Recording] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = torch.cuda.graph_pool_handle()  # one memory for all: they never overlap
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._closed = False

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Replay; record first where these sizes are new."""
        key = tuple((t.shape, t.dtype) for t in inputs)
        with self._lock, torch.no_grad():
            if self._closed:
                raise RuntimeError("the executable was closed")
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(self._done)  # the last replay may have been on another stream
            recording = self._recordings.get(key)
            if recording is None:
                recording = self._recordings[key] = self._record(inputs)
                self._forget_oldest()
            self._recordings.move_to_end(key)
            for held, given in zip(recording.inputs, inputs, strict=True):
                held.copy_(given)
            recording.graph.replay()
            results = tuple(held.clone() for held in recording.outputs)
            self._done.record(stream)
        return results

    def _record(self, inputs: Sequence[torch.Tensor]) -> _Recording:
        held = tuple(t.clone(memory_format=torch.contiguous_format) for t in inputs)
        current = torch.cuda.current_stream(self._device)
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._inner(*held)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may go on using the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = self._inner(*held)
        return _Recording(graph, held, outputs)

    def _forget_oldest(self) -> None:
        while len(self._recordings) > self._limit:
            self._done.synchronize()
            _, oldest = self._recordings.popitem(last=False)
            oldest.graph.reset()

    def facts(self) -> Mapping[str, object]:
        """How many sets of sizes are recorded."""
        return {"recorded": len(self._recordings)}

    def close(self) -> None:
        """Let go of all recordings and their memory."""
        with self._lock:
            self._closed = True
            if self._recordings:
                self._done.synchronize()
            for recording in self._recordings.values():
                recording.graph.reset()
            self._recordings.clear()
        self._inner.close()
