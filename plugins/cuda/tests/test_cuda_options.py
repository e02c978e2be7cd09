"""Options: what each needs of a device, and what has no meaning."""

from __future__ import annotations

import pytest

from hardpoint import ConfigError
from hardpoint_cuda.options import HELP, Options
from hardpoint_cuda.vendor import CUDA


@pytest.mark.parametrize(
    ("given", "precision", "what", "remedy"),
    [
        ({"tf_32": True}, "fp32", "the cuda backend has no option 'tf_32'", "did you mean 'tf32'?"),
        ({"mode": "Inductor"}, "fp32", "mode 'Inductor' does not exist", "did you mean 'inductor'?"),
        ({"tf32": 1}, "fp32", "option tf32 is 1", "give true or false"),
        ({"graphs": True, "graph_shapes": 0}, "fp32", "option graph_shapes is 0", "give a whole number, 1 or more"),
        ({"graphs": True, "graph_shapes": True}, "fp32", "option graph_shapes is True", "give a whole number, 1 or more"),
        ({"graph_shapes": 4}, "fp32", "option graph_shapes has no meaning without graphs", "add graphs"),
        ({"freezing": True}, "fp32", "option freezing has no meaning in mode 'eager'", "ask for mode 'inductor' or 'aot', or leave freezing out"),
        ({"compute": "fp16"}, "bf16", "option compute has no meaning with precision 'bf16'", "ask for precision 'int8w', or leave it out"),
        ({"weights": "fp8"}, "fp32", "option weights has no meaning with precision 'fp32'", "ask for precision 'int8w', or leave it out"),
        ({"weights": "int4"}, "int8w", "weights 'int4' does not exist", "did you mean 'int8'?"),
        ({"tf32": True}, "bf16", "option tf32 has no meaning: nothing is computed in fp32 with 'bf16'", "leave tf32 out, or ask for precision 'fp32'"),
        ({"mode": "tensorrt", "graphs": True}, "fp32", "option graphs has no meaning in mode 'tensorrt'", "leave graphs out, or ask for another mode"),
        ({"mode": "tensorrt"}, "int8w", "mode 'tensorrt' takes no weights held in eight bits", "ask for precision 'fp16' or 'bf16', or for another mode"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_a_mistake_and_not_ignored(given, precision, what, remedy):
    with pytest.raises(ConfigError) as caught:
        Options.parse(given, precision, CUDA)
    assert (caught.value.what, caught.value.remedy) == (what, remedy)


@pytest.mark.parametrize(
    ("given", "precision", "needs"),
    [
        ({}, "fp32", ()),
        ({"tf32": True}, "fp32", ("tf32",)),
        ({"mode": "inductor"}, "bf16", ("triton", "bf16")),
        ({"mode": "aot"}, "fp16", ("triton", "fp16")),
        ({}, "int8w", ("bf16",)),
        ({"compute": "fp32", "tf32": True}, "int8w", ("tf32",)),
        ({"weights": "fp8"}, "int8w", ("bf16",)),  # PyTorch's own cast runs on every device
        ({"weights": "fp8", "mode": "inductor"}, "int8w", ("triton", "bf16", "fp8")),
    ],
)
def test_each_wish_is_turned_into_what_the_device_must_be_able_to_do(given, precision, needs):
    assert Options.parse(given, precision, CUDA).needs(precision) == needs


def test_every_option_has_its_line_of_help():
    assert set(HELP) == set(Options.__dataclass_fields__)
