"""A part of each tensor: what one rank of a tensor-parallel model needs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import Index, TensorInfo
from hardpoint.weights.content import some
from hardpoint.weights.opened import Opened

if TYPE_CHECKING:
    import torch

    from hardpoint.storage.gather import Tick
    from hardpoint.storage.source import Source

# Which part of each tensor: by name, or told by a function. ``None``: the whole tensor.
Slices = Mapping[str, Index] | Callable[[TensorInfo], "Index | None"]


def take_slices(
    opened: Opened,
    mode: Literal["auto", "map", "own"],
    device: torch.device,
    slices: Slices,
    threads: int | None,
    tick: Tick | None,
) -> dict[str, torch.Tensor]:
    """``tensor[slices[name]]`` of every tensor, reading no more than that needs."""
    from hardpoint.storage.buffers import allocate
    from hardpoint.storage.gather import Piece, gather
    from hardpoint.storage.layout import congruent
    from hardpoint.storage.typed import check_bools, tensor_over

    wanted = _indices(opened, slices)
    if mode != "own" or device.type != "cpu":
        return {
            name: opened.part(name, index).to(device) if index != () else opened.tensor(name)
            for name, index in wanted.items()
        }
    plans = [_plan(opened, name, index) for name, index in wanted.items()]
    free = 0
    at = {}
    for plan in plans:
        # As it lies in the file, so that it can be read straight to its place.
        at[plan.name] = congruent(free, plan.begin or 0, plan.nbytes)
        free = at[plan.name] + plan.nbytes
    buffer = allocate(free)
    storage, first, base = buffer.untyped_storage(), int(buffer.storage_offset()), buffer.data_ptr()
    found: dict[str, torch.Tensor] = {}
    pieces, rest = [], []
    for plan in plans:
        found[plan.name] = tensor_over(storage, first + at[plan.name], plan.dtype, plan.shape)
        if plan.source is not None:
            where = base + at[plan.name]
            pieces.append(
                Piece(
                    plan.source,
                    plan.begin or 0,
                    where,
                    plan.nbytes,
                    rows=plan.rows,
                    pitch=plan.pitch,
                )
            )
        else:
            rest.append(plan.name)
    gather(pieces, threads=threads, tick=tick)
    for name in rest:
        found[name].copy_(opened.part(name, wanted[name]))
        if tick is not None:
            tick(found[name].nbytes)
    for name, tensor in found.items():
        check_bools(tensor, opened.reader[name])
    return found


# Bytes of a row from which on it pays to read each to its place; shorter ones are picked by torch.
_LONG = 512


class _Plan(NamedTuple):
    """What of a tensor is wanted; and where its bytes lie, if they lie together or in rows.

    :param begin: byte of ``source``; ``None`` where the reader must give the slice.
    :param rows, pitch: as :class:`hardpoint.storage.gather.Piece` has them.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int
    source: Source | None
    begin: int | None
    rows: int
    pitch: int


def _plan(opened: Opened, name: str, index: Index) -> _Plan:
    from hardpoint.storage.slices import block_of, checked, result_shape, rows_of
    from hardpoint.storage.typed import dtype_of

    info = opened.reader[name]
    try:
        parts = checked(index, len(info.shape))
        block = block_of(info.shape, parts)
    except (IndexError, ValueError):
        opened.part(name, index)  # says what is wrong with it
        raise
    dtype = dtype_of(info)
    shape = result_shape(info.shape, parts)
    placed, rows = opened.placed(name), rows_of(block)
    begin = None
    if placed is not None and rows and (rows.number == 1 or rows.length * dtype.itemsize >= _LONG):
        begin = (placed[0].offset or 0) + rows.begin * dtype.itemsize
        if begin % dtype.itemsize:  # views need what the file does not give
            begin = None
    if placed is None or rows is None or begin is None:
        return _Plan(name, dtype, shape, _nbytes(shape, dtype), None, None, 1, 0)
    pitch = rows.pitch * dtype.itemsize
    return _Plan(name, dtype, shape, _nbytes(shape, dtype), placed[1], begin, rows.number, pitch)


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
