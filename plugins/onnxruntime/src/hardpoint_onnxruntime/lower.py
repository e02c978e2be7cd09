"""From a segment to the ONNX model that runs it in the precision that was asked for."""

from __future__ import annotations

from typing import Any

from torch.export import ExportedProgram

from hardpoint import CompileError, CompileOptions, Device
from hardpoint_onnxruntime.export import Model, export, split
from hardpoint_onnxruntime.options import Options
from hardpoint_onnxruntime.origin import compile_error, in_words
from hardpoint_onnxruntime.providers import CPU
from hardpoint_onnxruntime.slices import Part, by_slices

BITS = {"int8w": 8, "int4w": 4}
# Options that change something in these precisions only.
_NEED = {"quantizer": ("int8",), "activations": tuple(BITS), "block": tuple(BITS)}
_DEFAULTS = Options()


def lower(
    program: ExportedProgram, device: Device, wanted: CompileOptions, options: Options
) -> tuple[Model, list[tuple[str, list[Part]]], list[str]]:
    """The model, and the names of its inputs and outputs in the segment's order.

    An input of which the model takes parts only comes with those.

    :raises CompileError: no translation, or no such precision here.
    """
    _refuse(device, wanted.precision, options)
    model = export(program, repaired=wanted.precision != "int8")
    inputs = [str(value.name) for value in model.graph.inputs]
    outputs = [str(value.name) for value in model.graph.outputs]
    try:
        narrowed = _narrowed(model, wanted, options)
        slices: dict[str, list[Part]] = {}
        if device.properties["provider"] == CPU:  # others may ask for aligned addresses
            slices = by_slices(narrowed, wanted.example_inputs)
        made = split(narrowed)
    except CompileError:
        raise
    except Exception as error:  # of ONNX Runtime's quantizers, or of what holds 2 GB at most
        raise compile_error(
            f"the segment cannot be made {wanted.precision}",
            cause=in_words(error),
            remedy="ask for another precision, or leave this target out of targets=",
        ) from error
    return made, [(name, slices.get(name, [])) for name in inputs], outputs


def _narrowed(model: Any, wanted: CompileOptions, options: Options) -> Any:
    if wanted.precision == "fp32":
        return model
    from hardpoint_onnxruntime import quantize  # not above: half a second to import

    if wanted.precision == "fp16":
        return quantize.half(model)
    if wanted.precision in BITS:
        return quantize.weight_only(model, BITS[wanted.precision], options)
    way = options.quantizer
    if way == "auto":
        way = "static" if quantize.is_convolutional(model) else "dynamic"
    if way == "static":
        return quantize.static(model, wanted.example_inputs)
    return quantize.dynamic(model)


def _refuse(device: Device, precision: str, options: Options) -> None:
    for name, needed in _NEED.items():
        if getattr(options, name) != getattr(_DEFAULTS, name) and precision not in needed:
            raise compile_error(
                f"option {name} has no meaning in precision {precision}",
                remedy=f"leave it out, or ask for precision {' or '.join(needed)}",
            )
    if precision == "bf16":
        raise compile_error(
            "the onnxruntime backend does not compute in bf16",
            cause="its providers have few kernels for it, and cast around them",
            remedy="ask for another precision, or for another backend",
        )
    if precision == "fp16" and device.properties["provider"] == CPU:
        raise compile_error(
            "ONNX Runtime's CPU provider does not compute in fp16",
            cause="it casts to float32 before each operator and back after it",
            remedy="ask for fp32, which is faster here, or for int8; or for another backend",
        )
