"""Saving: check every tensor, lay them out, stream them one at a time into an atomic write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from hardpoint import WeightsError
from hardpoint.storage import atomic
from hardpoint.storage.memory import bytes_of, why_not_plain
from hardpoint_safetensors.dtypes import BY_TORCH_NAME, Dtype
from hardpoint_safetensors.header import (
    LENGTH_BYTES,
    MAX_HEADER,
    MAX_TENSORS,
    METADATA,
    Entry,
    encode_header,
)
from hardpoint_safetensors.refuse import refuse, show


def save_file(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` to ``path``; see :class:`SafetensorsSerializer` for what it promises.

    ``tensors`` is asked for each value twice, to check and to write, and no value is held on to:
    a mapping that makes them on demand is saved in the memory of its largest.

    :raises WeightsError: something the format cannot hold, or the system cannot write.
    """
    _check_metadata(metadata, path)
    entries = _lay_out(tensors, path)
    header = encode_header(entries, metadata)
    if len(header) - LENGTH_BYTES > MAX_HEADER:
        raise refuse(
            path,
            "the header is too large to save",
            f"names and metadata take {len(header)} bytes; at most {MAX_HEADER} are allowed",
            "shorten the names or the metadata, or save several files",
        )
    size = len(header) + (entries[-1][1].end if entries else 0)

    def fill(write: Callable[[memoryview], None]) -> None:
        write(memoryview(header))
        for name, entry in entries:
            _write_tensor(tensors[name], entry, write, name, path)

    try:
        atomic.replace(path, size, fill)
    except atomic.NotSyncedError as error:
        raise refuse(
            path,
            "the file is written, but may be lost if the machine crashes now",
            f"its directory cannot be synced: {error}",
            "check the disk, and save again",
        ) from error
    except OSError as error:
        raise refuse(
            path,
            "the file cannot be written",
            str(error),
            "check the directory, its permissions and the free space; what was there is unchanged",
        ) from error


def _lay_out(tensors: Mapping[str, torch.Tensor], path: Path) -> list[tuple[str, Entry]]:
    """The place of each tensor: widest dtypes first, then by name, so that none is misaligned."""
    if len(tensors) > MAX_TENSORS:
        raise refuse(
            path,
            "there are too many tensors to save",
            f"{len(tensors)} tensors; at most {MAX_TENSORS} are allowed",
            "save several files",
        )
    checked = []
    for name, tensor in tensors.items():
        checked.append((name, *_checked(name, tensor, path)))
        del tensor  # before the next is made
    checked.sort(key=lambda item: (-item[1].itemsize, item[0]))
    entries, at = [], 0
    for name, dtype, shape, nbytes in checked:
        entries.append((name, Entry(dtype, shape, at, at + nbytes)))
        at += nbytes
    return entries


def _checked(name: str, tensor: torch.Tensor, path: Path) -> tuple[Dtype, tuple[int, ...], int]:
    """Dtype, shape and size of one tensor, if the format can hold it."""

    def no(cause: str, remedy: str) -> WeightsError:
        return refuse(path, f"tensor {show(name)} cannot be saved", cause, remedy)

    if not isinstance(name, str) or name == METADATA or not _is_unicode(name):
        raise no("that is no name for a tensor in this format", "rename it")
    if not isinstance(tensor, torch.Tensor):
        raise no(f"it is {type(tensor).__name__}, not a tensor", "leave it out, or make it one")
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        kind = type(tensor).__name__
        raise no(f"{kind} is not plain memory", "make it a plain tensor (DTensor: .full_tensor())")
    if torch.nn.parameter.is_lazy(tensor):
        raise no("it has no shape yet", "run the module once, so that its lazy parameters are made")
    if tensor.is_quantized or tensor.layout is not torch.strided or tensor.is_nested:
        raise no(
            "it is sparse, nested or quantized",
            "make it dense first: to_dense(), to_padded_tensor() or dequantize()",
        )
    if tensor.is_meta:
        raise no("it is on the meta device, and has no values", "load or initialize it first")
    if wrong := why_not_plain(tensor):
        raise no(wrong, "gather it first (FSDP: within summon_full_params)")
    dtype = BY_TORCH_NAME.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None:
        raise no(
            f"the format has no dtype for {tensor.dtype}",
            "convert it, e.g. to torch.float32; the format has: " + ", ".join(BY_TORCH_NAME),
        )
    if dtype.packed > 1 and tensor.dim() == 0:
        raise no(f"a scalar of {tensor.dtype} has no last size to count values in", "reshape it")
    return dtype, tuple(tensor.shape), tensor.numel() * dtype.itemsize


def _write_tensor(
    tensor: torch.Tensor,
    entry: Entry,
    write: Callable[[memoryview], None],
    name: str,
    path: Path,
) -> None:
    """Write the bytes of one tensor; a copy is made only of one that is not plain CPU memory."""
    if _checked(name, tensor, path)[:2] != (entry.dtype, entry.shape):
        raise refuse(
            path,
            f"tensor {show(name)} changed while it was saved",
            "dtype or shape is another than at the start",
            "do not change the mapping while it is being saved",
        )
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    write(bytes_of(plain))


def _check_metadata(metadata: Mapping[str, str], path: Path) -> None:
    for key, value in metadata.items():
        for text in (key, value):
            if not isinstance(text, str) or not _is_unicode(text):
                raise refuse(
                    path,
                    f"metadata {show(key)} cannot be saved",
                    f"{show(text)} is not text",
                    "give names and values as str; json.dumps() makes text of anything",
                )


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can spell it: half a surrogate pair it cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
