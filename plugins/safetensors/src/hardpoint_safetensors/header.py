"""The header of a safetensors file: parsed strictly within bounds, and written.

The format: https://github.com/huggingface/safetensors#format. An 8-byte little-endian length, that
many bytes of JSON, the data. Where readers in the wild disagree about a file (duplicate keys,
trailing bytes, floats as offsets...), this one refuses it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hardpoint import TensorInfo, WeightsError
from hardpoint_safetensors.dtypes import BY_CODE, UNSUPPORTED, Dtype
from hardpoint_safetensors.refuse import DAMAGED, refuse, show
from hardpoint_safetensors.strict_json import loads

METADATA = "__metadata__"
LENGTH_BYTES = 8
MAX_HEADER = 100_000_000  # the reference implementation's own cap
MAX_TENSORS = 1 << 18
MAX_RANK = 64  # PyTorch's
_MAX_SIZE = (1 << 63) - 1

# With the data at a multiple of 64 and the widest dtypes first, nearly every tensor of a real model
# is mapped on a cache line; the format itself asks for a multiple of 8.
_ALIGNMENT = 64

_FIELDS = frozenset({"dtype", "shape", "data_offsets"})


class Entry(NamedTuple):
    """One tensor of a header to write; ``shape`` in PyTorch's terms, the range in the data."""

    dtype: Dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """A header that holds together with its file; ``tensors`` in the order of their data."""

    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]


def header_length(prefix: bytes, file_size: int, file: object) -> int:
    """The length that the first eight bytes state, checked against the file.

    :raises WeightsError: no such header can be in this file.
    """
    if len(prefix) < LENGTH_BYTES:
        raise refuse(
            file, "this is no safetensors file", f"it has {file_size} bytes, fewer than a header"
        )
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER:
        raise refuse(
            file,
            "this is no safetensors file",
            f"it states a header of {length} bytes; at most {MAX_HEADER} are allowed",
        )
    if length > file_size - LENGTH_BYTES:
        raise refuse(
            file,
            "the file is cut short",
            f"it states a header of {length} bytes, and {file_size - LENGTH_BYTES} follow",
        )
    if length < len("{}"):
        raise refuse(file, "the header is empty", f"it states a header of {length} bytes")
    return length


def parse_header(raw: bytes, data_size: int, file: str) -> Header:
    """Parse the JSON ``raw`` of a file whose data, right after it, is ``data_size`` bytes.

    :raises WeightsError: it breaks a rule of the format, or does not describe those bytes exactly.
    """
    if raw[:1] != b"{":
        raise _broken(file, f"it begins with {show(raw[:1])}, not with '{{'")
    try:
        # The padding may be blanks only; json would take any white space.
        top = loads(raw.rstrip(b" "))
        if raw.rstrip(b" ")[-1:] != b"}":
            raise ValueError("it is padded with something else than blanks")
    except ValueError as error:
        raise _broken(file, str(error)) from error
    assert isinstance(top, dict), "JSON that begins with '{' is an object"
    metadata = _metadata(top.pop(METADATA, {}), file)
    if len(top) > MAX_TENSORS:
        raise _broken(file, f"it names {len(top)} tensors; at most {MAX_TENSORS} are allowed")
    data_at = LENGTH_BYTES + len(raw)
    tensors = {name: _entry(name, fields, file, data_at) for name, fields in top.items()}
    if not _in_order(tensors, data_at, data_size):
        entries = sorted(tensors.values(), key=lambda info: (info.offset, info.nbytes))
        _check_tiling(entries, data_at, data_size, file)
        tensors = {info.name: info for info in entries}
    return Header(metadata, tensors)


