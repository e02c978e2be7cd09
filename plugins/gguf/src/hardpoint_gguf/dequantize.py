"""Quantized rows to float32, by the reference library's own arithmetic."""

from __future__ import annotations

import importlib

import torch

from hardpoint_gguf.refuse import refuse, show
from hardpoint_gguf.types import Type


def dequantize(rows: torch.Tensor, type_: Type, file: str, name: str) -> torch.Tensor:
    """The values of whole rows.

    :param rows: uint8 ``[..., bytes of a row]``.
    :returns: float32 ``[..., values of a row]``.
    :raises WeightsError: the library is missing, or does not know the type.
    """
    shape = (*rows.shape[:-1], rows.shape[-1] // type_.nbytes * type_.block)
    if not rows.numel():
        return torch.empty(shape)
    try:
        gguf = importlib.import_module("gguf")
        np = importlib.import_module("numpy")
    except ImportError as error:
        raise refuse(
            file,
            f"tensor {show(name)} cannot be dequantized",
            f"it is {type_.name}, and the library gguf is missing: {error}",
            "pip install gguf",
        ) from error
    flat = rows.contiguous().view(-1, rows.shape[-1]).numpy()
    try:
        # Scales are any bits of float16: infinities and NaN are values like others.
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(flat, gguf.GGMLQuantizationType(type_.number))
    except (NotImplementedError, ValueError) as error:
        raise refuse(
            file,
            f"tensor {show(name)} cannot be dequantized",
            f"gguf {gguf_version()} does not know how for {type_.name}: {error}",
            "update gguf, or quantize the model to another type",
        ) from error
    made: torch.Tensor = torch.from_numpy(np.ascontiguousarray(values))
    return made.view(shape)


def gguf_version() -> str:
    """Of the library that is installed."""
    return importlib.import_module("importlib.metadata").version("gguf")  # type: ignore[no-any-return]
