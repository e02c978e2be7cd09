"""Whole tensors in private memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from hardpoint.interfaces.serializer import TensorInfo
from hardpoint.storage.buffers import allocate
from hardpoint.storage.gather import Piece, Tick, gather
from hardpoint.storage.layout import Layout
from hardpoint.storage.source import Source
from hardpoint.storage.typed import TensorsOver, check_bools, dtype_of


def own(
    placed: Sequence[tuple[TensorInfo, Source]],
    *,
    threads: int | None = None,
    tick: Tick | None = None,
) -> dict[str, torch.Tensor]:
    """Read tensors (each with an offset in its source) into one new buffer; by name.

    One buffer, so that huge pages serve small tensors too. The price: all of its memory lives until
    the last of the tensors is gone, and ``torch.save`` of one writes it all: clone what you keep
    alone. Tensors that share bytes in the file share memory.

    :raises WeightsError: a file ends early, cannot be read or changes meanwhile; a broken bool.
    """
    layout = Layout(placed)
    buffer = allocate(layout.nbytes)
    base = buffer.data_ptr()
    gather(
        (Piece(run.source, run.begin, base + run.at, run.end - run.begin) for run in layout.runs),
        threads=threads,
        tick=tick,
    )
    return dict(tensors_of(placed, layout, buffer))


def tensors_of(
    placed: Iterable[tuple[TensorInfo, Source]], layout: Layout, buffer: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of each, over the filled buffer (uint8, of any device).

    :raises WeightsError: a bool that is neither 0 nor 1.
    """
    over, first = TensorsOver(buffer.untyped_storage()), int(buffer.storage_offset())
    for info, _ in placed:
        if info.nbytes:
            at = first + layout.places[info.name]
            tensor = over(at, dtype_of(info), info.shape)
            check_bools(tensor, info)
        else:
            tensor = torch.empty(info.shape, dtype=dtype_of(info), device=buffer.device)
        yield info.name, tensor
