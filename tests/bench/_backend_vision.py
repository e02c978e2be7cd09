"""Convolutional networks in plain PyTorch, from the tables of their papers.

ResNet-50: K. He, X. Zhang, S. Ren, J. Sun, arXiv:1512.03385, table 1, with the stride in the 3x3
convolution. MobileNetV2: M. Sandler et al., arXiv:1801.04381, table 2. U-Net block: residual blocks
with time embedding and attention as in J. Ho, A. Jain, P. Abbeel, arXiv:2006.11239, appendix B.
"""

from __future__ import annotations

import torch
from torch import nn


def pictures(batch: int, side: int, seed: int = 1) -> torch.Tensor:
    """(batch, 3, side, side): smooth noise with the mean and spread of normalized photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 3, side // 8, side // 8, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return smooth + 0.1 * torch.randn(batch, 3, side, side, generator=generator)


def unit(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without bias, and its batch norm with the statistics of a trained one."""
    convolution = nn.Conv2d(
        inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, and the shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            unit(inputs, width, 1), nn.ReLU(),
            unit(width, width, 3, stride), nn.ReLU(),
            unit(width, outputs, 1),
        )  # fmt: skip
        plain = inputs == outputs and stride == 1
        self.shortcut: nn.Module = nn.Identity() if plain else unit(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, h, w) to (batch, 4 width, h / stride, w / stride)."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """25.6 M weights, 4.1 G multiply-adds at 224 x 224."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [unit(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        inputs = 64
        for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
            for block in range(blocks):
                layers.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
                inputs = 4 * width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, 1000)
        settle(self, (2, 3, 64, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures to 1000 logits."""
        logits: torch.Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


class Inverted(nn.Module):
    """An inverted residual: widen, filter each channel, narrow."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = inputs * factor
        widen = [unit(inputs, wide, 1), nn.ReLU6()] if factor > 1 else []
        self.body = nn.Sequential(
            *widen, unit(wide, wide, 3, stride, groups=wide), nn.ReLU6(), unit(wide, outputs, 1)
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, h, w) to (batch, outputs, h / stride, w / stride)."""
        y: torch.Tensor = self.body(x)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """3.5 M weights, 300 M multiply-adds at 224 x 224."""

    # expansion, channels, repeats, stride of the first
    TABLE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
             (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [unit(3, 32, 3, 2), nn.ReLU6()]
        inputs = 32
        for factor, outputs, repeats, stride in self.TABLE:
            for number in range(repeats):
                layers.append(Inverted(inputs, outputs, 1 if number else stride, factor))
                inputs = outputs
        self.features = nn.Sequential(*layers, unit(inputs, 1280, 1), nn.ReLU6())
        self.head = nn.Linear(1280, 1000)
        settle(self, (2, 3, 64, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures to 1000 logits."""
        logits: torch.Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


class Residual(nn.Module):
    """Norm, SiLU, 3x3 twice, shifted by the time embedding in between."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.second = nn.Sequential(
            nn.GroupNorm(32, outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.shift = nn.Sequential(nn.SiLU(), nn.Linear(time, outputs))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, h, w), (batch, time) to (batch, outputs, h, w)."""
        y = self.first(x) + self.shift(time)[:, :, None, None]
        result: torch.Tensor = self.shortcut(x) + self.second(y)
        return result


class Attention(nn.Module):
    """Every place looks at every other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels)
        self.mix, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape in, shape out."""
        b, c, h, w = x.shape
        q, k, v = self.mix(self.norm(x)).reshape(b, 3, 1, c, h * w).transpose(3, 4).unbind(1)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        result: torch.Tensor = x + self.out(y.reshape(b, c, h, w))
        return result


class UNetBlock(nn.Module):
    """Down, attention in the middle, up again with the skip: (b, 64, 64, 64) to the same."""

    def __init__(self, channels: int = 64, time: int = 256) -> None:
        super().__init__()
        self.down = Residual(channels, channels, time)
        self.narrow = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.middle = Residual(2 * channels, 2 * channels, time)
        self.attention = Attention(2 * channels)
        self.widen = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.up = Residual(2 * channels, channels, time)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """A noisy picture's features and the embedded time."""
        skip = self.down(x, time)
        y = self.attention(self.middle(self.narrow(skip), time))
        y = self.widen(nn.functional.interpolate(y, scale_factor=2.0, mode="nearest"))
        result: torch.Tensor = self.up(torch.cat([y, skip], 1), time)
        return result


def settle(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Give the batch norms the statistics of this network, as training would."""
    model.train()
    with torch.no_grad():
        for _ in range(8):
            model(torch.randn(shape))
    model.eval()
