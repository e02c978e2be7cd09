"""Tensors that are views of a mapped file."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from hardpoint.interfaces.serializer import TensorInfo
from hardpoint.storage.source import Source
from hardpoint.storage.typed import TensorsOver, check_bools, dtype_of, tensor_over


class MappedSource:
    """A source's memory. It lives until the last tensor of it is gone; nothing unmaps it.

    Writing to a tensor changes this process's pages only (``MAP_PRIVATE``), never the file. Yet the
    pages not written to *are* the file's: if another program overwrites it in place, values change,
    and if it cuts the file short, touching the lost part kills the process (SIGBUS), as with every
    map. Files replaced by renaming are safe.

    :param anyway: map the file even if others could do that to it.
    """

    def __init__(self, source: Source, *, anyway: bool = False) -> None:
        memory = source.map(anyway=anyway)
        # Nobody but the storage may hold the map: closing it under a tensor would be a crash.
        self._storage = (
            None
            if memory is None
            else torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
        )

    @property
    def possible(self) -> bool:
        """Whether the source is mapped; else its tensors are to be read."""
        return self._storage is not None

    def tensors(self, infos: Iterable[TensorInfo]) -> dict[str, torch.Tensor]:
        """All of them by name, each as :meth:`tensor` gives it."""
        assert self._storage is not None
        over = TensorsOver(self._storage)
        found = {}
        for info in infos:
            dtype, begin = dtype_of(info), info.offset or 0
            if not info.nbytes or dtype is torch.bool or begin % dtype.itemsize:
                found[info.name] = self.tensor(info)
            else:
                found[info.name] = over.aligned(begin // dtype.itemsize, dtype, info.shape)
        return found

    def tensor(
        self, info: TensorInfo, index: tuple[int | slice, ...] = (), *, check: bool = True
    ) -> torch.Tensor:
        """``tensor[index]`` over the map; a copy of just that where the file does not align it.

        :raises IndexError, ValueError: as torch does for an index outside the tensor.
        :raises WeightsError: a bool among what is asked for is neither 0 nor 1.
        """
        assert self._storage is not None
        assert info.offset is not None
        dtype, begin = dtype_of(info), info.offset
        if not info.nbytes:
            return torch.empty(info.shape, dtype=dtype)[index]
        if begin % dtype.itemsize:
            raw = tensor_over(self._storage, begin, torch.uint8, (*info.shape, dtype.itemsize))
            asked = raw[index].clone(memory_format=torch.contiguous_format)
            return asked.view(dtype).squeeze(-1)
        tensor = tensor_over(self._storage, begin, dtype, info.shape)
        if index:
            tensor = tensor[index]
        if check and dtype is torch.bool:
            check_bools(tensor, info)
        return tensor
