"""Rewrite a segment so that its linear layers and convolutions can be computed in int8.

torchao's PT2E flow with the x86 Inductor quantizer: batch norms folded into convolutions,
activations observed on the examples (or scaled anew in each call), weights rounded to int8 with a
scale for each output. The graph then says so in ``quantize`` and ``dequantize`` operators around
each layer, which Inductor with freezing replaces by oneDNN's int8 kernels.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from hardpoint_cpu import host, layers, torchao_weights
from hardpoint_cpu.executed import Executed
from hardpoint_cpu.origin import compile_error, in_words
from hardpoint_cpu.segment import Segment

_aten = torch.ops.aten
# The quantizer knows layers by what they were called in Python; a program need not remember.
_CALLED = {
    _aten.conv2d.default: torch.nn.functional.conv2d,
    _aten.linear.default: torch.nn.functional.linear,
    _aten.relu.default: torch.nn.functional.relu,
    _aten.hardtanh.default: torch.nn.functional.hardtanh,
    _aten.hardswish.default: torch.nn.functional.hardswish,
    _aten.silu.default: torch.nn.functional.silu,
    _aten.gelu.default: torch.nn.functional.gelu,
    _aten.tanh.default: torch.tanh,
    _aten.add.Tensor: operator.add,
}
_LEAVES = "the x86 quantizer leaves this operator in floating point"


def to_int8(segment: Segment, examples: Sequence[torch.Tensor], scales: str | None) -> Segment:
    """``segment`` with its layers between quantization and dequantization.

    :param examples: inputs to observe on.
    :param scales: of activations: ``"static"``, ``"dynamic"``; ``None``: static if there is a
        convolution, which has no dynamic kernel, else dynamic.
    :raises CompileError: torchao is missing, another processor, or no examples to observe.
    """
    if host.machine() not in ("x86_64", "AMD64"):
        raise compile_error(
            "the cpu backend computes in int8 on x86-64 only",
            cause=f"this processor is {host.machine()}",
            remedy="ask for precision 'bf16' or 'int8w', or for another backend",
        )
    torchao_weights.require("int8")
    module = _module(segment)
    found = [layers.layer(node, segment.weights) for node in module.graph.nodes]
    kinds = {layer.kind for layer in found if layer is not None and layer.kind != "embedding"}
    if not kinds:
        return segment
    dynamic = scales == "dynamic" or (scales is None and kinds == {"linear"})
    if not examples:  # with dynamic scales, too: a weight is observed when it is used
        raise compile_error(
            "int8 needs examples of the segment's inputs",
            cause="the ranges of its weights and activations are observed on them",
            remedy="capture with example inputs",
        )
    try:
        converted = _quantize(module, examples, dynamic=dynamic)
    except Exception as error:
        raise compile_error(
            "the segment cannot be quantized to int8",
            cause=in_words(error),
            remedy="use precision 'int8w' or 'bf16' for this segment",
        ) from error
    return _segment(segment, converted)


def _module(segment: Segment) -> GraphModule:
    """The segment for the quantizer: it asks each node what it was called, and for its value."""
    root = torch.nn.Module()
    for attribute, (_, tensor) in segment.weights.items():
        if attribute in segment.parameters:  # batch norms are folded into these
            setattr(root, attribute, torch.nn.Parameter(tensor.detach(), requires_grad=False))
        else:
            root.register_buffer(attribute, tensor.detach())
    for attribute, sub in segment.subgraphs.items():
        setattr(root, attribute, sub)
    graph = Graph()
    graph.output(graph.graph_copy(segment.graph, {}))
    for node in graph.nodes:
        layer = layers.layer(node, segment.weights)
        if layer is not None and layer.transposed and _is_vector(layer.bias):
            _as_linear(graph, root, layer)
    for node in graph.nodes:
        called = _CALLED.get(node.target) if node.op == "call_function" else None
        node.meta = {"val": node.meta.get("val"), "source_fn_stack": [(node.name, called)]}
    return GraphModule(root, graph)


def _is_vector(bias: Node | None) -> bool:
    return bias is None or bias.meta["val"].dim() == 1


def _as_linear(graph: Graph, root: torch.nn.Module, layer: layers.Layer) -> None:
    """``x @ weight`` as the linear layer that the quantizer knows."""
    attribute = f"{layer.weight}_t"
    if not hasattr(root, attribute):
        turned = getattr(root, layer.weight).detach().t().contiguous()
        setattr(root, attribute, torch.nn.Parameter(turned, requires_grad=False))
    with graph.inserting_before(layer.node):
        weight = graph.get_attr(attribute)
        weight.meta["val"] = layer.node.meta["val"].new_empty(getattr(root, attribute).shape)
        made = graph.call_function(_aten.linear.default, (layer.input, weight, layer.bias))
    made.meta = dict(layer.node.meta)
    layer.node.replace_all_uses_with(made)
    graph.erase_node(layer.node)


def _quantize(module: GraphModule, examples: Sequence[torch.Tensor], *, dynamic: bool) -> Any:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    # Without VNNI, sums of products of eight bits overflow sixteen.
    narrow = not host.has_vnni()
    quantizer.set_global(
        x86.get_default_x86_inductor_quantization_config(is_dynamic=dynamic, reduce_range=narrow)
    )
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        prepared = prepare_pt2e(module, quantizer)
        prepared(*(tensor.clone() for tensor in examples))
        return convert_pt2e(prepared)


def _segment(source: Segment, converted: GraphModule) -> Segment:
    """What the quantizer made, as a segment: weights named after those that they were made of."""
    made = Segment(Graph(), subgraphs=source.subgraphs, executed=Executed(vnni=host.has_vnni()))
    named = _names(source, converted.graph)
    for node in converted.graph.nodes:
        attribute = str(node.target)
        if node.op == "get_attr" and attribute not in source.subgraphs:
            tensor = getattr(converted, attribute).detach()
            made.weights[attribute] = (named[attribute], tensor)
            if attribute in source.parameters:
                made.parameters.add(attribute)
    made.graph.output(made.graph.graph_copy(converted.graph, {}))
    for node in made.graph.nodes:
        layer = layers.layer(node, made.weights)
        if layer is None or layer.kind == "embedding":
            continue
        if _is_dequantized(node.args[0]) and _is_dequantized(node.args[1]):
            made.executed.count("int8")
        else:
            made.executed.float_nodes[node.name] = _LEAVES
    if made.executed.quantized:
        made.executed.precision = "int8"
    return made


def _is_dequantized(value: object) -> bool:
    return isinstance(value, Node) and "dequantize_per" in str(value.target)


def _names(source: Segment, graph: Graph) -> dict[str, str]:
    """Each tensor of the quantized graph -> its name in the artifact, no two alike."""
    before = {node.name: node for node in source.graph.nodes}
    named: dict[str, str] = {}
    taken: set[str] = set()
    for node in graph.nodes:
        if node.op != "get_attr" or str(node.target) in named:
            continue
        attribute = str(node.target)
        name = _name(node, source, before)
        while name in taken:
            name += "+"
        named[attribute] = name
        taken.add(name)
    return named


def _name(node: Node, source: Segment, before: dict[str, Node]) -> str:
    attribute = str(node.target)
    if attribute in source.weights and not attribute.startswith("_"):
        return source.weights[attribute][0]
    user = next(iter(node.users), None)
    product = next(iter(user.users), None) if _is_dequantized(user) and user else None
    was = before.get(product.name) if product is not None else None
    layer = None if was is None else layers.layer(was, source.weights)
    if layer is not None and layer.weight and user is not None:
        place = list(user.args).index(node)
        return source.weights[layer.weight][0] + ("@int8", "@int8-scale", "@int8-zero")[place]
    base = attribute.removesuffix("_bias")
    return f"{source.weights[base][0]}@bias" if base in source.weights else f"int8{attribute}"
