"""int8 arithmetic, and int8 or int4 weights, by NNCF on OpenVINO's model."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch

from hardpoint_openvino.executable import numbers
from hardpoint_openvino.options import Options
from hardpoint_openvino.origin import compile_error, in_words
from hardpoint_openvino.runtime import ov, unreported

QUANTIZED = ("int8", "int8w", "int4w")
# Whatever multiplies and adds: what int8 is for.
_PRODUCTS = frozenset({
    "MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData", "LSTMSequence",
    "GroupConvolutionBackpropData", "GRUSequence", "ScaledDotProductAttention",
})  # fmt: skip
_FITS_A_CACHE = 1 << 18  # numbers: 1 MiB in fp32
REMEDY = 'pip install "hardpoint-openvino[quantize]"'
# Standard output and a logger's level belong to the process: two that change them at once would put
# back each other's changes.
_ONE_AT_A_TIME = threading.Lock()


def quantize(
    model: ov.Model, precision: str, examples: Sequence[torch.Tensor], options: Options
) -> ov.Model:
    """``model`` in ``int8``, or with its weights in ``int8w`` or ``int4w``.

    :param examples: one call's inputs; ``int8`` fits the scales of its activations to them.
    :raises CompileError: NNCF is missing or refuses, or there is nothing to calibrate on.
    """
    if precision == "int8" and not examples:
        raise compile_error(
            "int8 needs example inputs to fit its scales to",
            remedy="compile with examples, or ask for int8w, which needs none",
        )
    nncf = _nncf()
    try:
        with _quietly():
            if precision == "int8":
                return _calibrated(nncf, model, examples, options)
            return _compressed(nncf, model, precision, options)
    except Exception as error:
        raise compile_error(
            f"NNCF cannot make the segment {precision}",
            cause=in_words(error),
            remedy="ask for another precision, or leave this target out of targets=",
        ) from error


def _nncf() -> Any:
    """NNCF, without the reports that it sends to its makers.

    :raises CompileError: it is not installed.
    """
    try:
        with unreported():
            import nncf
    except ImportError as error:
        raise compile_error(
            "int8, int8w and int4w need NNCF", cause=in_words(error), remedy=REMEDY
        ) from error
    return nncf


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without progress bars and tables; errors are raised, not logged."""
    logger = logging.getLogger("nncf")
    with _ONE_AT_A_TIME:
        before = logger.level
        logger.setLevel(logging.ERROR)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        finally:
            logger.setLevel(before)


def _calibrated(
    nncf: Any, model: ov.Model, examples: Sequence[torch.Tensor], options: Options
) -> ov.Model:
    from openvino._offline_transformations import apply_moc_transformations

    apply_moc_transformations(model, cf=False)  # NNCF looks for batch norms folded already
    kind = options.model_type
    if kind == "auto":
        kind = "transformer" if _is_transformer(model) else "plain"
    names = [port.get_any_name() for port in model.inputs]
    sample = {name: numbers(t) for name, t in zip(names, examples, strict=True)}
    quantized: ov.Model = nncf.quantize(
        model,
        nncf.Dataset([sample]),
        preset=nncf.QuantizationPreset(options.preset),
        model_type=nncf.ModelType.TRANSFORMER if kind == "transformer" else None,
        ignored_scope=nncf.IgnoredScope(names=_of_one_row(model)),
        subset_size=1,
    )
    return quantized


def _of_one_row(model: ov.Model) -> list[str]:
    """Products of a single row and few weights, such as what shifts a U-Net by its time.

    The range of one example is too little for them, and NNCF's smoothing fits them to it besides;
    the error is the same all over the picture (0.88 instead of 0.05). Their weights lie in a cache:
    int8 would save nothing.
    """
    products = [node for node in model.get_ops() if node.get_type_name() in _PRODUCTS]
    found = [node.get_friendly_name() for node in products if _is_small(node)]
    # Where they are all that there is, int8 was asked for them.
    return found if len(found) < len(products) else []


def _is_small(product: ov.Node) -> bool:
    values, weights = (product.input_value(i) for i in (0, 1))
    shapes = [value.get_partial_shape() for value in (values, weights)]
    if product.get_type_name() != "MatMul" or any(shape.is_dynamic for shape in shapes):
        return False
    of_weights = weights.get_node().get_type_name() == "Constant"
    one_row = prod(list(shapes[0].to_shape())[:-1]) == 1
    return bool(of_weights and one_row and prod(shapes[1].to_shape()) <= _FITS_A_CACHE)


def _is_transformer(model: ov.Model) -> bool:
    """Attention is in it: some of its layers then bear no narrow range."""
    kinds = {node.get_type_name() for node in model.get_ops()}
    return "ScaledDotProductAttention" in kinds or {"Softmax", "MVN"} <= kinds


def _compressed(nncf: Any, model: ov.Model, precision: str, options: Options) -> ov.Model:
    mode = nncf.CompressWeightsMode
    if precision == "int8w":
        eight: ov.Model = nncf.compress_weights(model, mode=mode.INT8_ASYM)
        return eight
    advanced = nncf.AdvancedCompressionParameters(
        group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
    )
    four: ov.Model = nncf.compress_weights(
        model, mode=mode.INT4_SYM, group_size=options.group_size, advanced_parameters=advanced
    )
    return four
