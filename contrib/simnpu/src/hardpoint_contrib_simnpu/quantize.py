"""int8: symmetric, a scale for each output channel of weights, one for a whole activation.

The scheme of Jacob et al. 2018 (arXiv:1712.05877), section 2, without zero points: a number is
``scale * q`` with ``q`` from -127 to 127, and the scale is the greatest magnitude divided by 127.
"""

from __future__ import annotations

import numpy as np

from hardpoint_contrib_simnpu.memory import Array

LEVELS = 127


def scale_of(greatest: float) -> float:
    """The scale for numbers up to ``greatest``; 1 where all are zero."""
    return greatest / LEVELS if greatest > 0 else 1.0


def per_channel(
    weight: Array,
) -> tuple[Array, Array]:
    """``weight`` (channels first) as int8, and the scale of each channel.

    :raises ValueError: it has a number that is not finite, which int8 cannot hold.
    """
    rows = weight.astype(np.float32).reshape(weight.shape[0], -1)
    if not np.isfinite(rows).all():
        raise ValueError("a weight is infinite or NaN, which int8 cannot hold")
    greatest = np.abs(rows).max(1)
    scales = np.where(greatest > 0, greatest / np.float32(LEVELS), np.float32(1))
    # The least float32 numbers vanish when divided by 127; their channel is then all zeros.
    scales = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)
    steps = np.clip(np.rint(rows / scales[:, None]), -LEVELS, LEVELS)
    return steps.astype(np.int8).reshape(weight.shape), scales
