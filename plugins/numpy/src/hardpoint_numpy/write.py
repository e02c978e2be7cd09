"""Saving: check every tensor, lay them out, stream them one at a time into an atomic write."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from hardpoint import WeightsError
from hardpoint.storage import atomic
from hardpoint.storage.memory import bytes_of
from hardpoint_numpy.comment import encode, is_unicode
from hardpoint_numpy.dtypes import BY_TORCH_NAME, Dtype
from hardpoint_numpy.header import encode_header
from hardpoint_numpy.layout import Placed, directory, lay_out, local_header
from hardpoint_numpy.reader import ALONE, SUFFIX
from hardpoint_numpy.records import MAX_MEMBERS, MAX_NAME
from hardpoint_numpy.refuse import refuse, show

Write = Callable[[memoryview], None]


def save_array(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]
) -> None:
    """Write the tensor ``"array"`` as one ``.npy`` file: what ``numpy.save`` writes.

    :raises WeightsError: other tensors, metadata, or what the system cannot write.
    """
    if list(tensors) != [ALONE]:
        raise refuse(
            path,
            f"a {SUFFIX} file holds one tensor, called {ALONE!r}",
            f"given: {show(list(tensors))}",
            f"save as .npz, which keeps names; or save {{{ALONE!r}: tensor}}",
        )
    if metadata:
        raise refuse(
            path,
            f"a {SUFFIX} file has no place for metadata",
            f"given: {show(sorted(metadata))}",
            "leave it out, or save as .npz",
        )
    dtype, shape, nbytes = _checked(ALONE, tensors[ALONE], path)
    header = encode_header(dtype, shape)

    def fill(write: Write) -> None:
        write(memoryview(header))
        plain = _plain(tensors[ALONE])
        _check_same(ALONE, plain, dtype, shape, path)
        if nbytes:
            write(bytes_of(plain))

    _replace(path, len(header) + nbytes, fill)


def save_archive(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]
) -> None:
    """Write ``tensors`` as one ``.npz`` file: what ``numpy.savez`` would, and its data aligned.

    ``tensors`` is asked for each value twice, to check and to write, and no value is held on to.

    :raises WeightsError: something the format cannot hold, or the system cannot write.
    """
    comment = encode(metadata, path)
    if len(tensors) > MAX_MEMBERS:
        raise refuse(
            path,
            "there are too many tensors to save",
            f"{len(tensors)} tensors; at most {MAX_MEMBERS} are allowed",
            "save several files",
        )
    checked = {}
    for name, tensor in tensors.items():
        checked[name] = _checked(name, tensor, path)
        del tensor  # before the next is made
    order = sorted(checked, key=lambda name: (-checked[name][0].itemsize, name))
    places, end = lay_out(
        [(name, encode_header(*checked[name][:2]), checked[name][2]) for name in order]
    )
    size = end + len(directory(places, {}, end, comment))

    def fill(write: Write) -> None:
        checksums: dict[str, int] = {}
        for place in places:
            dtype, shape, _ = checked[place.name]
            plain = _plain(tensors[place.name])
            _check_same(place.name, plain, dtype, shape, path)
            checksums[place.name] = _write_member(place, plain, write)
            del plain  # before the next is made
        write(memoryview(directory(places, checksums, end, comment)))

    _replace(path, size, fill)


def _write_member(place: Placed, plain: torch.Tensor, write: Write) -> int:
    """Write the member, and give its checksum, which stands before it."""
    crc = zlib.crc32(place.header)
    if place.nbytes:
        crc = zlib.crc32(bytes_of(plain), crc)
    write(memoryview(local_header(place, crc)))
    write(memoryview(place.header))
    if place.nbytes:
        write(bytes_of(plain))
    return crc


def _replace(path: Path, size: int, fill: Callable[[Write], None]) -> None:
    try:
        atomic.replace(path, size, fill)
    except OSError as error:
        raise refuse(
            path,
            "the file cannot be written",
            str(error),
            "check the directory, its permissions and the free space; what was there is unchanged",
        ) from error


def _checked(name: str, tensor: torch.Tensor, path: Path) -> tuple[Dtype, tuple[int, ...], int]:
    """Dtype, shape and size of one tensor, if the format can hold it."""

    def no(cause: str, remedy: str) -> WeightsError:
        return refuse(path, f"tensor {show(name)} cannot be saved", cause, remedy)

    if not isinstance(name, str) or "\0" in name or not is_unicode(name):
        raise no("that is no name for a tensor in this format", "rename it")
    if len((name + SUFFIX).encode("utf-8")) > MAX_NAME:
        raise no(f"a name has at most {MAX_NAME} bytes", "shorten it")
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
    dtype = BY_TORCH_NAME.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None:
        raise no(
            f"NumPy has no type for {tensor.dtype}",
            "save as safetensors, or convert it (tensor.float()), or save its bits"
            " (tensor.view(torch.uint8))",
        )
    return dtype, tuple(tensor.shape), tensor.numel() * dtype.itemsize


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """As contiguous memory of the CPU; a copy only where it is not that."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def _check_same(
    name: str, tensor: torch.Tensor, dtype: Dtype, shape: tuple[int, ...], path: Path
) -> None:
    if str(tensor.dtype) != f"torch.{dtype.torch_name}" or tuple(tensor.shape) != shape:
        raise refuse(
            path,
            f"tensor {show(name)} changed while it was saved",
            "dtype or shape is another than at the start",
            "do not change the mapping while it is being saved",
        )
