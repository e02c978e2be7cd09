"""What OpenVINO made of a model, read back from the compiled model."""

from __future__ import annotations

from collections import Counter

from hardpoint_openvino.runtime import ov

# Where a model's time goes; the arithmetic of these is the precision that it computes in.
_HEAVY = frozenset(
    {
        "Convolution", "Deconvolution", "FullyConnected", "MatMul", "Pooling", "RNNSeq", "RNNCell",
        "LSTMSequence", "LSTMCell", "GRUSequence", "ScaledDotProductAttention", "SDPA", "MHA",
        "MVN", "Softmax", "Eltwise", "Subgraph", "Interpolate", "EmbeddingBagSum", "RMS",
        "QKVProjection", "LLMMLP", "NormalizeL2", "Reduce", "Math", "DeformableConvolution", "RoPE",
    }
)  # fmt: skip
_QUANTIZED = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
_NARROW = (("f16", "fp16"), ("bf16", "bf16"))
_SETTINGS = {
    "threads": "INFERENCE_NUM_THREADS",
    "streams": "NUM_STREAMS",
    "performance_hint": "PERFORMANCE_HINT",
    "device": "EXECUTION_DEVICES",
    "precision_hint": "INFERENCE_PRECISION_HINT",
    "dynamic_quantization": "DYNAMIC_QUANTIZATION_GROUP_SIZE",
}


def facts(compiled: ov.CompiledModel, asked: str = "fp32") -> dict[str, object]:
    """JSON-serializable facts; see the README for each.

    :param asked: the precision that was compiled for: where weights alone are narrow, OpenVINO
        tells their type for the arithmetic's.
    """
    found: dict[str, object] = {"openvino": str(ov.get_version())}
    for name, setting in _SETTINGS.items():
        value = _ask(compiled, setting)
        if value is not None:
            found[name] = value
    counts = operations(compiled)
    found["operations"] = {kind: sum(by.values()) for kind, by in sorted(counts.items())}
    precision = _narrowest(counts)
    if asked in ("int8w", "int4w") and precision == "int8":
        precision = asked
    if precision:
        found["precision"] = precision
    return found


def _ask(compiled: ov.CompiledModel, setting: str) -> object:
    try:
        value = compiled.get_property(setting)
    except RuntimeError:  # another device's setting
        return None
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, ov.Type):
        return value.get_type_name()
    if isinstance(value, (list, tuple, set)):
        return ", ".join(str(v) for v in value)
    return str(value).rpartition(".")[2]


def operations(compiled: ov.CompiledModel) -> dict[str, Counter[str]]:
    """Precision -> layer type -> how many of the operations that compute run in it."""
    counts: dict[str, Counter[str]] = {}
    for node in compiled.get_runtime_model().get_ops():
        layer, precision = said(node, "layerType"), said(node, "runtimePrecision")
        if layer in _HEAVY:
            counts.setdefault(precision, Counter())[layer] += 1
    return counts


def said(node: ov.Node, name: str) -> str:
    """What a compiled model's operator says of itself; ``""``: nothing."""
    info = node.get_rt_info()
    return str(info[name].astype(str)) if name in info else ""


def _narrowest(counts: dict[str, Counter[str]]) -> str:
    """int8 where a multiplication of matrices runs in it, else the narrowest float; "": unknown."""
    for kind in ("i8", "u8"):
        if _QUANTIZED & set(counts.get(kind, ())):
            return "int8"
    for kind, precision in _NARROW:
        if counts.get(kind):
            return precision
    return "fp32" if counts.get("f32") else ""
