"""The header of an array: parsed strictly within bounds, and written as NumPy writes it.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. A magic word,
a version, a length, and a Python literal of three fields. NumPy reads it with ``literal_eval``; we
read the three fields that there may be, and nothing else, so that no expression is ever built.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from hardpoint import WeightsError
from hardpoint_numpy.dtypes import BY_CODE, REFUSED_KINDS, Dtype
from hardpoint_numpy.refuse import DAMAGED, refuse, show

MAGIC = b"\x93NUMPY"
PREFIX_BYTES = 12  # magic, version and the longer of the two kinds of length
MAX_HEADER = 10_000  # NumPy's own cap
MAX_RANK = 64  # PyTorch's and NumPy's
_MAX_SIZE = (1 << 63) - 1
_MAX_DIGITS = 20
_ALIGNMENT = 64
# Room that NumPy leaves, so that the first size can grow in place.
_GROWTH = 21

_FIELDS = ("descr", "fortran_order", "shape")
_KEY = re.compile(r"""\s*(['"])(\w+)\1\s*:\s*""")
_TEXT = re.compile(r"""(['"])([^'"\\]*)\1""")
_FLAG = re.compile(r"True|False")
_SHAPE = re.compile(r"\(([0-9L,\s]*)\)")
_SIZE = re.compile(r"([0-9]+)L?")
_TYPE = re.compile(r"([<>|=])([A-Za-z])([0-9]*)(\[[0-9A-Za-z]+\])?")


class Array(NamedTuple):
    """An array's header.

    :param shape: as NumPy shows it.
    :param fortran: whether the *first* size is the one whose elements are neighbours.
    :param big_endian: whether the bytes of a number stand the other way round.
    :param begin: byte at which the data begins, counted from the magic word.
    """

    dtype: Dtype
    shape: tuple[int, ...]
    fortran: bool
    big_endian: bool
    begin: int

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        total = self.dtype.itemsize
        for size in self.shape:
            total *= size
        return total


def header_end(prefix: bytes, size: int, file: object, what: str) -> int:
    """Where the data of the array begins, from its first bytes (``PREFIX_BYTES``, or all).

    :param size: bytes of the array's file, header and data.
    :param what: how to call the array in an error.
    :raises WeightsError: no array's header can begin like this.
    """
    if prefix[: len(MAGIC)] != MAGIC:
        raise refuse(
            file, f"{what} is no NumPy array", f"it begins with {show(prefix[: len(MAGIC)])}"
        )
    version = tuple(prefix[6:8])
    if version == (1, 0):
        at, length = 10, int.from_bytes(prefix[8:10], "little")
    elif version in ((2, 0), (3, 0)):
        at, length = 12, int.from_bytes(prefix[8:12], "little")
    else:
        raise refuse(
            file,
            f"{what} has a header of an unknown version",
            f"its version is {show(version)}; there are (1, 0), (2, 0) and (3, 0)",
        )
    if len(prefix) < at:
        raise refuse(file, f"{what} is cut short", f"it has {size} bytes, fewer than a header")
    if length > MAX_HEADER:
        raise refuse(
            file,
            f"{what} has too long a header",
            f"it states {length} bytes; at most {MAX_HEADER} are allowed",
        )
    if at + length > size:
        raise refuse(
            file,
            f"{what} is cut short",
            f"it states a header of {length} bytes, and {size - at} follow",
        )
    return at + length


def parse_header(raw: bytes, size: int, file: object, what: str) -> Array:
    """The header of an array of ``size`` bytes, header included.

    :param raw: the bytes of it up to what :func:`header_end` gave.
    :raises WeightsError: it breaks a rule of the format, does not describe exactly the bytes that
        follow it, or describes what PyTorch cannot hold.
    """
    version = raw[6]
    body = raw[10 if version == 1 else 12 :]

    def broken(cause: str) -> WeightsError:
        return refuse(file, f"the header of {what} is broken", cause)

    try:
        text = body.decode("utf-8" if version == 3 else "latin-1")
    except UnicodeDecodeError as error:
        raise broken(f"not UTF-8 at byte {error.start}") from error
    fields = _fields(text.rstrip(" \n"), file, what)
    dtype, big_endian = _dtype(fields["descr"], file, what)
    shape = _shape(fields["shape"], dtype, broken)
    array = Array(dtype, shape, fields["fortran_order"] == "True", big_endian, len(raw))
    if array.nbytes != size - len(raw):
        short = array.nbytes > size - len(raw)
        raise refuse(
            file,
            f"{what} is cut short" if short else f"{what} has bytes after its end",
            f"{dtype.torch_name} of shape {show(shape)} takes {array.nbytes} bytes, and"
            f" {size - len(raw)} follow the header",
        )
    return array


def encode_header(dtype: Dtype, shape: tuple[int, ...]) -> bytes:
    """The header of an array in C order: NumPy's own bytes, a multiple of 64."""
    sizes = f"({shape[0]},)" if len(shape) == 1 else f"({', '.join(map(str, shape))})"
    text = f"{{'descr': '{dtype.descr}', 'fortran_order': False, 'shape': {sizes}, }}"
    if shape:
        text += " " * (_GROWTH - len(str(shape[0])))
    # A rank of 64 with sizes of 19 digits has 1,400 characters: version 1 always suffices.
    begin = len(MAGIC) + 4
    text += " " * (-(begin + len(text) + 1) % _ALIGNMENT) + "\n"
    return MAGIC + b"\x01\x00" + len(text).to_bytes(2, "little") + text.encode("ascii")


def _fields(text: str, file: object, what: str) -> dict[str, str]:
    """The source text of the three fields."""

    def broken(cause: str) -> WeightsError:
        return refuse(file, f"the header of {what} is broken", cause)

    if not (text.startswith("{") and text.endswith("}")):
        raise broken(f"{show(text)} is no dictionary")
    values = {"descr": _TEXT, "fortran_order": _FLAG, "shape": _SHAPE}
    found: dict[str, str] = {}
    at, end = 1, len(text) - 1
    while text[at:end].strip():
        key = _KEY.match(text, at, end)
        if key is None or key[2] not in values:
            raise broken(f"{show(text[at:end])} is none of the fields {', '.join(_FIELDS)}")
        if key[2] in found:
            raise broken(f"the field {key[2]} stands there twice")
        if key[2] == "descr" and text.startswith("[", key.end()):
            raise refuse(
                file,
                f"{what} cannot be a tensor",
                "it is a structured array: several fields an element",
                "save each field as an array of its own",
            )
        value = values[key[2]].match(text, key.end(), end)
        if value is None:
            raise broken(f"its {key[2]} is {show(text[key.end() : end])}")
        found[key[2]] = value[value.lastindex or 0]
        rest = text[value.end() : end].lstrip()
        if rest and not rest.startswith(","):
            raise broken(f"{show(rest)} follows its {key[2]}")
        at = end - len(rest) + 1 if rest else end
    missing = [name for name in _FIELDS if name not in found]
    if missing:
        raise broken(f"it lacks {', '.join(missing)}")
    return found


def _dtype(descr: str, file: object, what: str) -> tuple[Dtype, bool]:
    parts = _TYPE.fullmatch(descr)
    if parts is None:
        raise refuse(
            file,
            f"the header of {what} is broken",
            f"its descr {show(descr)} is no type of NumPy's",
        )
    order, kind, size, unit = parts.groups()
    dtype = None if unit else BY_CODE.get(kind + size)
    if dtype is None or order == "=":
        means, remedy = REFUSED_KINDS.get(kind, ("a type that PyTorch does not have", DAMAGED))
        raise refuse(file, f"{what} cannot be a tensor", f"{show(descr)} is {means}", remedy)
    if order == "|" and dtype.itemsize > 1:
        raise refuse(
            file,
            f"the header of {what} is broken",
            f"its descr {show(descr)} does not tell the order of bytes",
        )
    return dtype, order == ">" and dtype.itemsize > 1


def _shape(text: str, dtype: Dtype, broken: Callable[[str], WeightsError]) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    # "()", "(3,)" and "(3, 4)" are tuples; "(3)" is a number, and NumPy refuses it too.
    if parts[-1] == "":
        parts.pop()
    elif len(parts) == 1:
        raise broken(f"its shape ({show(text)}) is no tuple")
    if len(parts) > MAX_RANK:
        raise broken(f"it has {len(parts)} dimensions; at most {MAX_RANK} may be")
    sizes = []
    for part in parts:
        size = _SIZE.fullmatch(part)
        if size is None or len(size[1]) > _MAX_DIGITS:
            raise broken(f"its shape holds {show(part)}, which is no size")
        sizes.append(int(size[1]))
    # PyTorch multiplies sizes to strides even where one of them is 0.
    product = dtype.itemsize
    for number in sizes:
        product *= number or 1
    if product > _MAX_SIZE:
        raise broken(f"its shape {show(tuple(sizes))} is larger than any memory")
    return tuple(sizes)
