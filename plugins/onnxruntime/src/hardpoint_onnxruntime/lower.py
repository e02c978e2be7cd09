"""From a segment to the ONNX model that runs it in the precision that was asked for."""

from __future__ import annotations

from torch.export import ExportedProgram

from hardpoint import CompileOptions, Device
from hardpoint_onnxruntime.export import Model, export, split
from hardpoint_onnxruntime.options import Options
from hardpoint_onnxruntime.origin import compile_error


def lower(
    program: ExportedProgram, device: Device, wanted: CompileOptions, options: Options
) -> tuple[Model, list[str], list[str]]:
    """The model, and the names of its inputs and outputs in the segment's order.

    :raises CompileError: no translation, or no such precision here.
    """
    if wanted.precision != "fp32":
        raise compile_error(
            f"the onnxruntime backend does not compute in {wanted.precision}",
            remedy="ask for precision 'fp32', or for another backend",
        )
    model = export(program)
    inputs = [str(value.name) for value in model.graph.inputs]
    outputs = [str(value.name) for value in model.graph.outputs]
    return split(model), inputs, outputs
