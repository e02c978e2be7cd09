"""A small Llama-like decoder in plain PyTorch, with its caches as inputs.

Rotary positions, RMS norm and SwiGLU as in H. Touvron et al., arXiv:2302.13971. Of a call's keys
and values only the new rows are results: the host writes them into its caches, so that no state
hides in the graph.
"""

from __future__ import annotations

import torch
from torch import nn


class Layer(nn.Module):
    """Attention and feed-forward."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (
            nn.Linear(width, inner, bias=False),
            nn.Linear(width, inner, bias=False),
        )
        self.down = nn.Linear(inner, width, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor],
        past: tuple[torch.Tensor, torch.Tensor] | None,
        mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(b, t, width) to the same, and the new rows of keys and values (b, heads, t, size)."""
        y = self.norm(x)
        q, k, v = (self._split(f(y)) for f in (self.q, self.k, self.v))
        q, k = _rotate(q, turn), _rotate(k, turn)
        keys, values = (k, v) if past is None else (torch.cat([past[0], k], 2), torch.cat([past[1], v], 2))  # fmt: skip
        seen = nn.functional.scaled_dot_product_attention(
            q, keys, values, attn_mask=mask, is_causal=mask is None
        )
        x = x + self.o(seen.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y)), k, v

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Decoder(nn.Module):
    """124 M weights by default; the embedding is the head, too."""

    def __init__(
        self, vocabulary: int = 32000, width: int = 768, layers: int = 12, heads: int = 12,
        inner: int = 2560,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(width, heads, inner) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        size = width // heads
        self.register_buffer(
            "frequencies", 10000.0 ** (-torch.arange(0, size, 2).float() / size), persistent=False
        )

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        keys: torch.Tensor | None = None,
        values: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The logits of the last token, and the new rows of all layers.

        :param ids: (b, t). :param positions: (t,). :param keys: (layers, b, heads, room, size), of
            which the rows before ``positions[0]`` count; ``None``: these are the first tokens.
        """
        x, new_keys, new_values = self._run(ids, positions, keys, values)
        return {
            "logits": self._logits(x[:, -1]),
            "keys": torch.stack(new_keys),
            "values": torch.stack(new_values),
        }

    def all_logits(self, ids: torch.Tensor) -> torch.Tensor:
        """(b, t) to (b, t, vocabulary): for training and perplexity."""
        x, _, _ = self._run(ids, torch.arange(ids.shape[1]), None, None)
        return self._logits(x)

    def _run(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        keys: torch.Tensor | None,
        values: torch.Tensor | None,
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        angles = positions[:, None].float() * self.frequencies
        turn = angles.cos(), angles.sin()
        mask = None
        if keys is not None:
            before = torch.arange(keys.shape[3]) < positions[:1, None]
            mask = torch.cat([before, torch.ones(1, ids.shape[1], dtype=torch.bool)], 1)
        x, found_keys, found_values = self.embed(ids), [], []
        for number, layer in enumerate(self.layers):
            past = None if keys is None or values is None else (keys[number], values[number])
            x, k, v = layer(x, turn, past, mask)
            found_keys.append(k)
            found_values.append(v)
        return self.norm(x), found_keys, found_values

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.embed.weight.T


class AllLogits(nn.Module):
    """A decoder that gives the logits of every token."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(b, t) to (b, t, vocabulary)."""
        return self.decoder.all_logits(ids)


def prefill_inputs(length: int, seed: int = 1) -> tuple[torch.Tensor, ...]:
    """So many first tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 32000, (1, length), generator=generator), torch.arange(length)


def decode_inputs(room: int, seed: int = 1) -> tuple[torch.Tensor, ...]:
    """One token after three quarters of the cache are full."""
    generator = torch.Generator().manual_seed(seed)
    shape = (12, 1, 12, room, 64)
    caches = [torch.randn(shape, generator=generator) for _ in range(2)]
    place = torch.tensor([room * 3 // 4])
    return torch.randint(0, 32000, (1, 1), generator=generator), place, *caches


def _rotate(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    one, other = x.chunk(2, -1)
    cos, sin = turn
    return torch.cat([one * cos - other * sin, other * cos + one * sin], -1)
