"""The data of one file, mapped copy-on-write: tensors are views of it until they are written to."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import torch

from hardpoint_safetensors.header import LENGTH_BYTES, Header, header_length, parse_header
from hardpoint_safetensors.refuse import refuse, show

Index = int | slice | tuple[int | slice, ...]


class MappedFile:
    """A parsed file. Its memory lives until the last tensor of it is gone; nothing unmaps it.

    Writing to a tensor changes this process's pages only (``MAP_PRIVATE``), never the file. Yet the
    pages not written to *are* the file's: if another program overwrites it in place, values change,
    and if it cuts the file short, touching the lost part kills the process (SIGBUS), as with every
    map. Files replaced by renaming, as this plugin saves them, are safe.

    :raises WeightsError: the file cannot be read, or its header is refused.
    """

    def __init__(self, path: Path) -> None:
        with _regular_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = header_length(_read(file, LENGTH_BYTES), size, path)
            self._data_at = LENGTH_BYTES + length
            self.header: Header = parse_header(_read(file, length), size - self._data_at, path)
            try:
                memory = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
            except ValueError as error:  # "mmap length is greater than file size"
                raise _changed(path) from error
            # From here on the sizes checked above are trusted: they must still be the file's.
            if os.fstat(file.fileno()).st_size != size:
                raise _changed(path)
        # torch keeps `memory` alive but does not pin it: closing it under a tensor would be a
        # crash, so nobody holds it but this storage.
        self._bytes = torch.frombuffer(memory, dtype=torch.uint8)
        self._path = path

    def view(self, name: str, index: Index = ()) -> torch.Tensor:
        """``tensor[index]``: a view of the map, or a copy where the file does not align the tensor.

        :raises IndexError, ValueError: as torch does for an index outside the tensor.
        :raises WeightsError: a BOOL tensor with bytes other than 0 and 1 among those asked for.
        """
        dtype, shape, begin, end = self.header.tensors[name]
        torch_dtype: torch.dtype = getattr(torch, dtype.torch_name)
        first = self._data_at + begin
        if begin == end:
            return torch.empty(shape, dtype=torch_dtype)[index]
        if first % dtype.itemsize:
            # set_ counts in elements, and kernels want aligned ones: move just the asked bytes.
            raw = self._bytes[first : self._data_at + end].view(*shape, dtype.itemsize)
            asked = raw[index].clone(memory_format=torch.contiguous_format)
            return asked.view(torch_dtype).squeeze(-1)
        whole = torch.empty(0, dtype=torch_dtype).set_(
            self._bytes.untyped_storage(), first // dtype.itemsize, shape, _strides(shape)
        )
        tensor = whole[index]
        if dtype.code == "BOOL":
            self._check_bools(name, tensor)
        return tensor

    def _check_bools(self, name: str, tensor: torch.Tensor) -> None:
        """A bool that is neither 0 nor 1 is undefined behaviour in the kernels that read it."""
        if bool((tensor.view(torch.uint8) > 1).any()):
            raise refuse(
                self._path,
                f"tensor {show(name)} is broken",
                "a BOOL byte is neither 0 nor 1",
            )


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [1] * len(shape), 1
    for dimension in reversed(range(len(shape))):
        strides[dimension] = step
        step *= shape[dimension]
    return tuple(strides)


@contextmanager
def _regular_file(path: Path) -> Iterator[FileIO]:
    """Open ``path`` unbuffered; refuse pipes and devices, which might never answer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise refuse(path, "the file cannot be opened", str(error), "check the path") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise refuse(
            path, "this is no regular file", "it is a directory, pipe or device", "name a file"
        )
    with FileIO(descriptor) as file:
        try:
            yield file
        except OSError as error:
            raise refuse(path, "the file cannot be read", str(error), "check the disk") from error


def _read(file: FileIO, count: int) -> bytes:
    """``count`` bytes, or fewer at the end of the file."""
    parts = []
    while count > 0:
        part = file.read(count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _changed(path: Path) -> Exception:
    return refuse(
        path,
        "the file changed while it was opened",
        "another program is writing to it",
        "wait until it is written, and write files under another name before renaming them",
    )
