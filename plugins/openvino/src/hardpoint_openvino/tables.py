"""The operators that were proven right, by what they take (see :mod:`.operators`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch.fx import Node

# Views, moves and conversions: every dtype goes through.
_ANY_DTYPE = """
    _to_copy _unsafe_view alias cat chunk clone constant_pad_nd contiguous detach embedding
    expand expand_as flatten flip full full_like gather index index_select lift_fresh_copy
    masked_fill new_full new_ones new_zeros ones ones_like pad permute repeat repeat_interleave
    reshape roll scalar_tensor select select_scatter slice slice_scatter split split_with_sizes
    squeeze stack t tile to transpose tril triu unbind unflatten unsqueeze view where zeros
    zeros_like
"""
# Floats in (integers as indices alone), floats or indices out.
_FLOATS = """
    _log_softmax _native_batch_norm_legit_no_training _softmax acos acosh adaptive_avg_pool1d
    adaptive_avg_pool2d addmm amax amin argmax argmin asin asinh atan atanh avg_pool1d
    avg_pool2d avg_pool3d baddbmm batch_norm bmm ceil conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d convolution cos cosh dropout elu erf exp expm1 floor gelu glu group_norm
    hardsigmoid hardswish hardtanh instance_norm layer_norm leaky_relu linalg_vector_norm linear
    log log10 log1p log2 log_softmax logsumexp matmul max_pool1d max_pool2d
    max_pool2d_with_indices mean mish mm native_group_norm native_layer_norm pixel_shuffle
    pixel_unshuffle pow reciprocal relu relu6 rms_norm rsqrt scaled_dot_product_attention selu
    sigmoid silu sin sinh softmax softplus sqrt std tan tanh topk upsample_bilinear2d
    upsample_nearest2d var
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


def _rank(least: int, what: str) -> Callable[[Node], str]:
    def rule(node: Node) -> str:
        value = node.args[0].meta["val"]  # type: ignore[union-attr]
        return "" if value.dim() >= least else f"{what} without a batch dimension is not taken"

    return rule


def _division(node: Node) -> str:
    mode = node.kwargs.get("rounding_mode")
    return f"division rounded by {mode!r} treats infinities in a way of its own" if mode else ""


def _no_indices(node: Node) -> str:
    used = {user.args[1] for user in node.users}
    return "the indices of a pooling were not proven right" if 1 in used else ""


# Further conditions of single operators.
SPECIAL: Mapping[str, Callable[[Node], str]] = {
    "conv1d": _rank(3, "a convolution"),
    "conv2d": _rank(4, "a convolution"),
    "conv3d": _rank(5, "a convolution"),
    "conv_transpose1d": _rank(3, "a convolution"),
    "conv_transpose2d": _rank(4, "a convolution"),
    "div": _division,
    "max_pool2d_with_indices": _no_indices,
}
