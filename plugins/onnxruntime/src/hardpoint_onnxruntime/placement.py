"""Where ONNX Runtime put the nodes, and what they compute in: read back from the session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hardpoint_onnxruntime.options import Options
from hardpoint_onnxruntime.origin import artifact_error
from hardpoint_onnxruntime.providers import CPU

Placement = Mapping[str, list[tuple[str, str]]]
_INT8 = frozenset(
    {
        "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul",
        "MatMulInteger", "MatMulIntegerToFloat", "QAttention", "QGemm", "QLinearAdd",
        "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    }
)  # fmt: skip


def placed(session: Any) -> dict[str, list[tuple[str, str]]]:
    """Execution provider -> (name, operator) of its nodes."""
    found: dict[str, list[tuple[str, str]]] = {}
    for group in session.get_provider_graph_assignment_info():
        nodes = found.setdefault(group.ep_name, [])
        nodes += [(node.name, node.op_type) for node in group.get_nodes()]
    return found


def precision_of(where: Placement, asked: str, *, rounded: bool = False) -> str:
    """The narrowest arithmetic among the operators that run; "" where they do not tell it.

    :param rounded: weights are held in bytes, which may be looked up and made wide by operators of
        float32 alone.

    Operators of float32 tell it of the CPU alone: an accelerator may round inside of its own.
    """
    kinds = {kind for nodes in where.values() for _, kind in nodes}
    if kinds & _INT8:
        return "int8"
    if "MatMulNBits" in kinds or asked == "fp16":
        return asked
    if rounded and asked != "fp32":
        return "int8w"
    return "fp32" if set(where) <= {CPU} else ""


def refuse_elsewhere(where: Placement, provider: str, options: Options) -> None:
    """Nodes on another provider than the device's are refused unless the caller allowed them.

    :raises ArtifactError: with some of their names.
    """
    others = {ep: nodes for ep, nodes in where.items() if ep != provider and nodes}
    if others and not options.cpu_nodes:
        count = sum(map(len, others.values()))
        shown = ", ".join(f"{n} ({k})" for nodes in others.values() for n, k in nodes[:4])
        raise artifact_error(
            f"{count} nodes of the segment would not run on {provider}",
            cause=f"ONNX Runtime put them on {', '.join(others)}: {shown}",
            remedy="leave them to another target, or allow it with the option cpu_nodes",
        )
