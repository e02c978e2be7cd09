"""Which operators run in bfloat16: those whose CPU kernels take it and lose nothing that matters.

All others run as the program says, in float32, between two casts: correct always, fast where it
counts, because nearly all the work of a model is in the operators named here.
"""

from __future__ import annotations

from typing import Any

import torch

_PRODUCTS = {
    "linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "mv", "einsum", "bilinear",
    "convolution", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "scaled_dot_product_attention", "lstm", "gru", "rnn_tanh", "rnn_relu",
    "_weight_int8pack_mm", "_weight_int4pack_mm_for_cpu",
}  # fmt: skip
_NORMS = {
    "layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "batch_norm",
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit_functional", "instance_norm", "rms_norm", "_fused_rms_norm",
    "softmax", "_softmax", "log_softmax", "_log_softmax", "logsumexp",
}  # fmt: skip
_REDUCTIONS = {
    "sum", "mean", "amax", "amin", "max", "min", "argmax", "argmin", "var", "std", "var_mean",
    "linalg_vector_norm", "norm", "topk", "sort", "any", "all",
}  # fmt: skip
_MOVES = {
    "embedding", "cat", "stack", "concat", "index", "index_select", "gather", "scatter",
    "index_put", "masked_fill", "where", "pad", "constant_pad_nd", "reflection_pad1d",
    "reflection_pad2d", "replication_pad1d", "replication_pad2d", "max_pool1d", "max_pool2d",
    "max_pool2d_with_indices", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "upsample_nearest2d", "upsample_bilinear2d",
    "repeat", "roll", "flip", "tril", "triu", "clone", "contiguous", "_to_copy", "to", "type_as",
    "full_like", "zeros_like", "ones_like", "new_zeros", "new_ones", "new_full", "glu",
    "pixel_shuffle", "pixel_unshuffle", "unfold", "im2col", "lift_fresh_copy", "clamp", "one_hot",
    "slice_scatter", "select_scatter", "leaky_relu", "prelu", "split_with_sizes_copy", "alias",
    "copy",
}  # fmt: skip
_NARROW = frozenset(_PRODUCTS | _NORMS | _REDUCTIONS | _MOVES)
# Elementwise, and yet without a bfloat16 kernel, or of no use with eight bits of mantissa.
_WIDE_PREFIXES = ("special_", "fmod", "remainder", "nextafter", "igamma", "polygamma", "lgamma",
                  "digamma", "mvlgamma", "heaviside", "gcd", "lcm", "ldexp", "frexp", "cauchy",
                  "normal", "bernoulli", "random", "uniform", "exponential", "view_as_complex",
                  "view_as_real", "complex", "polar", "real", "imag", "angle")  # fmt: skip

# Positions of arguments that stay float32 beside a bfloat16 input: the kernels take both at once.
_KEPT = {
    "layer_norm": (2, 3), "native_layer_norm": (2, 3),
    "group_norm": (2, 3), "native_group_norm": (1, 2),
    "batch_norm": (1, 2, 3, 4), "native_batch_norm": (1, 2, 3, 4),
    "_native_batch_norm_legit_no_training": (1, 2, 3, 4),
    "instance_norm": (1, 2, 3, 4),
}  # fmt: skip
# Look at the bits themselves, or carry a number out of the tensors.
_BITS = frozenset({torch.ops.aten.view.dtype, torch.ops.aten._local_scalar_dense.default})


def is_narrow(target: Any) -> bool:
    """Whether this operator may run in bfloat16."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace not in ("aten", "prims"):
        return False
    if target in _BITS:
        return False
    name = target._opname
    if name.startswith(_WIDE_PREFIXES) or torch.Tag.nondeterministic_seeded in target.tags:
        # Tagged for a dropout that a model captured for inference does not use.
        return name in _PRODUCTS
    return name in _NARROW or target.is_view or torch.Tag.pointwise in target.tags


def kept(target: torch._ops.OpOverload) -> tuple[int, ...]:
    """Positions of the arguments that stay float32."""
    return _KEPT.get(target._opname, ())
