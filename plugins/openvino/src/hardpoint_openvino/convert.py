"""A program as an ``openvino.Model``, whole or as far as the front end can take it.

By the PyTorch front end that ``openvino.convert_model`` uses, called directly: ``convert_model``
also reports each use to its makers over the network, and folds weights into others that a package
could not share: see folding.py.
"""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch.fx import GraphModule

from hardpoint_openvino.origin import compile_error, in_words
from hardpoint_openvino.program import Source
from hardpoint_openvino.recurrent import join
from hardpoint_openvino.runtime import op, ov

TYPES: dict[torch.dtype, ov.Type] = {
    torch.float32: ov.Type.f32,
    torch.float16: ov.Type.f16,
    torch.bfloat16: ov.Type.bf16,
    torch.int64: ov.Type.i64,
    torch.int32: ov.Type.i32,
    torch.int16: ov.Type.i16,
    torch.int8: ov.Type.i8,
    torch.uint8: ov.Type.u8,
    torch.bool: ov.Type.boolean,
}


def _decoder(module: GraphModule) -> Any:
    """The front end's reader of an FX graph, told the dtype and the sizes of each input.

    Left to itself it makes every size dynamic (research/backends.md, section 1.1).
    """
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    values = [n.meta["val"] for n in module.graph.nodes if n.op == "placeholder"]
    shapes = [[d if isinstance(d, int) else -1 for d in value.shape] for value in values]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TorchFXPythonDecoder(
            module, input_shapes=shapes, input_types=[value.dtype for value in values]
        )


def _front_end() -> Any:
    from openvino.frontend import FrontEndManager

    return FrontEndManager().load_by_framework("pytorch")


def convert(source: Source) -> ov.Model:
    """The model, with static sizes static and dynamic ones in their ranges.

    :raises CompileError: the front end refuses it, with its reason.
    """
    decoder = _decoder(source.module)  # must outlive the model
    front_end = _front_end()
    try:
        model = _with_all_inputs(front_end.convert(front_end.load(decoder)), source.module)
        if source.cuts:
            join(model, source.cuts, len(source.ranges), source.outputs)
        shapes = {}
        for port, limits in zip(model.inputs, source.ranges, strict=True):
            shapes[port] = ov.PartialShape(
                [ov.Dimension(low, -1 if high is None else high) for low, high in limits]
            )
        if shapes:
            model.reshape(shapes)
    except Exception as error:
        raise compile_error(
            "OpenVINO cannot convert the segment",
            cause=in_words(error),
            remedy="leave this target out of targets=, or report it to the plugin's author",
        ) from error
    for port, node in zip(model.inputs, source.inputs(), strict=False):  # recurrent ones follow
        want = TYPES[node.meta["val"].dtype]
        if port.get_element_type() != want:
            raise compile_error(
                f"OpenVINO takes input {node.name!r} as {port.get_element_type()}, not {want}"
            )
    return model


def _with_all_inputs(model: ov.Model, module: GraphModule) -> ov.Model:
    """``model`` with an input for each of ``module``'s, in order.

    The front end leaves out an input that only its size was needed of.
    """
    found = {name: p for p in model.get_parameters() for name in p.output(0).get_names()}
    names = list(inspect.signature(module.forward).parameters)
    if len(found) == len(names):
        return model
    values = [n.meta["val"] for n in module.graph.nodes if n.op == "placeholder"]
    ordered = []
    for name, value in zip(names, values, strict=True):
        if name not in found:
            shape = ov.PartialShape([d if isinstance(d, int) else -1 for d in value.shape])
            found[name] = op.parameter(shape, TYPES[value.dtype], name=name)
            found[name].output(0).set_names({name})
        ordered.append(found[name])
    return ov.Model(model.get_results(), ordered, model.get_friendly_name())


def not_converted(module: GraphModule) -> dict[str, str]:
    """The names of ``module``'s nodes that the front end leaves as they are -> its reason."""
    decoder = _decoder(module)  # must outlive the model
    front_end = _front_end()
    partial = front_end.convert_partially(front_end.load(decoder))
    found = {}
    for operation in partial.get_ordered_ops():
        if operation.get_type_name() == "PtFrameworkNode":
            name = operation.get_friendly_name().split("/")[0]
            attributes = operation.get_attrs() if hasattr(operation, "get_attrs") else {}
            found[name] = str(dict(attributes).get("PtException", "")).strip()
    return found
