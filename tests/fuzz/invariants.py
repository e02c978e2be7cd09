"""What holds of every reader, whatever the bytes: one kind of error, or tensors that are coherent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from guard import Finding, watched

from hardpoint import Reader, Serializer, TensorInfo, WeightsError
from hardpoint.storage.typed import dtype_of, fits
from hardpoint.weights.bulk import take
from hardpoint.weights.opened import Opened, described

_MOST_NAMES = 256
_MOST_BYTES = 1 << 20  # of the tensors of a file that are read
_MOST_MESSAGE = 4000
_MOST_OF_FILE = 16  # bytes in memory of one in the file: varints, packed members

Tensors = dict[str, torch.Tensor]


def read_file(serializer: Serializer, path: Path) -> Tensors | None:
    """Open ``path`` and read it; ``None`` where it is refused, or a tensor of it.

    :raises Finding: an invariant is broken. Other exceptions are as bad.
    """
    folder = path if path.is_dir() else path.parent
    with watched(folder):
        # Whoever asks whose file it is asks everyone: that one never raises.
        demand(isinstance(serializer.recognizes(path), bool), "recognizes() is no bool")
        return read_with(lambda: serializer.open(path), folder)


def read_with(open_reader: Callable[[], Reader], folder: Path) -> Tensors | None:
    """As :func:`read_file`; the caller watches."""
    reader = None
    with refusing():
        reader = open_reader()
    if reader is None:
        return None
    try:
        return _Look(reader, folder).tensors()
    finally:
        reader.close()
        reader.close()


@contextmanager
def refusing() -> Iterator[None]:
    """A WeightsError may be raised here; one that tells its reader what to do."""
    try:
        yield
    except WeightsError as error:
        text = str(error)
        demand(len(text) <= _MOST_MESSAGE, "an error of thousands of characters")
        demand(bool(error.cause and error.remedy), "an error without cause or remedy", repr(text))
        demand(text.replace("\n", "").isprintable(), "an error that is not printable", repr(text))


def demand(holds: bool, otherwise: str, detail: object = "") -> None:
    """:raises Finding: it does not hold."""
    if not holds:
        raise Finding(otherwise, str(detail)[:2000])


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are the same to the bit."""
    return described(a) == described(b) and raw(a) == raw(b)


def raw(tensor: torch.Tensor) -> bytes:
    """The elements, row by row."""
    made = tensor.clone(memory_format=torch.contiguous_format)
    return made.reshape(-1).view(torch.uint8).numpy().tobytes()


class _Look:
    """One pass over an open file."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self._reader = reader
        self._most = _MOST_OF_FILE * sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        self._left = _MOST_BYTES
        self._found: Tensors = {}
        self._damaged = self._skipped = False

    def tensors(self) -> Tensors | None:
        reader = self._reader
        names = list(reader)
        demand(len(reader) == len(names) == len(set(names)), "names twice, or miscounted")
        with refusing():
            texts = [text for pair in reader.metadata.items() for text in pair]
            demand(all(isinstance(text, str) for text in texts), "metadata that is no text")
        self._skipped = len(names) > _MOST_NAMES
        for name in names[:_MOST_NAMES]:
            self._one(name)
        if not self._skipped:
            self._own()
        reader.close()
        for name in list(self._found)[:1]:
            tensor = None
            with refusing():
                tensor = reader.tensor(name)
            demand(tensor is None, "a closed reader gives tensors")
        for tensor in self._found.values():
            raw(tensor)  # what was handed out outlives the reader
        return None if self._damaged or self._skipped else self._found

    def _one(self, name: str) -> None:
        tensor = None
        with refusing():
            info = self._reader[name]
            self._check(name, info)
            self._left -= math.prod(info.shape) * dtype_of(info).itemsize
            if self._left < 0:
                self._skipped = True
                return
            tensor = self._reader.tensor(name)
            demand(described(tensor) == (info.dtype, info.shape), "another tensor than announced")
            self._slices(name, tensor)
            self._found[name] = tensor
        self._damaged |= tensor is None

    def _check(self, name: str, info: TensorInfo) -> None:
        demand(info.name == name, "a tensor under another's name")
        demand(0 <= info.nbytes <= self._most, "more bytes than the file can hold", info)
        demand(all(type(n) is int and n >= 0 for n in info.shape), "sizes that are none", info)
        if info.offset is not None:
            source = self._reader.source(name)
            demand(source is not None and fits(info, source.size), "no such place", info)

    def _same(self, name: str, a: torch.Tensor, b: torch.Tensor) -> bool:
        """But for the bits of a NaN that was computed, as out of a scale that is one: which of two
        NaNs a sum gives is the vector unit's affair.
        """
        if f"{_DEQUANTIZED}{name}" in self._reader.metadata:
            a, b = (torch.where(each.isnan(), float("nan"), each) for each in (a, b))
        return same(a, b)

    def _slices(self, name: str, tensor: torch.Tensor) -> None:
        shape = tensor.shape
        for index in (
            (),
            tuple(slice(n // 3, n) for n in shape[:1]),
            tuple(slice(None, None, 2) for _ in shape),
            tuple(n - 1 for n in shape[:1] if n),
        ):
            part = self._reader.slice(name, index)
            demand(self._same(name, part, tensor[index]), "a slice differs", index)

    def _own(self) -> None:
        own = None
        with refusing():
            own = take(Opened("fuzzed", "the fuzzer", self._reader), "own", _CPU, None, 1)
        demand((own is None) == self._damaged, "own and tensor() disagree whether it is damaged")
        for name, tensor in self._found.items():
            if own is not None:
                agree = self._same(name, own[name], tensor)
                demand(agree, "own and tensor() give other values")


_CPU = torch.device("cpu")
_DEQUANTIZED = "hardpoint.quantized:"  # gguf's, beside the name of each tensor that is computed
