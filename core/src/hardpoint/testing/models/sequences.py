"""A decoder with a key-value cache, and a recurrent network."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own habit
from torch import nn

from hardpoint.testing.models.case import Case

_BATCH, _WORDS, _WIDTH, _LONGEST = 2, 50, 32, 12
_HEADS, _SHARED, _HEAD = 4, 2, 8


class _Attention(nn.Module):
    """Grouped-query attention with rotary positions; keys and values stay in a fixed cache."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(_WIDTH, _HEADS * _HEAD, bias=False)
        self.key = nn.Linear(_WIDTH, _SHARED * _HEAD, bias=False)
        self.value = nn.Linear(_WIDTH, _SHARED * _HEAD, bias=False)
        self.merge = nn.Linear(_HEADS * _HEAD, _WIDTH, bias=False)
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(_BATCH, _SHARED, _LONGEST, _HEAD))

    def forward(
        self, x: torch.Tensor, at: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        query, key, value = (
            layer(x).unflatten(2, (-1, _HEAD)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        query, key = _rotate(query, turn), _rotate(key, turn)
        self.keys.index_copy_(2, at, key)
        self.values.index_copy_(2, at, value)
        keys, values = (t.repeat_interleave(_HEADS // _SHARED, 1) for t in (self.keys, self.values))
        seen = torch.arange(_LONGEST)[None] <= at
        y = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen)
        result: torch.Tensor = self.merge(y.transpose(1, 2).flatten(2))
        return result


def _rotate(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    cos, sin = turn
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.RMSNorm(_WIDTH), nn.RMSNorm(_WIDTH)
        self.attention = _Attention()
        self.gate = nn.Linear(_WIDTH, 2 * _WIDTH, bias=False)
        self.raise_ = nn.Linear(_WIDTH, 2 * _WIDTH, bias=False)
        self.lower = nn.Linear(2 * _WIDTH, _WIDTH, bias=False)

    def forward(
        self, x: torch.Tensor, at: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        x = x + self.attention(self.before(x), at, turn)
        y = self.after(x)
        result: torch.Tensor = x + self.lower(F.silu(self.gate(y)) * self.raise_(y))
        return result


class _Decoder(nn.Module):
    """One token a call, as Llama decodes (Touvron et al. 2023): the cache is the model's state."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(_WORDS, _WIDTH)
        self.layers = nn.ModuleList([_Layer(), _Layer()])
        self.norm = nn.RMSNorm(_WIDTH)

    def forward(self, token: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        rates = 1e4 ** (torch.arange(_HEAD // 2) * (-2.0 / _HEAD))
        angles = at[:, None] * rates
        turn = angles.cos(), angles.sin()
        x = self.embed(token)
        for layer in self.layers:
            x = layer(x, at, turn)
        return F.linear(self.norm(x), self.embed.weight)


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(6, 12, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 5)

    def forward(self, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y, (hidden, cell) = self.cells(signal)
        return 8 * self.head(y), hidden, cell


DECODER = Case(
    "decoder", "a decoder with a key-value cache, several steps", _Decoder,
    lambda number: (torch.tensor([[7 * number + 3], [41 - 5 * number]]), torch.tensor([number])),
    calls=6,
)  # fmt: skip
RECURRENT = Case(
    "recurrent", "a bidirectional LSTM of two layers", _Recurrent,
    lambda number: (torch.randn(3, 7, 6),), {"signal": {0: "batch"}},
)  # fmt: skip
