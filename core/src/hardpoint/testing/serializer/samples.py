"""Tensors to save: every dtype, many shapes, every layout; the same ones in every run."""

from __future__ import annotations

import math
import random as randomness
from collections.abc import Iterator

import torch

# Of the kit's own generators: the global random states are left alone.
SEED = 20260401

SHAPES: tuple[tuple[int, ...], ...] = (
    (), (1,), (7,), (0,), (1, 1), (3, 5), (0, 4), (4, 0), (2, 3, 4), (2, 0, 3), (1, 2, 1, 3),
    (2, 3, 2, 3), (1, 2, 3, 1, 2), (2, 1, 3, 2, 1, 2), (257,), (31, 17),
)  # fmt: skip

# What people, frameworks and attackers call tensors. A format may refuse an odd one, not lose it.
PLAIN_NAMES = ("w", "layer.0.weight", "model.layers.31.self_attn.q_proj.weight", "a-b_c")
ODD_NAMES = {
    "unicode": "größe.重み.\U0001f600",
    "decomposed": "e\u0301",
    "with blanks": "  two words ",
    "with quotes": "a\"b'c\\d",
    "with a path": "../../etc/passwd",
    "with slashes": "a/b//c",
    "with a line break": "a\nb\r\tc",
    "with NUL": "a\0b",
    "a control character": "\x1b[2J",
    "long": "x" * 5000,
    "empty": "",
    "a dot": ".",
    "a dunder": "__class__",
    "a number": "0",
}


def dtypes() -> list[torch.dtype]:
    """Every dtype of this PyTorch that plain memory can hold, by name.

    Not among them: ``q*``, whose tensors carry a scale, and ``bits*``, which mean nothing.
    """
    found = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    plain = [dtype for dtype in found if not word(dtype).startswith(("q", "bits"))]
    return sorted(plain, key=word)


def word(dtype: torch.dtype) -> str:
    """PyTorch's name of it, as :class:`hardpoint.TensorInfo` has it."""
    return str(dtype).removeprefix("torch.")


def seeded() -> randomness.Random:
    """A generator that draws the same in every run."""
    return randomness.Random(SEED)  # noqa: S311 - samples, no secrets


def random(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0
) -> torch.Tensor:
    """Random bits: NaN with any payload, infinities and subnormals are among them."""
    generator = torch.Generator().manual_seed(SEED + seed)
    count = math.prod(shape) * dtype.itemsize
    raw = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    if dtype is torch.bool:
        raw &= 1
    return raw.view(dtype).reshape(shape)


def pattern(*shape: int, start: int = 1) -> torch.Tensor:
    """float32 tensor of the whole numbers from ``start``: easy to tell when one is wrong."""
    return torch.arange(start, start + math.prod(shape), dtype=torch.float32).reshape(shape)


def layouts() -> Iterator[tuple[str, torch.Tensor]]:
    """(what it is, tensor) that is not simply a whole contiguous piece of memory."""
    base = pattern(4, 6)
    yield "transposed", base.t()
    yield "strided", base[::2, 1::3]
    yield "a view with an offset", base[2:]
    yield "expanded", pattern(1, 3).expand(5, 3)
    yield "channels last", pattern(2, 3, 4, 5).to(memory_format=torch.channels_last)
    yield "a parameter", torch.nn.Parameter(pattern(3))
    yield "part of a graph", torch.nn.Parameter(pattern(3)) * 2
    yield "conjugated lazily", torch.complex(pattern(3), pattern(3, start=4)).conj()
    yield "negated lazily", torch.complex(pattern(3), pattern(3, start=4)).conj().imag


def shown(tensor: torch.Tensor) -> torch.Tensor:
    """The values that a tensor shows, as a plain contiguous one."""
    return tensor.detach().resolve_conj().resolve_neg().contiguous()


def raw_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Its bytes, row by row: equal also for NaN, and for dtypes that have no ``==``."""
    plain = tensor.detach().contiguous()
    # Where a size is 0 or 1, a contiguous tensor may have any stride there.
    flat = plain.as_strided((plain.numel(),), (1,), plain.storage_offset())
    return flat.view(torch.uint8)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal dtype, shape and bits."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(raw_bytes(one), raw_bytes(other))


def words(value: torch.Tensor) -> str:
    """``float32[2, 3]``, with the values where they are few."""
    text = f"{word(value.dtype)}{list(value.shape)}"
    if 0 < value.numel() <= 6:
        bits = bytes(raw_bytes(value).tolist()).hex(" ", value.dtype.itemsize)
        return f"{text} of bytes {bits}"
    return text
