"""Narrower precisions, by ONNX Runtime's own quantizers.

They take and give files and ``onnx`` models; what comes in and goes out here is ``onnx_ir.Model``.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch

from hardpoint_onnxruntime import constants, embeddings
from hardpoint_onnxruntime.kept import kept_in_float
from hardpoint_onnxruntime.options import Options
from hardpoint_onnxruntime.origin import compile_error
from hardpoint_onnxruntime.providers import CPU, has_vnni
from hardpoint_onnxruntime.session import runtime

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level
# What is not logged belongs to the process: two that change it at once would put back each other's
# changes.
_ONE_AT_A_TIME = threading.Lock()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """They log advice at the root, to people who did not ask them."""
    with _ONE_AT_A_TIME:
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def weight_only(model: Any, bits: int, options: Options) -> Any:
    """Matrices in blocks of ``bits``, embedding tables in int8; arithmetic stays in float32."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    turned = constants.prepare(model)
    accuracy = _INT8_ACTIVATIONS if options.activations == "int8" else None
    with _silent():
        quantizer = MatMulNBitsQuantizer(
            _proto(model),
            bits=bits,
            block_size=options.block,
            is_symmetric=True,
            accuracy_level=accuracy,
        )
        quantizer.process()
    made = ir.serde.deserialize_model(quantizer.model.model)
    if bits == 8:
        embeddings.share_tables(made, turned)
    embeddings.round_tables(made)
    return made


def is_convolutional(model: Any) -> bool:
    """Whether it has convolutions."""
    return any(node.op_type in _CONVOLUTIONS for node in model.graph)


def dynamic(model: Any) -> Any:
    """Matrices in int8; the scale of each activation is found at each call."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="hardpoint-ort-") as folder, _silent():
        source, target = Path(folder, "folded.onnx"), Path(folder, "quantized.onnx")
        _folded(_proto(model), source)
        model = ir.serde.deserialize_model(onnx.load(source))
        constants.prepare(model)
        embeddings.round_tables(model)
        quantize_dynamic(
            _proto(model),
            target,
            op_types_to_quantize=["MatMul", "LSTM"],
            per_channel=True,
            reduce_range=not has_vnni(),
            weight_type=QuantType.QInt8,
        )
        return ir.serde.deserialize_model(onnx.load(target))


def static(model: Any, examples: Sequence[torch.Tensor]) -> Any:
    """Weights and activations in int8, whose scales the examples give (QDQ).

    :raises CompileError: there are no examples.
    """
    names = [value.name for value in model.graph.inputs]
    if len(examples) != len(names):
        raise compile_error(
            "int8 cannot be calibrated",
            cause=f"the segment has {len(names)} inputs, and there are {len(examples)} example "
            "inputs",
            remedy="capture the model with example inputs, or use the option quantizer='dynamic'",
        )
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Examples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            arrays = [t.detach().cpu().contiguous().numpy() for t in examples]
            self._left = [dict(zip(names, arrays, strict=True))]

        def get_next(self) -> Any:
            return self._left.pop() if self._left else None

    with tempfile.TemporaryDirectory(prefix="hardpoint-ort-") as folder, _silent():
        source, target = Path(folder, "folded.onnx"), Path(folder, "quantized.onnx")
        _folded(_proto(model), source)
        quantize_static(
            source,
            target,
            Examples(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=not has_vnni(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept_in_float(onnx.load(source), examples),
        )
        return ir.serde.deserialize_model(onnx.load(target))


def half(model: Any) -> Any:
    """Arithmetic in float16; inputs and outputs keep their dtype."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _silent():
        made = convert_float_to_float16(_proto(model), keep_io_types=True)
    return ir.serde.deserialize_model(made)


def _proto(model: Any) -> Any:
    """Without what the exporter knew of shapes, which the quantizers take for the new model's."""
    made = ir.serde.serialize_model(model)
    del made.graph.value_info[:]
    return made


def _folded(model: Any, target: Path) -> None:
    """What is made of weights alone, made; and batch norms folded into convolutions, as each
    would get scales of its own.
    """
    ort = runtime()
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(target)
    settings.intra_op_num_threads = 1
    ort.InferenceSession(model.SerializeToString(), settings, providers=[CPU])
