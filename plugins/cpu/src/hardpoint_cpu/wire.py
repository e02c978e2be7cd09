"""The file ``graph.json``: a graph as data, bounded and without pickle.

One JSON object: ``format``, ``inputs`` (how many), ``weights`` (their names), ``ops`` (operator
names, each once), ``nodes`` (``[op, args]`` or ``[op, args, kwargs]``), ``outputs``, and
``graphs``: the sub-graphs of control flow, each an object of the same kind. Values are numbered:
first the inputs, then one for each node. Arguments are JSON values; what JSON lacks is an object
with one key, e.g. ``{"v": 7}`` (value 7), ``{"w": 0}`` (weight 0), ``{"dtype": "float32"}``. The
only device, ``{"device": "cpu"}``, stands for the one that the graph is read for.
PyTorch's own format holds the same facts; reading it costs far more, because it rebuilds symbolic
shapes that running does not need (measured: see the README).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from hardpoint_cpu.operators import Operators, UnknownOperatorError
from hardpoint_cpu.origin import compile_error
from hardpoint_cpu.segment import Segment

FORMAT = 1
FILE = "graph.json"
NAMED = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}


def encode(segment: Segment, operators: Operators) -> bytes:
    """``segment``'s graph as a file.

    :raises CompileError: it holds something that the format, or this backend, does not.
    """
    order = {attribute: i for i, attribute in enumerate(segment.weights)}
    data = _Writer(operators, order).graph(segment.graph, segment.subgraphs)
    data["format"] = FORMAT
    data["weights"] = [name for name, _ in segment.weights.values()]
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()


class _Writer:
    def __init__(self, operators: Operators, weights: Mapping[str, int]) -> None:
        self._operators = operators
        self._weights = weights

    def graph(self, graph: Graph, subgraphs: Mapping[str, GraphModule]) -> dict[str, Any]:
        """One graph, its sub-graphs inside."""
        numbers: dict[Node, dict[str, int]] = {}
        ops: dict[str, int] = {}
        nodes: list[list[Any]] = []
        graphs: list[dict[str, Any]] = []
        outputs: list[Any] = []
        for node in graph.nodes:
            if node.op == "placeholder":
                numbers[node] = {"v": len(numbers)}
        inputs = count = len(numbers)
        for node in graph.nodes:
            if node.op == "get_attr":
                target = str(node.target)
                if target in self._weights:
                    numbers[node] = {"w": self._weights[target]}
                else:
                    numbers[node] = {"g": len(graphs)}
                    graphs.append(self._sub(subgraphs[target]))
            elif node.op == "call_function":
                try:
                    op = ops.setdefault(self._operators.name(node.target), len(ops))
                    entry = [op, [self._argument(a, numbers) for a in node.args]]
                    if node.kwargs:
                        entry.append(
                            {k: self._argument(v, numbers) for k, v in node.kwargs.items()}
                        )
                except UnknownOperatorError as error:
                    raise compile_error(
                        f"node {node.name!r} cannot be compiled", cause=str(error)
                    ) from error
                numbers[node] = {"v": count}
                count += 1
                nodes.append(entry)
            elif node.op == "output":
                outputs = [self._argument(result, numbers) for result in node.args[0]]
        return {
            "inputs": inputs,
            "ops": list(ops),
            "nodes": nodes,
            "outputs": outputs,
            "graphs": graphs,
        }

    def _sub(self, module: GraphModule) -> dict[str, Any]:
        inner = {n: m for n, m in module.named_children() if isinstance(m, GraphModule)}
        return _Writer(self._operators, {}).graph(module.graph, inner)

    def _argument(self, value: Any, numbers: Mapping[Node, dict[str, int]]) -> Any:
        """One argument as JSON."""
        if isinstance(value, Node):
            return numbers[value]
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, complex):
            return {"complex": [repr(value.real), repr(value.imag)]}
        if isinstance(value, list):
            return [self._argument(v, numbers) for v in value]
        if isinstance(value, tuple):
            return {"tuple": [self._argument(v, numbers) for v in value]}
        if isinstance(value, dict):
            return {"dict": {str(k): self._argument(v, numbers) for k, v in value.items()}}
        if isinstance(value, torch.device):
            if value.type != "cpu":
                raise UnknownOperatorError(f"it asks for the device {value}")
            return {"device": "cpu"}
        for tag, kind in NAMED.items():
            if isinstance(value, kind):
                return {tag: str(value).removeprefix("torch.")}
        raise UnknownOperatorError(f"its argument {value!r} is a {type(value).__name__}")
