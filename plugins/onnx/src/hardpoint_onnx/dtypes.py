"""ONNX's types of tensor elements and what each is in PyTorch. No torch here: names only.

From TensorProto.DataType of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; tests compare
them with the library ``onnx``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dtype:
    """One type.

    :param number: as files have it.
    :param name: ONNX's.
    :param torch_name: PyTorch's, without ``torch.``.
    :param itemsize: bytes of one PyTorch element.
    :param field: where a file without ``raw_data`` has the values.
    :param form: ``array.array``'s letter of that field.
    :param low: of the values that the field may hold for this type; ``None`` if all of its own.
    :param high: the largest.
    :param parts: values of the field in one element: a complex number is two.
    :param packed: values of ONNX in one PyTorch element.
    """

    number: int
    name: str
    torch_name: str
    itemsize: int
    field: str
    form: str
    low: int | None = None
    high: int = 0
    parts: int = 1
    packed: int = 1


def _small(number: int, name: str, torch_name: str, bits: int, *, signed: bool = False) -> Dtype:
    """A type of up to 16 bits: each value, or its bits, as one of ``int32_data``."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return Dtype(number, name, torch_name, -(-bits // 8), "int32_data", "i", low, high)


_ALL = (
    Dtype(1, "FLOAT", "float32", 4, "float_data", "f"),
    _small(2, "UINT8", "uint8", 8),
    _small(3, "INT8", "int8", 8, signed=True),
    _small(4, "UINT16", "uint16", 16),
    _small(5, "INT16", "int16", 16, signed=True),
    Dtype(6, "INT32", "int32", 4, "int32_data", "i"),
    Dtype(7, "INT64", "int64", 8, "int64_data", "q"),
    _small(9, "BOOL", "bool", 1),
    _small(10, "FLOAT16", "float16", 16),
    Dtype(11, "DOUBLE", "float64", 8, "double_data", "d"),
    Dtype(12, "UINT32", "uint32", 4, "uint64_data", "Q", 0, (1 << 32) - 1),
    Dtype(13, "UINT64", "uint64", 8, "uint64_data", "Q"),
    Dtype(14, "COMPLEX64", "complex64", 8, "float_data", "f", parts=2),
    Dtype(15, "COMPLEX128", "complex128", 16, "double_data", "d", parts=2),
    _small(16, "BFLOAT16", "bfloat16", 16),
    _small(17, "FLOAT8E4M3FN", "float8_e4m3fn", 8),
    _small(18, "FLOAT8E4M3FNUZ", "float8_e4m3fnuz", 8),
    _small(19, "FLOAT8E5M2", "float8_e5m2", 8),
    _small(20, "FLOAT8E5M2FNUZ", "float8_e5m2fnuz", 8),
    Dtype(23, "FLOAT4E2M1", "float4_e2m1fn_x2", 1, "int32_data", "i", 0, 255, packed=2),
    _small(24, "FLOAT8E8M0", "float8_e8m0fnu", 8),
)

BY_NUMBER = {dtype.number: dtype for dtype in _ALL}

# Named by the format, but without a PyTorch dtype that can be computed with.
UNSUPPORTED = {
    8: "STRING", 21: "UINT4", 22: "INT4", 25: "UINT2", 26: "INT2", 27: "FLOAT6E2M3",
    28: "FLOAT6E3M2",
}  # fmt: skip

# The fields that hold values, of which a tensor has one.
FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
