"""The bytes of a tensor, where it is sure that they are all there."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def why_not_plain(tensor: torch.Tensor) -> str:
    """Why a tensor is not a stretch of its own memory, in words; ``""`` where it is.

    A tensor of FSDP keeps its shape when its storage was freed or made smaller; others have no
    memory at all, or have it elsewhere.
    """
    import torch

    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return f"{type(tensor).__name__} is not plain memory"
    if tensor.layout is not torch.strided or tensor.is_nested:
        return "it is sparse or nested"
    if tensor.is_meta:
        return "it is on the meta device"
    if tensor.numel() == 0:
        return ""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    end = (int(tensor.storage_offset()) + last + 1) * tensor.element_size()
    if end > tensor.untyped_storage().nbytes() or tensor.data_ptr() == 0:
        return "its storage was freed or made smaller"
    return ""


def address_of(tensor: torch.Tensor) -> int:
    """Where the bytes of a contiguous CPU tensor begin.

    :raises ValueError: it is not plain memory.
    """
    if wrong := why_not_plain(tensor):
        raise ValueError(wrong)
    assert tensor.device.type == "cpu"
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, not copied: valid while the tensor is.

    :raises ValueError: it is not plain memory.
    """
    nbytes = tensor.numel() * tensor.element_size()
    address = address_of(tensor)
    if not nbytes:
        return memoryview(b"")
    return memoryview((ctypes.c_char * nbytes).from_address(address)).cast("B")
