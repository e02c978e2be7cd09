"""A part of each tensor: what one rank of a tensor-parallel model needs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import Index, TensorInfo
from hardpoint.weights.content import some
from hardpoint.weights.opened import Opened

if TYPE_CHECKING:
    import torch

    from hardpoint.storage.gather import Piece, Tick

# Which part of each tensor: by name, or told by a function. ``None``: the whole tensor.
Slices = Mapping[str, Index] | Callable[[TensorInfo], "Index | None"]


def take_slices(
    opened: Opened,
    mode: Literal["auto", "map", "own"],
    device: torch.device,
    wanted: Mapping[str, Index],
    threads: int | None,
    tick: Tick | None,
) -> dict[str, torch.Tensor]:
    """``tensor[wanted[name]]`` of every tensor, reading no more than that needs.

    :param wanted: of each tensor of the file; see :func:`indices`.
    """
    from hardpoint.storage.buffers import allocate
    from hardpoint.storage.gather import gather
    from hardpoint.storage.layout import congruent
    from hardpoint.storage.typed import TensorsOver, check_bools

    found: dict[str, torch.Tensor] = {}
    if mode != "own" or device.type != "cpu":
        for name, index in wanted.items():
            part = opened.part(name, index).to(device) if index != () else opened.tensor(name)
            found[name] = part
            if tick is not None:
                tick(part.nbytes)
        return found
    plans = [_plan(opened, name, index) for name, index in wanted.items()]
    free = 0
    at = {}
    for plan in plans:
        # As it lies in the file, so that it can be read straight to its place.
        at[plan.name] = congruent(free, plan.piece.offset if plan.piece else 0, plan.nbytes)
        free = at[plan.name] + plan.nbytes
    buffer = allocate(free)
    over, first = TensorsOver(buffer.untyped_storage()), int(buffer.storage_offset())
    base = buffer.data_ptr()
    pieces, rest = [], []
    for plan in plans:
        found[plan.name] = over(first + at[plan.name], plan.dtype, plan.shape)
        if plan.piece is not None:
            pieces.append(plan.piece._replace(address=base + at[plan.name]))
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
    """What of a tensor is wanted.

    :param piece: where its bytes lie, if they lie together or in rows, with no address yet;
        ``None`` where the reader must give the slice.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int
    piece: Piece | None


def _plan(opened: Opened, name: str, index: Index) -> _Plan:
    from hardpoint.storage.gather import Piece
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
    nbytes = _nbytes(shape, dtype)
    placed, rows, piece = opened.placed(name), rows_of(block), None
    if placed is not None and rows and (rows.number == 1 or rows.length * dtype.itemsize >= _LONG):
        begin = (placed[0].offset or 0) + rows.begin * dtype.itemsize
        if begin % dtype.itemsize == 0:  # else views need what the file does not give
            pitch = rows.pitch * dtype.itemsize
            piece = Piece(placed[1], begin, 0, nbytes, rows=rows.number, pitch=pitch)
    return _Plan(name, dtype, shape, nbytes, piece)


def _nbytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count


def bytes_of_slices(opened: Opened, wanted: Mapping[str, Index]) -> int:
    """How many bytes :func:`take_slices` will tell of."""
    from hardpoint.storage.slices import checked, result_shape
    from hardpoint.storage.typed import dtype_of

    total = 0
    for name, index in wanted.items():
        info = opened.reader[name]
        # An index that is none counts for nothing: taking it will say what is wrong with it.
        with suppress(IndexError, ValueError):
            shape = result_shape(info.shape, checked(index, len(info.shape)))
            total += _nbytes(shape, dtype_of(info))
    return total


def indices(opened: Opened, slices: Slices) -> dict[str, Index]:
    """Of every tensor of the file, the part that is asked for; ``()`` is all of it.

    :raises WeightsError: a part is asked of a tensor that is not there.
    """
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
