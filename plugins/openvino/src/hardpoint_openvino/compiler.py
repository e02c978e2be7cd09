"""From a segment to an artifact."""

from __future__ import annotations

import hashlib
from typing import Any

from torch.export import ExportedProgram

from hardpoint import Artifact, CompileOptions, Device
from hardpoint_openvino import sdk, stored
from hardpoint_openvino.convert import convert
from hardpoint_openvino.exact import as_in_pytorch
from hardpoint_openvino.folding import fold
from hardpoint_openvino.options import Options
from hardpoint_openvino.origin import compile_error, in_words
from hardpoint_openvino.planar import compile_planar
from hardpoint_openvino.program import decompose, take_apart
from hardpoint_openvino.quantize import QUANTIZED, quantize
from hardpoint_openvino.runtime import ov

FORMAT = "hardpoint-openvino/1"
BLOB = "model.blob"
_NEEDS = {"bf16": "BF16", "fp16": "FP16", "int8": "INT8"}


def compile_segment(
    program: ExportedProgram, device: Device, asked: CompileOptions, options: Options
) -> Artifact:
    """The segment as a model, weights beside it.

    :raises CompileError: with the reason in words.
    """
    problem = sdk.unknown(device)
    if problem:
        raise compile_error(problem[0], remedy=problem[1])
    name = device.id
    options.check(asked.precision)
    for precision in (asked.precision, options.floats):
        _check_precision(precision, name)
    source = take_apart(decompose(program))
    model = convert(source)
    as_in_pytorch(model, holds_nan=asked.precision != "int8")
    if asked.precision in QUANTIZED:
        model = quantize(model, asked.precision, asked.example_inputs, options)
    elif options.fold:
        model = fold(model, [tensor for _, tensor in source.weights.values()])
    settings = options.settings(asked.precision, sdk.settable(name))

    def compiling(made: ov.Model) -> ov.CompiledModel:
        return compile_model(made, name, settings)

    if name == "CPU":
        model, compiled = compile_planar(model, compiling)
    else:
        compiled = compiling(model)
    files: dict[str, bytes] = {}
    if options.blob:
        files[BLOB] = _blob(compiled)
    del compiled
    written, weights, facts = stored.write(model, source.weights)
    files |= written
    metadata: dict[str, Any] = {
        "device": name,
        "host": host_facts(name),
        "precision": asked.precision,
        "settings": settings,
        "weights": facts,
        "indices": source.indices,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    return Artifact(FORMAT, files, weights, metadata)


def host_facts(device: str) -> dict[str, object]:
    """What a compiled blob is tied to: OpenVINO's build and the processor."""
    return {
        "openvino": sdk.version(),
        "device": sdk.full_name(device),
        "instructions": sorted(sdk.capabilities(device)),
    }


def _check_precision(precision: str, device: str) -> None:
    """Refuse an arithmetic that the device does not have, which OpenVINO would widen in silence."""
    needed = _NEEDS.get(precision)
    has = sdk.capabilities(device)
    if needed and needed not in has:
        raise compile_error(
            f"{device} ({sdk.full_name(device)}) does not compute in {precision}",
            cause=f"it computes in {', '.join(has)}",
            remedy="ask for another precision or device",
        )


def compile_model(model: ov.Model, device: str, settings: dict[str, object]) -> ov.CompiledModel:
    """``model`` compiled by the device's plugin.

    :raises CompileError: it refuses, with its reason.
    """
    try:
        return sdk.core().compile_model(model, device, settings)
    except RuntimeError as error:
        raise compile_error(
            f"OpenVINO cannot compile the segment for {device}",
            cause=in_words(error),
            remedy="leave this target out of targets=, or report it to the plugin's author",
        ) from error


def _blob(compiled: ov.CompiledModel) -> bytes:
    return bytes(compiled.export_model().getvalue())
