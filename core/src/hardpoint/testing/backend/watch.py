"""Sees which of PyTorch's own kernels run meanwhile, and on what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What moves, makes, fills and describes memory computes nothing.
_HARMLESS = frozenset(
    {
        *("copy_", "_to_copy", "to", "type_as", "clone", "contiguous", "pin_memory", "_pin_memory"),
        *("lift", "lift_fresh", "resolve_conj", "resolve_neg", "record_stream", "detach_"),
        *("zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "zero_", "fill_"),
        *("new_zeros", "new_ones", "new_full", "resize_", "set_", "item", "_local_scalar_dense"),
        *("reshape", "_reshape_alias", "flatten", "unflatten", "view_as", "unsafe_chunk"),
        *("unsafe_split", "result_type", "can_cast"),
    }
)


def computes(name: str) -> bool:
    """Whether the operator ``name`` of ATen (without a namespace) computes numbers."""
    if name in _HARMLESS or name.startswith(("sym_", "empty", "new_empty", "is_", "_has_")):
        return False
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:
        return True
    return not any(getattr(packet, overload).is_view for overload in packet.overloads())


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operators of this thread whose tensors are all on the CPU."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        name = func.overloadpacket.__name__
        if func.namespace == "aten" and computes(name) and all(t.is_cpu for t in tensors):
            self._found[name] += 1
        return result


@contextmanager
def cpu_kernels(device: str) -> Iterator[Counter[str]]:
    """Counts PyTorch's computing CPU operators that run inside.

    By dispatch in this thread, which tells devices apart; where ``device`` is the CPU itself also
    by the profiler, which sees every thread, and calls from C++.
    """
    found: Counter[str] = Counter()
    if torch.device(device).type != "cpu":
        with _Mode(found):
            yield found
        return
    options = _ExperimentalConfig(profile_all_threads=True)
    with (
        profile(activities=[ProfilerActivity.CPU], experimental_config=options) as seen,
        _Mode(found),
    ):
        yield found
    for event in seen.events() or ():
        space, _, name = event.name.partition("::")
        if space == "aten" and name not in found and computes(name):
            found[name] += 1
