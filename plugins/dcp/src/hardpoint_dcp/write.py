"""Saving: check every tensor, write items as ``torch.save`` does, the metadata last."""

from __future__ import annotations

import errno
import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from hardpoint import WeightsError
from hardpoint.storage.directory import replace
from hardpoint_dcp.dtypes import ITEMSIZE
from hardpoint_dcp.metadata import MAX_TENSORS, METADATA, SUFFIX
from hardpoint_dcp.refuse import refuse, show

# As the only rank of a save of torch's calls its file.
_DATA = sys.intern(f"__0_0{SUFFIX}")
_VERSION = "1.0.0"
_PROTOCOL = 4
# Items begin at multiples of this, and torch.save aligns the data within; so tensors are mapped.
_ALIGNMENT = 64
_ITEM = 4096  # about what an item takes beside its data


def save_directory(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]
) -> None:
    """Write a checkpoint; see :class:`DcpSerializer` for what it promises.

    ``tensors`` is asked for each value twice, to check and to write, and no value is held on to.

    :raises WeightsError: something the format cannot hold, or the system cannot write.
    """
    known = _checked_all(tensors, path, metadata)
    _check_target(path)

    def fill(folder: Path) -> None:
        with (folder / _DATA).open("xb") as file:
            size = sum(_ITEM + nbytes for _, _, nbytes in known.values())
            _reserve(file, size + _ITEM * len(metadata))
            places = _write_items(tensors, known, metadata, _Stream(file), path)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        with (folder / METADATA).open("xb") as file:
            file.write(pickle.dumps(_metadata(known, places), protocol=_PROTOCOL))
            file.flush()
            os.fsync(file.fileno())

    try:
        replace(path, fill)
    except OSError as error:
        raise refuse(
            path,
            "the checkpoint cannot be written; what was there before still is",
            str(error),
            "check the folder, its permissions and the space left on the disk",
        ) from error


_Known = tuple[torch.dtype, tuple[int, ...], int]


def _checked_all(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]
) -> dict[str, _Known]:
    if len(tensors) + len(metadata) > MAX_TENSORS:
        raise refuse(
            path,
            "there are too many tensors to save",
            f"there are {len(tensors) + len(metadata)}; at most {MAX_TENSORS} may be",
            "save several checkpoints",
        )
    for key, value in metadata.items():
        for text in (key, value):
            if not isinstance(text, str) or not _is_unicode(text):
                raise refuse(
                    path,
                    f"metadata {show(key)} cannot be saved",
                    f"{show(text)} is not text",
                    "give names and values as str; json.dumps() makes text of anything",
                )
        if key in tensors:
            raise refuse(
                path,
                f"metadata {show(key)} cannot be saved",
                "a tensor has that name, and a checkpoint has one name for both",
                "rename one of them",
            )
    # Sorted, and each text one object wherever it stands: the pickle is then always the same.
    return {
        sys.intern(str(name)): _checked(name, tensors[name], path)
        for name in sorted(tensors, key=lambda n: (str(type(n)), n))
    }


