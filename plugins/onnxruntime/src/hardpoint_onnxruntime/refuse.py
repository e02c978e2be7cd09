"""What is refused without a trial: what a trial of one node cannot see, or must not do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves

_DTYPES = frozenset(
    {
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool,
        torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8,
    }
)  # fmt: skip
_TRAINING = {"train", "training"}
_DROPOUT = {"dropout_p", "dropout", "p"}
_aten = torch.ops.aten
_THROUGH_FLOAT = frozenset({_aten.maximum, _aten.minimum, _aten.fmod, _aten.sum, _aten.prod})
# Operators -> why no trial of theirs would prove anything.
_NEVER: Mapping[Any, str] = {
    **dict.fromkeys(
        (_aten.empty, _aten.empty_like, _aten.new_empty, _aten.empty_strided,
         _aten.new_empty_strided, _aten.empty_permuted),
        "it leaves memory as it finds it, which ONNX cannot say",
    ),
    **dict.fromkeys(
        (_aten.set_, _aten.resize, _aten.as_strided, _aten.as_strided_copy),
        "it looks at memory by strides, which ONNX tensors do not have",
    ),
    **dict.fromkeys(
        (_aten.max_unpool2d, _aten.max_unpool3d),
        "with an index out of range ONNX Runtime writes another place, in silence",
    ),
    _aten.multilabel_margin_loss: "its targets end at a -1, which ONNX Runtime takes for a class",
    _aten.multilabel_margin_loss_forward: "its targets end at a -1, which ONNX Runtime takes for a "
    "class",
}  # fmt: skip


def refusal(node: Node) -> str | None:
    """Why ``node`` is refused, in words; ``None`` where a trial may tell."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return f"{target} is control flow or no operator: left to backends that run PyTorch's own"
    if target.namespace != "aten":
        return f"{target} is a custom operator; ONNX has no translation of it"
    if target._schema.is_mutable:
        return f"{target} writes into its arguments; segments are functional"
    if target.overloadpacket in _NEVER:
        return f"{target}: {_NEVER[target.overloadpacket]}"
    if draws(node):
        return f"{target} draws random numbers: ONNX Runtime's are others than PyTorch's"
    if target.overloadpacket in _THROUGH_FLOAT and _int64(node):
        # Which elements depends on where they lie: a trial may find none.
        return f"{target} of large or negative integers: ONNX Runtime computes int64 as float64"
    if target.overloadpacket is _aten.soft_margin_loss and node.meta["val"].dtype is torch.float16:
        return f"{target} in float16: PyTorch's overflows, ONNX Runtime's is computed in float32"
    for value in _tensors(node):
        reason = _bad(value)
        if reason is not None:
            return reason
    return None


def draws(node: Node) -> bool:
    """Whether it draws random numbers; dropout that is switched off does not."""
    target = node.target
    if torch.Tag.nondeterministic_seeded not in target.tags:  # type: ignore[union-attr]
        return False
    for i, argument in enumerate(target._schema.arguments):  # type: ignore[union-attr]
        by_name = node.kwargs.get(argument.name, argument.default_value)
        value = node.args[i] if i < len(node.args) else by_name
        if argument.name in _TRAINING and value is False:
            return False
        if argument.name in _DROPOUT and value == 0:
            return False
    return True


def _int64(node: Node) -> bool:
    """Whether it makes int64 of int64; sums of bools and smaller integers stay exact."""
    values = [node.meta["val"], *(other.meta.get("val") for other in node.all_input_nodes)]
    return values[0].dtype is torch.int64 and any(
        isinstance(v, torch.Tensor) and v.dtype is torch.int64 for v in values[1:]
    )


def _tensors(node: Node) -> Iterator[torch.Tensor]:
    for other in (*node.all_input_nodes, node):
        for value in tree_leaves(other.meta.get("val")):
            if isinstance(value, torch.Tensor):
                yield value


def _bad(value: torch.Tensor) -> str | None:
    from torch.fx.experimental.symbolic_shapes import has_free_unbacked_symbols

    if value.layout is not torch.strided:
        return f"a tensor of it has the layout {value.layout}; ONNX tensors are dense"
    if value.dtype not in _DTYPES:
        return f"a tensor of it is {str(value.dtype).removeprefix('torch.')}, which is not computed"
    if value.device.type != "cpu":
        return f"a tensor of it lives on {value.device} in the program; this exports what is on cpu"
    if has_free_unbacked_symbols(value):
        return "the size of a tensor of it depends on data"
    return None
