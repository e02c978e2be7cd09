"""A segment as an ONNX model and, beside it, its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from hardpoint_onnxruntime import exporter
from hardpoint_onnxruntime.origin import compile_error, in_words

# Smaller tensors stay in the model: shapes and axes are read when it is optimized.
_INSIDE = 1024  # bytes
LOCATION = "weights"  # no such file: ONNX Runtime is handed each of them by name


@dataclass(frozen=True, slots=True)
class Model:
    """An ONNX model.

    :param graph: the file's bytes; large initializers are external.
    :param weights: those, by their names in the model.
    """

    graph: bytes
    weights: Mapping[str, torch.Tensor]


def export(program: ExportedProgram, *, repaired: bool = True) -> Any:
    """``program`` as an ``onnx_ir.Model`` with the weights where they lie.

    :param repaired: NaN is kept where ONNX Runtime would lose it: see repairs.py.

    :raises CompileError: it is not a segment as the contract says, or has no translation.
    """
    for result in program.graph_signature.output_specs:
        if result.kind is not OutputKind.USER_OUTPUT:
            kind = result.kind.name.lower().replace("_", " ")
            raise compile_error(
                f"output {result.arg.name!r} is a {kind}",
                cause="ONNX has no state: the exporter would freeze it in silence",
                remedy="compile through hardpoint.compile, which keeps state outside of segments",
            )
    try:
        model = exporter.translate(exporter.decompose(program), repaired=repaired)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise compile_error(
            "PyTorch's ONNX exporter cannot translate the segment",
            cause=in_words(cause),
            remedy="leave some of it to another target, or report it to the plugin's author",
        ) from error
    specs = program.graph_signature.input_specs
    wanted = sum(s.kind is InputKind.USER_INPUT for s in specs)
    results = len(program.graph_signature.output_specs)
    if (len(model.graph.inputs), len(model.graph.outputs)) != (wanted, results):
        raise compile_error(
            "PyTorch's ONNX exporter changed what goes in or out",
            cause=f"the segment has {wanted} inputs and {results} outputs, the ONNX model "
            f"{len(model.graph.inputs)} and {len(model.graph.outputs)}",
            remedy="report it to the plugin's author",
        )
    _own_outputs(model)
    _without_remarks(model)
    return model


def _without_remarks(model: Any) -> None:
    """Drop what the exporter noted for people: stack traces, with this machine's paths."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.doc_string = model.graph.doc_string = None
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        values += node.outputs
    for value in values:
        value.metadata_props.clear()


def _own_outputs(model: Any) -> None:
    """Each output a value of its own: ONNX Runtime binds by name, and hands out no weight."""
    import onnx_ir as ir

    graph = model.graph
    seen = {*graph.inputs, *graph.initializers.values()}
    for i, value in enumerate(graph.outputs):
        if value in seen:
            node = ir.node("Identity", [value])
            [made] = node.outputs
            made.name = f"result_{i}_of_{value.name}"
            made.type, made.shape = value.type, value.shape
            graph.append(node)
            graph.outputs[i] = made
        seen.add(graph.outputs[i])


def split(model: Any) -> Model:
    """The model with its large initializers taken out."""
    import onnx_ir as ir

    weights: dict[str, torch.Tensor] = {}
    for name, value in model.graph.initializers.items():
        held = value.const_value
        if held is None or held.nbytes <= _INSIDE:
            continue
        weights[name] = tensor_of(held)
        value.const_value = ir.ExternalTensor(
            LOCATION, 0, held.nbytes, held.dtype, shape=held.shape, name=name
        )
    return Model(exporter.serialized(model), weights)


def tensor_of(held: Any) -> torch.Tensor:
    """The tensor behind an initializer, not copied where it is PyTorch's."""
    raw = getattr(held, "raw", None)
    if isinstance(raw, torch.Tensor):
        return raw.detach()
    array = np.ascontiguousarray(held.numpy())
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
