"""The format's dtypes and what each is in PyTorch. No torch here: names only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dtype:
    """One dtype of the format.

    :param code: the format's name, e.g. ``"BF16"``.
    :param torch_name: PyTorch's, without ``torch.``.
    :param itemsize: bytes of one PyTorch element.
    :param packed: values of the format in one PyTorch element (2 for ``F4``). The file's last size
        counts values, PyTorch's counts elements.
    """

    code: str
    torch_name: str
    itemsize: int
    packed: int = 1


_ALL = (
    Dtype("U64", "uint64", 8),
    Dtype("I64", "int64", 8),
    Dtype("F64", "float64", 8),
    Dtype("C64", "complex64", 8),
    Dtype("U32", "uint32", 4),
    Dtype("I32", "int32", 4),
    Dtype("F32", "float32", 4),
    Dtype("U16", "uint16", 2),
    Dtype("I16", "int16", 2),
    Dtype("F16", "float16", 2),
    Dtype("BF16", "bfloat16", 2),
    Dtype("U8", "uint8", 1),
    Dtype("I8", "int8", 1),
    Dtype("BOOL", "bool", 1),
    Dtype("F8_E4M3", "float8_e4m3fn", 1),
    Dtype("F8_E4M3FNUZ", "float8_e4m3fnuz", 1),
    Dtype("F8_E5M2", "float8_e5m2", 1),
    Dtype("F8_E5M2FNUZ", "float8_e5m2fnuz", 1),
    Dtype("F8_E8M0", "float8_e8m0fnu", 1),
    Dtype("F4", "float4_e2m1fn_x2", 1, packed=2),
)

BY_CODE = {dtype.code: dtype for dtype in _ALL}
BY_TORCH_NAME = {dtype.torch_name: dtype for dtype in _ALL}

# Named by the format, but without a PyTorch dtype to hold them.
UNSUPPORTED = frozenset({"F6_E2M3", "F6_E3M2"})
