"""A part of each tensor: what one rank of a tensor-parallel model needs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import Index, TensorInfo
from hardpoint.weights.content import some
from hardpoint.weights.opened import Opened

if TYPE_CHECKING:
    import torch

    from hardpoint.storage.gather import Tick

# Which part of each tensor: by name, or told by a function. ``None``: the whole tensor.
Slices = Mapping[str, Index] | Callable[[TensorInfo], "Index | None"]


def take_slices(
    opened: Opened,
    mode: Literal["map", "own"],
    device: torch.device,
    slices: Slices,
    threads: int | None,
    tick: Tick | None,
) -> dict[str, torch.Tensor]:
    """``tensor[slices[name]]`` of every tensor, reading no more than that needs."""
    from hardpoint.storage.buffers import allocate
    from hardpoint.storage.gather import Piece, gather
    from hardpoint.storage.slices import block_of, checked, is_run, result_shape
    from hardpoint.storage.typed import check_bools, dtype_of, tensor_over

    wanted = _indices(opened, slices)
    if mode == "map" or device.type != "cpu":
        return {
            name: opened.part(name, index).to(device) if index != () else opened.tensor(name)
            for name, index in wanted.items()
        }
    shapes, at, free = {}, {}, 0
    for name, index in wanted.items():
        info = opened.reader[name]
        try:
            parts = checked(index, len(info.shape))
            block_of(info.shape, parts)
        except (IndexError, ValueError):
            opened.part(name, index)  # says what is wrong with it
            raise
        shapes[name] = result_shape(info.shape, parts)
        at[name] = free
        free += -(-_nbytes(shapes[name], dtype_of(info)) // 64) * 64
    buffer = allocate(free)
    storage, first, base = buffer.untyped_storage(), int(buffer.storage_offset()), buffer.data_ptr()
    found: dict[str, torch.Tensor] = {}
    pieces, rest = [], []
    for name, index in wanted.items():
        info = opened.reader[name]
        dtype = dtype_of(info)
        found[name] = tensor_over(storage, first + at[name], dtype, shapes[name])
        nbytes = _nbytes(shapes[name], dtype)
        placed = opened.placed(name)
        block = block_of(info.shape, checked(index, len(info.shape)))
        if placed and is_run(block):
            begin = (placed[0].offset or 0) + block.begin * dtype.itemsize
            pieces.append(Piece(placed[1], begin, base + at[name], nbytes))
        else:
            rest.append(name)
    gather(pieces, threads=threads, tick=tick)
    for name in rest:
        found[name].copy_(opened.part(name, wanted[name]))
        if tick is not None:
            tick(found[name].nbytes)
    for name, tensor in found.items():
        check_bools(tensor, opened.reader[name])
    return found


def _nbytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count


def _indices(opened: Opened, slices: Slices) -> dict[str, Index]:
    reader = opened.reader
    if isinstance(slices, Mapping):
        unknown = [name for name in slices if name not in reader]
        if unknown:
            raise WeightsError(
                f"slices are given for tensors that are not there: {some(unknown)}",
                remedy=f"the file has: {some(list(itertools.islice(reader, 20)))}",
            )
        return {name: slices.get(name, ()) for name in reader}
    asked = {name: slices(reader[name]) for name in reader}
    return {name: () if index is None else index for name, index in asked.items()}
