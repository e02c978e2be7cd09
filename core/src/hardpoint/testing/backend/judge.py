"""Comparing what a backend gave with what eager PyTorch gives, in words for its author."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hardpoint.numerics import compare
from hardpoint.testing.check import expect


def agree(
    got: object, want: Sequence[torch.Tensor], limit: float, what: str, device: str = ""
) -> float:
    """The greatest error of the results of one call; fails the check where it is above ``limit``.

    :param what: what was called with what, for the message.
    :param device: where results must be, in PyTorch's terms; ``""``: anywhere.
    """
    expect(isinstance(got, (tuple, list)), f"{what}: it gave {type(got).__name__}, not a tuple")
    assert isinstance(got, (tuple, list))
    expect(len(got) == len(want), f"{what}: it gave {len(got)} results, not {len(want)}")
    worst = 0.0
    for i, (value, right) in enumerate(zip(got, want, strict=True)):
        where = f"{what}: result {i}"
        expect(isinstance(value, torch.Tensor), f"{where} is {type(value).__name__}, no tensor")
        expect(
            value.dtype == right.dtype and value.shape == right.shape,
            f"{where} is {kind(value)}, the program says {kind(right)}",
        )
        expect(
            not device or _is_on(value, torch.device(device)),
            f"{where} is on {value.device}, the declared device is {device}",
        )
        error = compare(value, right).error
        expect(
            error <= limit,
            lambda where=where, value=value, right=right, error=error: (  # type: ignore[misc]
                f"{where} differs from eager by {error:.3g}, at most {limit:g} is allowed: "
                f"{excerpt(value, right)}"
            ),
        )
        worst = max(worst, error)
    return worst


def _is_on(tensor: torch.Tensor, device: torch.device) -> bool:
    """``cuda`` alone is any of its devices."""
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)


def kind(tensor: torch.Tensor) -> str:
    """Dtype and shape, e.g. ``float32[4, 8]``."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def excerpt(got: torch.Tensor, want: torch.Tensor) -> str:
    """The place where two tensors of one shape differ most, and what stands there."""
    a, b = got.detach().cpu().flatten(), want.detach().cpu().flatten()
    equal = (a == b) | ((a != a) & (b != b))
    gap = (a.double() - b.double()).abs() if not a.is_complex() else (a - b).abs().double()
    gap[equal] = -1.0
    gap[gap != gap] = torch.inf
    at = int(gap.argmax())
    return f"element {at} is {a[at].item()} and must be {b[at].item()}"
