"""NumPy's type strings and what each is in PyTorch. No torch here: names only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dtype:
    """One type of array element.

    :param code: NumPy's kind and size, e.g. ``"f4"``.
    :param torch_name: PyTorch's name, without ``torch.``.
    :param itemsize: bytes of one element.
    :param swapped: bytes that change places together where the file has the other byte order: a
        complex number is two floats.
    """

    code: str
    torch_name: str
    itemsize: int
    swapped: int

    @property
    def descr(self) -> str:
        """As NumPy writes it into a header on a little-endian machine."""
        return ("|" if self.itemsize == 1 else "<") + self.code


_ALL = (
    Dtype("b1", "bool", 1, 1),
    Dtype("u1", "uint8", 1, 1),
    Dtype("i1", "int8", 1, 1),
    Dtype("u2", "uint16", 2, 2),
    Dtype("i2", "int16", 2, 2),
    Dtype("u4", "uint32", 4, 4),
    Dtype("i4", "int32", 4, 4),
    Dtype("u8", "uint64", 8, 8),
    Dtype("i8", "int64", 8, 8),
    Dtype("f2", "float16", 2, 2),
    Dtype("f4", "float32", 4, 4),
    Dtype("f8", "float64", 8, 8),
    Dtype("c8", "complex64", 8, 4),
    Dtype("c16", "complex128", 16, 8),
)

BY_CODE = {dtype.code: dtype for dtype in _ALL}
BY_TORCH_NAME = {dtype.torch_name: dtype for dtype in _ALL}

# Kind of a type string that PyTorch has nothing for -> (what it is, what to do about it).
_SAVE_AGAIN = "convert the array to numbers of a type that PyTorch has, and save it again"
REFUSED_KINDS = {
    "O": (
        "an array of Python objects: a pickle, which can run code",
        "save it again as an array of numbers; nothing here ever unpickles",
    ),
    "V": (
        "raw bytes without a type",
        "if it was a type that NumPy does not know (bfloat16, float8 of ml_dtypes), save "
        "array.view('u1' or 'u2'), and view the tensor as its dtype",
    ),
    "M": ("dates", _SAVE_AGAIN),
    "m": ("time spans", _SAVE_AGAIN),
    "S": ("text", _SAVE_AGAIN),
    "a": ("text", _SAVE_AGAIN),
    "U": ("text", _SAVE_AGAIN),
    "f": ("floats of another size than 2, 4 and 8 bytes", _SAVE_AGAIN),
    "c": ("complex numbers of another size than 8 and 16 bytes", _SAVE_AGAIN),
}
