"""Weights from files to an accelerator: reading and copying at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from hardpoint.interfaces.serializer import TensorInfo
from hardpoint.storage.gather import Piece, Tick, gather
from hardpoint.storage.layout import Layout
from hardpoint.storage.own import own, tensors_of
from hardpoint.storage.source import Source

# Two of these are pinned: while one travels to the device, the other is filled.
_STAGE = 64 << 20


def to_device(
    placed: Sequence[tuple[TensorInfo, Source]],
    device: torch.device,
    *,
    threads: int | None = None,
    tick: Tick | None = None,
) -> dict[str, torch.Tensor]:
    """As :func:`own`, into memory of ``device``.

    To CUDA through two pinned buffers, so that the disk and the bus work at the same time; only
    these are needed beside the device's memory. To other devices by one copy for each tensor.

    :raises WeightsError: as :func:`own`.
    :raises RuntimeError: PyTorch has no such device, or too little of its memory.
    """
    if device.type != "cuda":
        tensors = own(placed, threads=threads, tick=tick)
        return {name: tensor.to(device) for name, tensor in tensors.items()}
    layout = Layout(placed)
    buffer = torch.empty(layout.nbytes, dtype=torch.uint8, device=device)
    size = min(_STAGE, layout.nbytes)
    stages = [
        torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in range(2 if size else 0)
    ]
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())  # the buffer is allocated there
        free = [torch.cuda.Event() for _ in stages]  # type: ignore[no-untyped-call]
        try:
            for turn, pieces in enumerate(_loads(layout, size)):
                stage, event = stages[turn % 2], free[turn % 2]
                event.synchronize()  # what it held has arrived
                base = stage.data_ptr()
                gather(
                    [Piece(s, begin, base + at, nbytes) for s, begin, at, nbytes, _ in pieces],
                    threads=threads,
                    tick=tick,
                )
                with torch.cuda.stream(stream):
                    for _, _, at, nbytes, to in pieces:
                        buffer[to : to + nbytes].copy_(stage[at : at + nbytes], non_blocking=True)
                    event.record(stream)
        finally:
            # All has arrived before anyone uses the tensors; or, where reading failed, before their
            # memory and the pinned buffers go to somebody else.
            stream.synchronize()
    return dict(tensors_of(placed, layout, buffer))


_Part = tuple[Source, int, int, int, int]


def _loads(layout: Layout, size: int) -> Iterator[list[_Part]]:
    """The runs cut so that each list fills one stage: (source, begin, in stage, nbytes, to)."""
    parts: list[_Part] = []
    used = 0
    for run in layout.runs:
        done, nbytes = 0, run.end - run.begin
        while done < nbytes:
            count = min(size - used, nbytes - done)
            parts.append((run.source, run.begin + done, used, count, run.at + done))
            done += count
            used += count
            if used == size:
                yield parts
                parts, used = [], 0
    if parts:
        yield parts
