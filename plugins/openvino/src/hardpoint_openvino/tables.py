"""The operators that were proven right, by what they take (see :mod:`.operators`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch.fx import Node

# Views, moves and conversions: every dtype goes through.
_ANY_DTYPE = """
    _to_copy _unsafe_view alias block_diag broadcast_tensors cat chunk clone constant_pad_nd
    contiguous detach diag_embed embedding expand expand_as expand_copy flatten flip fliplr
    flipud full full_like gather index index_copy index_fill index_put index_select
    lift_fresh_copy masked_fill meshgrid new_full new_ones new_zeros ones ones_like pad permute
    permute_copy repeat repeat_interleave reshape roll rot90 scalar_tensor scatter scatter_add
    select select_scatter slice slice_scatter split split_with_sizes split_with_sizes_copy
    squeeze stack t tile to transpose tril triu unbind unflatten unsafe_split unsqueeze view
    view_copy where zeros zeros_like
"""
# Floats in (integers as indices alone), floats or indices out.
_FLOATS = """
    _log_softmax _native_batch_norm_legit_no_training _softmax acos acosh adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d addcdiv addcmul addmm addr amax amin aminmax argmax
    argsort asin asinh atan atanh avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm
    binary_cross_entropy binary_cross_entropy_with_logits bmm ceil celu conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d convolution cos cosh cosine_similarity
    cross_entropy_loss deg2rad diff dot dropout einsum elu erf exp expm1 floor gelu glu
    group_norm hardsigmoid hardswish hardtanh heaviside instance_norm isclose isfinite isinf
    isnan isneginf isposinf isreal layer_norm leaky_relu lerp linalg_vector_norm linear log
    log10 log1p log2 log_softmax matmul max_pool1d max_pool2d
    max_pool2d_with_indices max_pool3d mean mish mm mv nan_to_num native_group_norm
    native_layer_norm norm outer pixel_shuffle pixel_unshuffle pow prelu prod rad2deg reciprocal
    relu relu6 rms_norm rsqrt scaled_dot_product_attention selu sigmoid silu sin sinc sinh
    softmax softplus sort sqrt square std tan tanh threshold topk true_divide upsample_bicubic2d
    upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
    upsample_trilinear3d var vdot
"""
_ARITHMETIC = """
    abs add arange clamp clamp_max clamp_min cumsum div max maximum min minimum mul neg rsub sub
    sum
"""
_COMPARISONS = """
    eq ge gt le lt ne
"""
_LOGICAL = """
    __and__ __or__ all any bitwise_and bitwise_not bitwise_or bitwise_xor logical_and
    logical_not logical_or logical_xor
"""
ANY_DTYPE, FLOATS, ARITHMETIC, COMPARISONS, LOGICAL = (
    frozenset(names.split()) for names in (_ANY_DTYPE, _FLOATS, _ARITHMETIC, _COMPARISONS, _LOGICAL)
)


def argument(node: Node, name: str) -> object:
    """What the call gives for a parameter of its operator, by place, by name or by default."""
    parameters = node.target._schema.arguments  # type: ignore[union-attr]
    for place, parameter in enumerate(parameters):
        if parameter.name == name:
            if place < len(node.args):
                return node.args[place]
            return node.kwargs.get(name, parameter.default_value)
    return None


def _rank(least: int, what: str) -> Callable[[Node], str]:
    def rule(node: Node) -> str:
        value = node.args[0].meta["val"]  # type: ignore[union-attr]
        return "" if value.dim() >= least else f"{what} without a batch dimension is not taken"

    return rule


def _division(node: Node) -> str:
    mode = node.kwargs.get("rounding_mode")
    return f"division rounded by {mode!r} treats infinities in a way of its own" if mode else ""


def _values_only(node: Node) -> str:
    """Of what gives values and their places: the places are others where there is NaN."""
    value = node.meta.get("val")
    used = {user.args[1] for user in node.users} if isinstance(value, (tuple, list)) else set()
    return "the indices that it gives beside the values are not right for NaN" if 1 in used else ""


def _corrected(node: Node) -> str:
    """Where ``correction`` is left out, the front end takes it for 0, PyTorch for 1."""
    overload = str(node.target).rpartition(".")[2]
    named = "correction" in node.kwargs and node.kwargs["correction"] is not None
    return "" if overload != "correction" or named else "a variance without its correction is wrong"


def _accumulated(node: Node) -> str:
    adds = node.args[3] if len(node.args) > 3 else node.kwargs.get("accumulate", False)
    return "index_put that adds was not proven right" if adds else ""


def _pooled(node: Node) -> str:
    """With ``ceil_mode``, windows reach beyond the padding, and are divided by too much."""
    if argument(node, "ceil_mode") and argument(node, "count_include_pad"):
        return "an average with ceil_mode counts what lies beyond the padding"
    return ""


def _added(node: Node) -> str:
    if argument(node, "beta") == 0:
        return "with beta=0, NaN in what is not to be added comes through"
    return ""


def _whole_steps(node: Node) -> str:
    given = [argument(node, name) for name in ("start", "end", "step")]
    if any(isinstance(n, float) and not n.is_integer() for n in given):
        return "a range that does not go by whole numbers is rounded to such"
    return ""


def _floats_only(node: Node) -> str:
    value = node.args[0].meta["val"]  # type: ignore[union-attr]
    return "" if value.is_floating_point() else "it was proven right on floats only"


# Further conditions of single operators.
SPECIAL: Mapping[str, Callable[[Node], str]] = {
    "conv1d": _rank(3, "a convolution"),
    "conv2d": _rank(4, "a convolution"),
    "conv3d": _rank(5, "a convolution"),
    "conv_transpose1d": _rank(3, "a convolution"),
    "conv_transpose2d": _rank(4, "a convolution"),
    "div": _division,
    "conv_transpose3d": _rank(5, "a convolution"),
    "max": _values_only,
    "min": _values_only,
    "max_pool2d_with_indices": _values_only,
    "var": _corrected,
    "std": _corrected,
    "index_put": _accumulated,
    "scatter_add": _floats_only,
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _pooled),
    **dict.fromkeys(("addmm", "baddbmm", "addr"), _added),
    "arange": _whole_steps,
}
