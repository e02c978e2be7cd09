"""The types of GGUF's tensors. No torch and no gguf here: names and sizes only.

From ggml.h and ggml-common.h of https://github.com/ggml-org/ggml; tests compare them with the
library ``gguf``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Type:
    """One type of tensor element.

    :param number: as files have it.
    :param name: ggml's name.
    :param torch_name: what we give it as, without ``torch.``: itself, or float32 if quantized.
    :param block: values that are packed together, always neighbours in a row.
    :param nbytes: bytes of such a block.
    """

    number: int
    name: str
    torch_name: str
    block: int
    nbytes: int

    @property
    def quantized(self) -> bool:
        """Whether values must be computed from what is stored."""
        return self.block > 1


def _quantized(number: int, name: str, block: int, nbytes: int) -> Type:
    return Type(number, name, "float32", block, nbytes)


_ALL = (
    Type(0, "F32", "float32", 1, 4),
    Type(1, "F16", "float16", 1, 2),
    Type(24, "I8", "int8", 1, 1),
    Type(25, "I16", "int16", 1, 2),
    Type(26, "I32", "int32", 1, 4),
    Type(27, "I64", "int64", 1, 8),
    Type(28, "F64", "float64", 1, 8),
    Type(30, "BF16", "bfloat16", 1, 2),
    _quantized(2, "Q4_0", 32, 18),
    _quantized(3, "Q4_1", 32, 20),
    _quantized(6, "Q5_0", 32, 22),
    _quantized(7, "Q5_1", 32, 24),
    _quantized(8, "Q8_0", 32, 34),
    _quantized(9, "Q8_1", 32, 40),
    _quantized(10, "Q2_K", 256, 84),
    _quantized(11, "Q3_K", 256, 110),
    _quantized(12, "Q4_K", 256, 144),
    _quantized(13, "Q5_K", 256, 176),
    _quantized(14, "Q6_K", 256, 210),
    _quantized(15, "Q8_K", 256, 292),
    _quantized(16, "IQ2_XXS", 256, 66),
    _quantized(17, "IQ2_XS", 256, 74),
    _quantized(18, "IQ3_XXS", 256, 98),
    _quantized(19, "IQ1_S", 256, 50),
    _quantized(20, "IQ4_NL", 32, 18),
    _quantized(21, "IQ3_S", 256, 110),
    _quantized(22, "IQ2_S", 256, 82),
    _quantized(23, "IQ4_XS", 256, 136),
    _quantized(29, "IQ1_M", 256, 56),
    _quantized(34, "TQ1_0", 256, 54),
    _quantized(35, "TQ2_0", 256, 66),
    _quantized(39, "MXFP4", 32, 17),
    _quantized(40, "NVFP4", 64, 36),
    _quantized(41, "Q1_0", 128, 18),
)

BY_NUMBER = {each.number: each for each in _ALL}

# Once in ggml, and taken out: files of them are of old experiments.
REMOVED = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8",
    36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
}  # fmt: skip
