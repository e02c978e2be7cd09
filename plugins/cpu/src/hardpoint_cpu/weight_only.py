"""Rewrite a segment so that its linear layers and embeddings hold their weights in int8 or int4.

The arithmetic is bfloat16's (``precision`` comes after this pass): PyTorch's kernels that read
packed weights are fast for that one alone (measured: 150 times slower in float32).

- ``int8w``: a scale for each row. An embedding and the output layer that shares its matrix share
  the integers, too.
- ``int4w``: a scale and a zero point for each group of columns. Embeddings, matrices shared with
  one, and those of shapes that the kernel does not take, are held in int8.
- Layers of other kinds (convolutions, recurrent ones) stay as they are, and ``Executed`` names
  them with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.fx import Graph, Node

from hardpoint_cpu import fakes, layers, torchao_weights
from hardpoint_cpu.executed import Executed
from hardpoint_cpu.layers import Layer
from hardpoint_cpu.segment import Segment

_aten = torch.ops.aten
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_INT4_ROWS = 16  # the kernel takes multiples of it
_INT8_COLUMNS = 16  # torch 2.13: a segmentation fault for others
_ELSE = "there are weight-only kernels for linear layers and embeddings only"


def to_weight_only(segment: Segment, precision: str, group_size: int) -> Segment:
    """``segment`` with quantized weights; what it then holds stands in its ``executed``.

    :param precision: ``"int8w"`` or ``"int4w"``.
    :raises CompileError: torchao is not installed.
    """
    torchao_weights.require(precision)
    return _Rewriter(segment, precision, group_size).run()


@dataclass
class _Rewriter:
    source: Segment
    precision: str
    group_size: int
    made: Segment = field(init=False)
    shared: set[str] = field(init=False)  # weights that an embedding uses
    held: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def run(self) -> Segment:
        graph = Graph()
        graph.output(graph.graph_copy(self.source.graph, {}))
        self.made = replace(
            self.source,
            graph=graph,
            weights=dict(self.source.weights),
            parameters=set(self.source.parameters),
            executed=Executed(),
        )
        nodes = list(graph.nodes)
        found = filter(None, (layers.layer(node, self.source.weights) for node in nodes))
        self.shared = {layer.weight for layer in found if layer.kind == "embedding"}
        for node in nodes:  # asked again: its inputs may have been replaced
            layer = layers.layer(node, self.source.weights)
            if layer is not None:
                self._layer(layer)
        graph.eliminate_dead_code(layers.must_stay)
        self.made.drop_unused_weights()
        said = self.made.executed
        said.precision = next(
            (p for p in ("int4", "int8") if said.quantized.get(p)), ""
        ) + "w" if said.quantized else "fp32"  # fmt: skip
        return self.made

    def _layer(self, layer: Layer) -> None:
        reason = self._stays(layer)
        if reason:
            self.made.executed.float_nodes[layer.node.name] = reason
            return
        kind = self._kind(layer)
        graph, node = self.made.graph, layer.node
        with graph.inserting_before(node):
            values, scales = self._held(layer, kind)
            if layer.kind == "embedding":
                result = self._embedding(layer, values, scales)
            else:
                result = self._linear(layer, kind, values, scales)
        node.replace_all_uses_with(result)
        graph.erase_node(node)
        self.made.executed.count(kind)

    def _stays(self, layer: Layer) -> str:
        """Why a layer stays in floating point, or ``""``."""
        if layer.kind not in ("linear", "embedding"):
            return _ELSE
        if not layer.weight:
            return "its weight is computed, not a constant"
        tensor = self.source.weights[layer.weight][1]
        if tensor.dtype not in _FLOATS:
            return f"its weight is {str(tensor.dtype).removeprefix('torch.')}"
        if tensor.dim() != 2 or tensor.numel() == 0:
            return f"its weight is of the shape {list(tensor.shape)}"
        if not torch.isfinite(tensor).all():
            return "its weight holds NaN or infinity"
        return ""

    def _kind(self, layer: Layer) -> str:
        if self.precision == "int8w" or layer.weight in self.shared:
            return "int8"
        columns, rows = layer.shape(self.source.weights)
        return "int4" if columns % self.group_size == 0 and rows % _INT4_ROWS == 0 else "int8"

    def _held(self, layer: Layer, kind: str) -> tuple[Node, Node]:
        """The quantized weight and its scales, made once for all layers that use it."""
        padding = 0 if layer.kind == "embedding" else self._padding(layer)
        way = f"{'@t' if layer.transposed else ''}{f'@{padding}' if padding else ''}"
        key = (layer.weight, f"{kind}{way}")
        if key not in self.held:
            name, tensor = self.source.weights[layer.weight]
            tensor = tensor.detach().t() if layer.transposed else tensor.detach()
            tensor, name = torch.nn.functional.pad(tensor, (0, padding)), f"{name}{way}"
            if kind == "int4":
                values, scales = torchao_weights.int4_groups(tensor, self.group_size)
                self.made.executed.int4_layout = torch.backends.cpu.get_cpu_capability()
                name = f"{name}@int4-{self.group_size}"
            else:
                values, scales = torchao_weights.int8_rows(tensor)
                name = f"{name}@int8"
            self.held[key] = (
                self.made.add_weight(name, values),
                self.made.add_weight(f"{name}-scale", scales, parameter=True),
            )
        mode = fakes.fake_mode(layer.node.meta["val"])
        first, second = (
            fakes.weight(self.made.graph, a, self.made.weights[a][1], mode) for a in self.held[key]
        )
        return first, second

    def _padding(self, layer: Layer) -> int:
        """Columns of zeros to add: the int8 kernel reads past the end of what is not a multiple."""
        return -layer.shape(self.source.weights)[0] % _INT8_COLUMNS

    def _call(self, layer: Layer, target: Any, *args: Any, **kwargs: Any) -> Node:
        return fakes.call(self.made.graph, target, args, kwargs, layer.node, self.precision)

    def _embedding(self, layer: Layer, values: Node, scales: Node) -> Node:
        dtype = fakes.dtype_of(layer.node)
        rows = self._call(layer, _aten.embedding.default, values, layer.input)
        rows = self._call(layer, _aten._to_copy.default, rows, dtype=dtype)
        scale = self._call(layer, _aten.index.Tensor, scales, [layer.input])
        scale = self._call(layer, _aten.unsqueeze.default, scale, -1)
        return self._call(layer, _aten.mul.Tensor, rows, scale)

    def _linear(self, layer: Layer, kind: str, values: Node, scales: Node) -> Node:
        columns, rows = layer.shape(self.source.weights)
        x = layer.input
        leading = list(x.meta["val"].shape[:-1])
        flat = len(leading) != 1
        if flat:
            x = self._call(layer, _aten.reshape.default, x, [-1, columns])
        if padding := self._padding(layer):
            x = self._call(layer, _aten.constant_pad_nd.default, x, [0, padding])
        x = self._call(layer, _aten.contiguous.default, x)
        if kind == "int4":
            group = self.group_size
            y = self._call(
                layer, _aten._weight_int4pack_mm_for_cpu.default, x, values, group, scales
            )
        else:
            y = self._call(layer, _aten._weight_int8pack_mm.default, x, values, scales)
        if flat:
            sizes = [self._size(layer, i, size) for i, size in enumerate(leading)]
            y = self._call(layer, _aten.reshape.default, y, [*sizes, rows])
        return y if layer.bias is None else self._call(layer, _aten.add.Tensor, y, layer.bias)

    def _size(self, layer: Layer, dim: int, size: int | torch.SymInt) -> int | Node:
        if isinstance(size, int):
            return size
        made = self.made.graph.call_function(_aten.sym_size.int, (layer.input, dim))
        made.meta["val"] = size
        return made