def encode_header(tensors: Iterable[tuple[str, Entry]], metadata: Mapping[str, str]) -> bytes:
    """Length, JSON and padding: the same bytes for the same content, whatever the dicts' order."""
    top: dict[str, object] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    for name, (dtype, shape, begin, end) in tensors:
        sizes = list(shape)
        if dtype.packed > 1:
            sizes[-1] *= dtype.packed
        top[name] = {"dtype": dtype.code, "shape": sizes, "data_offsets": [begin, end]}
    text = json.dumps(top, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-(LENGTH_BYTES + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _broken(file: object, cause: str) -> WeightsError:
    return refuse(file, "the header is broken", cause)


def _bad_tensor(file: object, name: str, cause: str, remedy: str = DAMAGED) -> WeightsError:
    return refuse(file, f"tensor {show(name)} is broken", cause, remedy)


def _metadata(value: object, file: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _broken(file, f"{METADATA} is {show(value)}, not an object")
    for key, item in value.items():
        if not isinstance(item, str):
            raise _broken(
                file, f"{METADATA}[{show(key)}] is {show(item)}; only text may stand there"
            )
    return value


def _entry(name: str, fields: object, file: str, data_at: int) -> TensorInfo:
    """One entry, if it keeps the rules. The usual one is told in a few steps; the rest say why."""
    if type(fields) is dict and fields.keys() == _FIELDS:
        code, sizes, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
        dtype = BY_CODE.get(code) if type(code) is str else None
        if dtype and dtype.packed == 1 and type(sizes) is list and len(sizes) <= MAX_RANK:
            product = dtype.itemsize
            for size in sizes:
                if type(size) is not int or size <= 0:
                    break
                product *= size
            else:
                if type(offsets) is list and len(offsets) == 2:
                    begin, end = offsets
                    whole = type(begin) is int and type(end) is int
                    if whole and begin >= 0 and end <= _MAX_SIZE and end - begin == product:
                        return TensorInfo(
                            name, dtype.torch_name, tuple(sizes), product, file, data_at + begin
                        )
    return _unusual(name, fields, file, data_at)


def _unusual(name: str, fields: object, file: str, data_at: int) -> TensorInfo:
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        has = sorted(fields) if isinstance(fields, dict) else fields
        raise _bad_tensor(file, name, f"it needs exactly {sorted(_FIELDS)}, and has {show(has)}")
    dtype = _dtype(name, fields["dtype"], file)
    shape = _shape(name, fields["shape"], dtype, file)
    offsets = fields["data_offsets"]
    if type(offsets) is not list or len(offsets) != 2 or not all(type(x) is int for x in offsets):
        raise _bad_tensor(file, name, f"its data_offsets {show(offsets)} are not two whole numbers")
    begin, end = offsets
    if not 0 <= begin <= end <= _MAX_SIZE:
        raise _bad_tensor(file, name, f"its data_offsets [{begin}, {end}] are no range")
    elements = dtype.itemsize
    for size in shape:
        elements *= size
    if elements != end - begin:
        raise _bad_tensor(
            file,
            name,
            f"{dtype.code} of shape {show(fields['shape'])} takes {elements} bytes, "
            f"its data_offsets [{begin}, {end}] give {end - begin}",
        )
    return TensorInfo(name, dtype.torch_name, shape, elements, file, data_at + begin)


def _dtype(name: str, code: object, file: object) -> Dtype:
    if isinstance(code, str) and code in BY_CODE:
        return BY_CODE[code]
    if isinstance(code, str) and code in UNSUPPORTED:
        raise refuse(
            file,
            f"tensor {show(name)} has dtype {code}, which PyTorch cannot hold",
            f"PyTorch has no dtype for {code}",
            "convert the file to one of: " + ", ".join(BY_CODE),
        )
    raise _bad_tensor(file, name, f"its dtype is {show(code)}, which the format does not know")


def _shape(name: str, sizes: object, dtype: Dtype, file: object) -> tuple[int, ...]:
    if type(sizes) is not list:
        raise _bad_tensor(file, name, f"its shape {show(sizes)} is no list of sizes")
    if len(sizes) > MAX_RANK:
        raise _bad_tensor(file, name, f"it has {len(sizes)} dimensions; at most {MAX_RANK} may be")
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise _bad_tensor(file, name, f"its shape {show(sizes)} is no list of sizes")
    if dtype.packed > 1:
        if not sizes or sizes[-1] % dtype.packed:
            raise _bad_tensor(
                file,
                name,
                f"its shape {show(sizes)} does not fill whole bytes: the last size of {dtype.code} "
                f"must be a multiple of {dtype.packed}",
            )
        sizes = [*sizes[:-1], sizes[-1] // dtype.packed]
    # PyTorch multiplies sizes to strides even where one of them is 0.
    product = dtype.itemsize
    for size in sizes:
        product *= size or 1
    if product > _MAX_SIZE:
        raise _bad_tensor(file, name, f"its shape {show(sizes)} is larger than any memory")
    return tuple(sizes)


def _in_order(tensors: Mapping[str, TensorInfo], data_at: int, data_size: int) -> bool:
    """Whether they follow one another from the first byte of the data to the last: the usual."""
    at = data_at
    for info in tensors.values():
        if info.offset != at:
            return False
        at += info.nbytes
    return at == data_at + data_size


def _check_tiling(
    entries: Iterable[TensorInfo], data_at: int, data_size: int, file: object
) -> None:
    """Every byte of the data belongs to exactly one tensor."""
    at, before = 0, ""
    for info in entries:
        assert info.offset is not None
        name, begin = info.name, info.offset - data_at
        end = begin + info.nbytes
        if begin < at:
            cause = f"its data_offsets [{begin}, {end}] overlap tensor {show(before)}"
            raise _bad_tensor(file, name, cause)
        if begin > at:
            cause = f"nothing describes the {begin - at} bytes before its data_offsets"
            raise _bad_tensor(file, name, f"{cause} [{begin}, {end}]")
        at, before = end, name
    if at > data_size:
        raise refuse(
            file,
            "the file is cut short",
            f"its tensors take {at} bytes, and {data_size} follow the header",
        )
    if at < data_size:
        raise refuse(
            file,
            "the file has trailing bytes",
            f"its tensors take {at} bytes, and {data_size} follow the header",
        )
