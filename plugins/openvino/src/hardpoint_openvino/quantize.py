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

from hardpoint_openvino.options import Options
from hardpoint_openvino.origin import compile_error, in_words
from hardpoint_openvino.request import numbers
from hardpoint_openvino.runtime import ov, unreported

QUANTIZED = ("int8", "int8w", "int4w")
# Operators whose weights int8 is for, beside products of matrices.
_WEIGHTED = frozenset({
    "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData",
    "LSTMSequence", "GRUSequence", "RNNSequence",
})  # fmt: skip
_FEW_ROWS = 4
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
        ignored_scope=nncf.IgnoredScope(names=_small(model, examples)),
        subset_size=1,
    )
    return quantized


def _small(model: ov.Model, examples: Sequence[torch.Tensor]) -> list[str]:
    """Products of a few rows and few weights, such as what shifts a U-Net by its time.

    The ranges of so few rows are no good for others, and NNCF's smoothing fits them to these
    besides; the error is the same all over the picture (0.88 instead of 0.05). Their weights lie in
    a cache: int8 would save nothing.
    """
    shaped = model.clone()
    shapes = {port: list(t.shape) for port, t in zip(shaped.inputs, examples, strict=True)}
    shaped.reshape(shapes)
    weighted = [node for node in shaped.get_ops() if _is_weighted(node)]
    found = [node.get_friendly_name() for node in weighted if _has_few_rows(node)]
    # Where they are all that there is, int8 was asked for them.
    return found if len(found) < len(weighted) else []


def _is_weighted(node: ov.Node) -> bool:
    kind = node.get_type_name()
    return kind in _WEIGHTED or (kind == "MatMul" and _weight(node) is not None)


def _weight(product: ov.Node) -> ov.Node | None:
    """The constant that it multiplies by, behind a conversion where it is held in 16 bits."""
    node = product.input_value(1).get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def _has_few_rows(node: ov.Node) -> bool:
    weight = _weight(node) if node.get_type_name() == "MatMul" else None
    values = node.input_value(0).get_partial_shape()
    if weight is None or values.is_dynamic:
        return False
    rows = prod(list(values.to_shape())[:-1])
    return bool(rows <= _FEW_ROWS and prod(weight.get_output_shape(0)) <= _FITS_A_CACHE)


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
