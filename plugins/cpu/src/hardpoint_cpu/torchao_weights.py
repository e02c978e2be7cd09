"""Weights quantized by torchao, taken out of its tensor classes as plain tensors.

torchao decides values and scales; its tensor subclasses do not survive ``torch.export``'s files, so
the kernels underneath are called on their parts (``weight_only``). Imported when first needed.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from hardpoint_cpu.origin import compile_error

GROUP_SIZES = (32, 64, 128)
EXTRA = "hardpoint-cpu[quantize]"


def require(precision: str) -> None:
    """Import torchao.

    :raises CompileError: it is not installed, or does not import.
    """
    # It warns of CUDA libraries that a CPU has no use for, and PyTorch of what it registers.
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        import torchao.quantization  # noqa: F401
    except ImportError as error:
        raise compile_error(
            f"the cpu backend needs torchao for {precision}",
            cause=f"{type(error).__name__}: {error}",
            remedy=f"pip install '{EXTRA}'",
        ) from error
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def int8_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``[rows, columns]`` as int8 of the same shape, and a scale for each row: symmetric."""
    from torchao.quantization import Int8WeightOnlyConfig

    made = _quantized(weight, Int8WeightOnlyConfig(set_inductor_config=False))
    return made.qdata.contiguous(), made.scale.reshape(-1).to(weight.dtype).contiguous()


def int4_groups(weight: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``[rows, columns]`` as int4, packed for this processor's kernels, two in a byte.

    :returns: ``[rows, columns / 2]`` of uint8, and ``[columns / group_size, rows, 2]``: scale and
        zero point of each group, of bfloat16's precision.
    """
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

    config = PrototypeInt4WeightOnlyConfig(group_size=group_size, set_inductor_config=False)
    made = _quantized(weight.to(torch.bfloat16), config)
    return made.qdata.contiguous(), made.scale_and_zero.to(weight.dtype).contiguous()


def _quantized(weight: torch.Tensor, config: Any) -> Any:
    """What torchao makes of a linear layer with this weight."""
    from torchao.quantization import quantize_

    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight = torch.nn.Parameter(weight.detach().contiguous(), requires_grad=False)
    quantize_(layer, config)
    return layer.weight
