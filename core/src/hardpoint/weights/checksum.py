"""A checksum of tensors that any format carries, and that converting a file keeps.

SHA-256 over one line a tensor, in the order of the names (by code points), in UTF-8:
``LENGTH NAME DTYPE [SIZES] DIGEST`` and a newline. LENGTH is that of the name in code points, DTYPE
PyTorch's name, SIZES as Python prints a list, DIGEST the SHA-256 of the bytes, row by row and
little-endian. It stands in the file's metadata. Who can change the file can change it too: it finds
damage, not malice.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from hardpoint.errors import WeightsError, WeightsMismatch
from hardpoint.weights.opened import described

if TYPE_CHECKING:
    import torch

KEY = "hardpoint.sha256"
# Tensors in memory at a time, where they are made on demand.
_AT_ONCE = 4


def checksum(tensors: Mapping[str, torch.Tensor], tick: Callable[[int], None] | None = None) -> str:
    """The checksum of ``tensors``, in hexadecimal. Asks for each value twice, a few at a time.

    :raises WeightsError: something is no plain tensor.
    """
    _refuse_strange(tensors)
    lines: list[str] = []
    workers = min(_AT_ONCE, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="hardpoint-hash") as pool:
        for group in _groups(sorted(tensors), workers):
            values = [tensors[name] for name in group]
            for name, value, digest in zip(group, values, pool.map(_digest, values), strict=True):
                dtype, shape = described(value)
                lines.append(f"{len(name)} {name} {dtype} {list(shape)} {digest}\n")
                if tick is not None:
                    tick(value.numel() * value.element_size())
            del values, value  # before the next are made
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def check(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    path: Path | str,
    tick: Callable[[int], None] | None = None,
) -> None:
    """Hold what was read against the checksum in the file's metadata.

    :raises WeightsMismatch: it is another.
    :raises WeightsError: there is none.
    """
    stated = metadata.get(KEY)
    if stated is None:
        raise WeightsError(
            f"{path} carries no checksum",
            cause=f"its metadata have no {KEY!r}",
            remedy="save it with checksum=True, or compare the file with its publisher's hash",
        )
    found = checksum(tensors, tick)
    if found != stated:
        raise WeightsMismatch(
            f"{path} is not what was saved",
            cause=f"its tensors have the checksum {found}, and it states {stated}",
            remedy="get the file again from where it came from",
        )


def _groups(names: list[str], size: int) -> Iterable[list[str]]:
    for at in range(0, len(names), size):
        yield names[at : at + size]


def _digest(tensor: torch.Tensor) -> str:
    from hardpoint.storage.memory import bytes_of

    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return hashlib.sha256(bytes_of(plain)).hexdigest()


def _refuse_strange(tensors: Mapping[str, torch.Tensor]) -> None:
    import torch

    from hardpoint.storage.memory import why_not_plain

    for name in tensors:
        tensor: object = tensors[name]
        wrong = (
            f"it is {type(tensor).__name__}, not a tensor"
            if not isinstance(tensor, torch.Tensor)
            else "it has no shape yet"
            if torch.nn.parameter.is_lazy(tensor)
            else why_not_plain(tensor)
        )
        if wrong or not isinstance(name, str):
            raise WeightsError(
                f"tensor {name!r} has no checksum",
                cause=wrong or "its name is no text",
                remedy="leave it out, or make it a plain tensor with a name",
            )
        del tensor  # before the next is made
