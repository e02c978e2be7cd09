"""What an item holds: a tensor's bytes, or a plain value. Its pickle is data here, never run."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from hardpoint.storage.pickles import Call, Name, Persistent, PickleRefused, read
from hardpoint.storage.source import Source
from hardpoint_dcp.archive import Archive
from hardpoint_dcp.dtypes import ITEMSIZE, NAMES, OF_STORAGE
from hardpoint_dcp.metadata import MAX_RANK, Place
from hardpoint_dcp.refuse import refuse, show

_MAX_TENSOR_PICKLE = 1 << 16
_MAX_VALUE_PICKLE = 16 << 20
_MAX_VALUES = 1 << 20
_MAX_DEPTH = 100
_ORDERED = ("collections", "OrderedDict")
_REBUILD = {("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor_v3")}
_UNTYPED = ("torch.storage", "UntypedStorage")
_TENSOR_NAMES = NAMES | _REBUILD | {_ORDERED, _UNTYPED, *(("torch", s) for s in OF_STORAGE)}


class Item(NamedTuple):
    """A tensor in a file: ``elements`` of ``dtype`` from byte ``offset`` on, seen with strides.

    :ivar first: element at which the tensor begins.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    elements: int
    strides: tuple[int, ...]
    first: int

    @property
    def plain(self) -> bool:
        """Whether its elements follow each other row by row."""
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != step:
                return False
            step *= size
        return True


def tensor_at(source: Source, place: Place, name: str) -> Item:
    """Find the tensor that the item at ``place`` holds; its data is not read.

    :raises WeightsError: it holds something else, or does not hold together.
    """
    archive = Archive(source, place, name)
    _check_order(archive)
    try:
        top = read(
            archive.read("data.pkl", _MAX_TENSOR_PICKLE),
            names=_TENSOR_NAMES,
            most=_MAX_TENSOR_PICKLE,
            persistent=True,
        )
        storage, first, shape, strides, dtype = _rebuilt(top)
        key, elements, dtype = _storage(storage, dtype)
    except PickleRefused as error:
        raise archive.broken(str(error)) from error
    at, nbytes = archive.locate(f"data/{key}")
    if elements * ITEMSIZE[dtype] != nbytes:
        raise archive.broken(f"{elements} elements of {dtype} are said to be {nbytes} bytes")
    count = math.prod(shape)
    last = first + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if count > elements or (count and last >= elements):
        raise archive.broken(
            f"shape {show(shape)} with strides {show(strides)} from element {first} on goes beyond"
            f" {elements} elements"
        )
    return Item(dtype, shape, at, elements, strides, first)


def _rebuilt(top: object) -> tuple[object, int, tuple[int, ...], tuple[int, ...], str | None]:
    """Storage, first element, shape, strides, and the dtype where the call names it."""
    if not isinstance(top, Call) or top.name not in _REBUILD or top.state or top.items:
        raise PickleRefused(f"it holds {show(top)}, not a tensor")
    typed = top.name.name.endswith("v3")
    most = 8 if typed else 7
    if not most - 1 <= len(top.arguments) <= most or (
        len(top.arguments) == most and top.arguments[-1]
    ):
        raise PickleRefused("the tensor has properties that plain ones have not")
    storage, first, shape, strides = top.arguments[:4]
    numbers = (first, *shape, *strides) if type(shape) is type(strides) is tuple else (None,)
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        raise PickleRefused("the tensor's shape or strides are no whole numbers")
    if len(shape) != len(strides) or len(shape) > MAX_RANK:
        raise PickleRefused("the tensor's shape and strides do not belong together")
    dtype = top.arguments[6] if typed else None
    if typed and not isinstance(dtype, Name):
        raise PickleRefused("the tensor has no dtype")
    return storage, first, shape, strides, dtype.name if isinstance(dtype, Name) else None


def _storage(storage: object, dtype: str | None) -> tuple[str, int, str]:
    """Name of the member that holds the bytes, how many elements they are, and of which dtype."""
    parts = storage.id if isinstance(storage, Persistent) else None
    if type(parts) is not tuple or len(parts) != 5 or parts[0] != "storage":
        raise PickleRefused("the tensor has no storage")
    _, kind, key, _, count = parts
    if type(key) is not str or not key.isdecimal() or type(count) is not int or count < 0:
        raise PickleRefused(f"the tensor's storage is said to be {show(key)} of {show(count)}")
    if dtype is None and isinstance(kind, Name) and kind.name in OF_STORAGE:
        return key, count, OF_STORAGE[kind.name]
    if dtype in ITEMSIZE and kind == _UNTYPED and dtype is not None:
        if count % ITEMSIZE[dtype]:
            raise PickleRefused(f"{count} bytes are no whole elements of {dtype}")
        return key, count // ITEMSIZE[dtype], dtype
    raise PickleRefused(f"its dtype {dtype} and its storage {show(kind)} do not fit")


def _check_order(archive: Archive) -> None:
    if "byteorder" in archive and archive.read("byteorder", 16) != b"little":
        raise archive.broken("it was written by a big-endian machine")


def value_at(source: Source, place: Place, name: str) -> str:
    """The value that the item at ``place`` holds: text as it is, all else as JSON.

    :raises WeightsError: it is no plain value, or it does not hold together.
    """
    archive = Archive(source, place, name)
    try:
        value = read(
            archive.read("data.pkl", _MAX_VALUE_PICKLE), names={_ORDERED}, most=_MAX_VALUES
        )
        if isinstance(value, str):
            return value
        return json.dumps(_Plain().plain(value, _MAX_DEPTH), allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise refuse(
            source.name,
            f"the value {show(name)} is no plain one, and was not unpickled",
            str(error),
            "its tensors can be read; load such values with torch.distributed.checkpoint, if you"
            " trust the file",
        ) from error


class _Plain:
    """Makes what a pickle describes into what JSON can hold."""

    def __init__(self) -> None:
        self._left = _MAX_VALUES  # parts may be shared: little text can describe a great tree

    def plain(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if depth == 0 or self._left < 0:
            raise ValueError("it is nested too deeply, or too large")
        if value is None or isinstance(value, str | bool | int | float):
            return value
        if type(value) in (list, tuple):
            return [self.plain(each, depth - 1) for each in value]
        pairs: Any = None
        if isinstance(value, dict):
            pairs = value.items()
        elif isinstance(value, Call) and value.name == _ORDERED and value.arguments == ():
            pairs = value.items if value.state is None else None
        if pairs is None:
            raise ValueError(f"{show(value)} is not plain data")
        made = {_key(key): self.plain(each, depth - 1) for key, each in pairs}
        if len(made) != len(pairs):
            raise ValueError("a key stands twice in one dict")
        return made


def _key(key: object) -> str:
    if type(key) in (str, int):
        return str(key)
    raise ValueError(f"a dict has the key {show(key)}")
