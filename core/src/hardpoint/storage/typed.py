"""Tensors over bytes."""

from __future__ import annotations

import math

import torch

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import TensorInfo
from hardpoint.storage.refusal import DAMAGED, show

_DTYPES = {name: dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}


def dtype_of(info: TensorInfo) -> torch.dtype:
    """PyTorch's dtype object."""
    return _DTYPES[info.dtype]


def fits(info: TensorInfo, size: int) -> bool:
    """Whether a table's entry is one: sizes that multiply to its bytes, within ``size`` bytes."""
    begin, dtype = info.offset, _DTYPES.get(info.dtype)
    if begin is None or dtype is None or not 0 <= begin <= begin + info.nbytes <= size:
        return False
    product = dtype.itemsize
    for each in info.shape:
        if each < 0:
            return False
        product *= each
    return product == info.nbytes


class TensorsOver:
    """Makes row-major tensors over the bytes of ``storage``.

    They share its memory, or are copies where the bytes are not aligned to the dtype: kernels want
    that. Each has a version counter of its own, unlike views.
    """

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self._storage = storage
        self._empty: dict[torch.dtype, torch.Tensor] = {}

    def __call__(self, at: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        """The tensor whose first byte is byte ``at``."""
        itemsize = dtype.itemsize
        if at % itemsize == 0:
            return self.aligned(at // itemsize, dtype, shape)
        raw = self.aligned(at, torch.uint8, (math.prod(shape) * itemsize,))
        return raw.clone().view(dtype).view(shape)

    def aligned(self, at: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        """The tensor that begins at element ``at`` of the storage, in elements of ``dtype``."""
        empty = self._empty.get(dtype)
        if empty is None:
            empty = self._empty[dtype] = torch.empty(0, dtype=dtype, device=self._storage.device)
        # `.data` is a new tensor, in two thirds of the time that another empty one would take.
        # No strides: row by row. The stubs want them.
        tensor: torch.Tensor = empty.data.set_(self._storage, at, shape)  # type: ignore[call-overload]
        return tensor


def tensor_over(
    storage: torch.UntypedStorage, at: int, dtype: torch.dtype, shape: tuple[int, ...]
) -> torch.Tensor:
    """A single one of :class:`TensorsOver`."""
    return TensorsOver(storage)(at, dtype, shape)


def check_bools(tensor: torch.Tensor, info: TensorInfo) -> None:
    """A bool that is neither 0 nor 1 is undefined behaviour in the kernels that read it.

    :raises WeightsError: there is one.
    """
    if tensor.dtype is torch.bool and bool((tensor.view(torch.uint8) > 1).any()):
        raise WeightsError(
            f"{info.file}: tensor {show(info.name)} is broken",
            cause="a BOOL byte is neither 0 nor 1",
            remedy=DAMAGED,
        )