def _checked(name: str, tensor: torch.Tensor, path: Path) -> _Known:
    """Dtype, shape and size of one tensor, if the format can hold it."""

    def no(cause: str, remedy: str) -> WeightsError:
        return refuse(path, f"tensor {show(name)} cannot be saved", cause, remedy)

    if not isinstance(name, str) or not _is_unicode(name):
        raise no("that is no name for a tensor in this format", "rename it")
    if not isinstance(tensor, torch.Tensor):
        raise no(f"it is {type(tensor).__name__}, not a tensor", "leave it out, or make it one")
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        kind = type(tensor).__name__
        raise no(
            f"{kind} is not plain memory",
            "make it a plain tensor (DTensor: .full_tensor(), or save it in shards with"
            " hardpoint.bridges.dcp)",
        )
    if torch.nn.parameter.is_lazy(tensor):
        raise no("it has no shape yet", "run the module once, so that its lazy parameters are made")
    if tensor.is_quantized or tensor.layout is not torch.strided or tensor.is_nested:
        raise no(
            "it is sparse, nested or quantized",
            "make it dense first: to_dense(), to_padded_tensor() or dequantize()",
        )
    if tensor.is_meta:
        raise no("it is on the meta device, and has no values", "load or initialize it first")
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in ITEMSIZE:
        raise no(
            f"there is no reading {tensor.dtype} back",
            "convert it, e.g. to torch.float32; there are: " + ", ".join(ITEMSIZE),
        )
    return tensor.dtype, tuple(tensor.shape), tensor.numel() * tensor.element_size()


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can spell it: half a surrogate pair it cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_target(path: Path) -> None:
    """Only a checkpoint is replaced: never a file, nor a directory in which other things are."""
    if path.is_dir():
        others = sorted(
            entry.name
            for entry in path.iterdir()
            if not (entry.name.startswith(METADATA) or entry.name.endswith(SUFFIX))
        )
        if others:
            raise refuse(
                path,
                "the directory is not replaced",
                f"it holds more than a checkpoint: {show(others[0])}",
                "name a new directory, or move those files elsewhere",
            )
    elif path.exists():
        raise refuse(
            path, "a checkpoint is a directory", "a file has that name", "name a new directory"
        )


class _Stream:
    """A file as ``torch.save`` wants one, which remembers why writing failed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()

    def item(self, value: object) -> tuple[int, int]:
        """Save ``value`` at the next aligned place; gives that and its length."""
        self.file.write(bytes(-self.file.tell() % _ALIGNMENT))
        begin = self.file.tell()
        try:
            torch.save(value, self)  # type: ignore[arg-type]
        except RuntimeError as error:
            # PyTorch's writer says only that it could not write.
            raise (self.error or error) from error
        return begin, self.file.tell() - begin


_Places = dict[MetadataIndex, _StorageInfo]


def _write_items(
    tensors: Mapping[str, torch.Tensor],
    known: Mapping[str, _Known],
    metadata: Mapping[str, str],
    stream: _Stream,
    path: Path,
) -> _Places:
    places: _Places = {}
    for key in sorted(metadata):
        begin, length = stream.item(str(metadata[key]))
        places[MetadataIndex(sys.intern(str(key)))] = _StorageInfo(_DATA, begin, length)
    for name, was in known.items():
        tensor = tensors[name]
        if _checked(name, tensor, path) != was:
            raise refuse(
                path,
                f"tensor {show(name)} changed while it was saved",
                "dtype or shape is another than at the start",
                "do not change the mapping while it is being saved",
            )
        begin, length = stream.item(_plain(tensor))
        index = MetadataIndex(name, [0] * tensor.dim(), 0)
        places[index] = _StorageInfo(_DATA, begin, length)
        del tensor  # before the next is made
    return places


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """The same values as a tensor that alone has its storage; copied only where it must be."""
    plain = tensor.detach().as_subclass(torch.Tensor).cpu().resolve_conj().resolve_neg()
    plain = plain.contiguous()
    if plain.untyped_storage().nbytes() != plain.numel() * plain.element_size():
        plain = plain.clone(memory_format=torch.contiguous_format)
    # Strides of dimensions of one element may be any; now they are always the same.
    return plain.view(-1).view(tensor.shape)


def _metadata(known: Mapping[str, _Known], places: _Places) -> Metadata:
    """What torch's reader unpickles; ours reads it as data."""
    listed: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
    for index in places:
        if index.fqn not in known:
            listed[index.fqn] = BytesStorageMetadata()
            continue
        dtype, shape, _ = known[index.fqn]
        chunk = ChunkStorageMetadata(torch.Size([0] * len(shape)), torch.Size(shape))
        properties = TensorProperties(dtype=dtype)
        listed[index.fqn] = TensorStorageMetadata(properties, torch.Size(shape), [chunk])
    return Metadata(
        listed,
        planner_data={name: (name,) for name in listed},
        storage_data=places,
        storage_meta=StorageMeta(),
        version=_VERSION,
    )


def _reserve(file: IO[bytes], size: int) -> None:
    """Make a full disk fail before the first byte, where the system can."""
    if size == 0 or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        # Some file systems cannot reserve; on them a full disk shows while writing.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
