"""A residual convolutional network, and a block of a diffusion model's U-Net."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own habit
from torch import nn

from hardpoint.testing.models.case import Case


def _trained(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """With statistics as after training: those of a new layer do nothing."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_(0.0, 0.2)
    norm.running_var.uniform_(0.5, 1.5)
    return norm


class _Residual(nn.Module):
    """Two convolutions and a way around them (He et al. 2016, the basic block)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = _trained(nn.BatchNorm2d(outputs))
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = _trained(nn.BatchNorm2d(outputs))
        self.around: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.around = nn.Sequential(convolution, _trained(nn.BatchNorm2d(outputs)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.around(x))


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.norm = _trained(nn.BatchNorm2d(8))
        self.blocks = nn.Sequential(_Residual(8, 8, 1), _Residual(8, 16, 2))
        self.head = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(images))), 3, 2, 1)
        x = F.adaptive_avg_pool2d(self.blocks(x), 1)
        result: torch.Tensor = self.head(torch.flatten(x, 1))
        return 8 * result  # of size one and more, where errors count


class _Timed(nn.Module):
    """A residual block that the time step shifts and scales."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.norm, self.again = nn.GroupNorm(4, inputs), nn.GroupNorm(4, outputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, 2 * outputs)
        self.around = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        y = self.first(F.silu(self.norm(x)))
        scale, shift = self.time(F.silu(time))[:, :, None, None].chunk(2, 1)
        y = self.second(F.silu(self.again(y) * (1 + scale) + shift))
        result: torch.Tensor = y + self.around(x)
        return result


class _Unet(nn.Module):
    """Down, attention to a text, up again, with a skip connection (Rombach et al. 2022)."""

    def __init__(self, width: int = 16, context: int = 12) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Conv2d(4, width, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.down = _Timed(width, width, width)
        self.smaller = nn.Conv2d(width, width, 3, 2, 1)
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.pair = nn.Linear(context, 2 * width, bias=False)
        self.merge = nn.Linear(width, width)
        self.up = _Timed(2 * width, width, width)
        self.leave = nn.Conv2d(width, 4, 3, padding=1)

    def _attend(self, x: torch.Tensor, text: torch.Tensor, heads: int = 2) -> torch.Tensor:
        batch, width, high, wide = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        query = self.query(self.norm(tokens)).unflatten(2, (heads, -1)).transpose(1, 2)
        key, value = (
            t.unflatten(2, (heads, -1)).transpose(1, 2) for t in self.pair(text).chunk(2, 2)
        )
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.merge(seen)
        result: torch.Tensor = tokens.transpose(1, 2).reshape(batch, width, high, wide)
        return result

    def forward(
        self, latents: torch.Tensor, step: torch.Tensor, text: torch.Tensor
    ) -> torch.Tensor:
        half = self.width // 2
        rates = torch.exp(torch.arange(half) * (-math.log(1e4) / half))
        angles = step[:, None] * rates
        time = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        x = self.down(self.enter(latents), time)
        y = self._attend(self.smaller(x), text)
        y = F.interpolate(y, scale_factor=2.0, mode="nearest")
        result: torch.Tensor = self.leave(F.silu(self.up(torch.cat([x, y], 1), time)))
        return 8 * result


CONVOLUTIONAL = Case(
    "convolutional", "a residual convolutional network", _Network,
    lambda number: (torch.randn(3, 3, 32, 32),), {"images": {0: "batch"}},
)  # fmt: skip
DIFFUSION = Case(
    "diffusion", "a U-Net of a diffusion model, with time steps and attention to a text", _Unet,
    lambda number: (torch.randn(3, 4, 8, 8), 900.0 * torch.rand(3), torch.randn(3, 5, 12)),
    {"latents": {0: "batch"}, "step": {0: "batch"}, "text": {0: "batch"}},
)  # fmt: skip
