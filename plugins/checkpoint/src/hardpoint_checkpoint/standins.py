"""What stands for things while a pickle is read: descriptions, which do nothing.

A dict is a list of pairs and a set a list of items, since hashing is work that a file could make
endless: a tuple of tuples of one tuple, say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# PyTorch's dtypes by name, with the bytes of an element.
DTYPES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1,
    "complex128": 16, "complex64": 8, "complex32": 4,
    "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1, "float4_e2m1fn_x2": 1,
}  # fmt: skip

MAX_RANK = 64


class Refused(ValueError):  # noqa: N818 - what it is about: something was refused
    """What stands in a pickle will not do.

    :ivar at: byte of the pickle.
    :ivar remedy: if it is not the usual one.
    """

    def __init__(self, cause: str, at: int = -1, remedy: str | None = None) -> None:
        super().__init__(cause)
        self.at = at
        self.remedy = remedy


class CutShort(Refused):
    """The bytes end before the pickle does."""


@dataclass(slots=True, eq=False)
class Pairs:
    """A dict, in the order in which it was filled."""

    items: list[tuple[object, object]] = field(default_factory=list)
    ordered: bool = False


@dataclass(slots=True, eq=False)
class Items:
    """A set."""

    items: list[object] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Word:
    """What is known by its name alone: a dtype, a device, a type."""

    text: str


@dataclass(frozen=True, slots=True)
class DtypeWord(Word):
    """A dtype, e.g. ``torch.float32``."""

    name: str
    itemsize: int


@dataclass(frozen=True, slots=True)
class StorageType:
    """A class of storages; ``UntypedStorage`` counts bytes."""

    name: str
    dtype: str
    itemsize: int


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes of the file that tensors are views of.

    :param key: by which the file finds them.
    :param total: bytes that ``key`` has in all.
    :param begin: first byte of those that this one is (old files hold storages within storages).
    """

    key: str
    type: StorageType
    total: int
    begin: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor: where it lies in its storage. Offset and strides count elements.

    :param begin: byte of the storage's ``key`` at which its elements' offset counts from.
    """

    storage: Storage
    dtype: str
    itemsize: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    conj: bool = False
    neg: bool = False

    @property
    def numel(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def first(self) -> int:
        """Byte of what its storage's key names at which the first element is."""
        return self.storage.begin + self.offset * self.itemsize

    @property
    def span(self) -> int:
        """Bytes from the first element's first to the last one's last."""
        return span_of(self.shape, self.stride) * self.itemsize

    @property
    def plain(self) -> bool:
        """Whether its elements lie row by row, without gaps, as they are."""
        if self.conj or self.neg:
            return False
        if 0 in self.shape:
            return True
        expected = 1
        for size, step in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1 and step != expected:
                return False
            expected *= size
        return True


def span_of(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Elements from the first to the last one of a tensor, both counted; 0 of an empty one."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
