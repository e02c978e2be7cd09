"""What Inductor really made of a graph's int8 layers, counted in its own graph.

The quantizer asks for integers; whether a layer gets an int8 kernel is decided by patterns in
Inductor, which leave what they do not know in floating point without a word.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.fx import Graph, Node

from hardpoint_cpu.executed import Executed

_FLOAT = {
    "aten": {"mm", "addmm", "bmm", "baddbmm", "convolution", "linear", "mkldnn_rnn_layer"},
    "mkldnn": {"_linear_pointwise", "_convolution_pointwise", "_convolution_pointwise_"},
    "mkl": {"_mkl_linear"},
}


class CompiledLayers(CustomGraphPass):
    """Looks at the graph after freezing, before it becomes code; changes nothing.

    :param quantized: layers that have an int8 kernel.
    :param floating: products by a constant that have none.
    """

    def __init__(self) -> None:
        self.quantized = 0
        self.floating: list[str] = []

    def __call__(self, graph: Graph) -> None:
        """Inductor calls it, once for each graph of a segment."""
        for node in graph.nodes:
            target = node.target
            if not isinstance(target, torch._ops.OpOverload):
                continue
            name = target._opname
            if target.namespace == "onednn" and name.startswith(("qlinear_point", "qconv")):
                self.quantized += "prepack" not in name
            elif name in _FLOAT.get(target.namespace, ()) and any(
                _is_constant(n) for n in node.all_input_nodes[1:]
            ):
                self.floating.append(f"{node.name} ({target})")

    def uuid(self) -> Any:
        """None: what this pass saw is not to be had from a cache."""
        return None

    def correct(self, executed: Executed) -> None:
        """Make ``executed`` say what was compiled instead of what was asked for."""
        if self.quantized < executed.quantized.get("int8", 0):
            for name in self.floating:
                executed.float_nodes.setdefault(name, "Inductor has no int8 kernel for it")
        executed.quantized = {"int8": self.quantized} if self.quantized else {}
        executed.precision = "int8" if self.quantized else "fp32"


def _is_constant(node: Node) -> bool:
    """Whether a value is a weight, or one seen through casts, views and dequantization."""
    while node.op == "call_function" and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node.op == "get_attr"
