"""The artifact: an ONNX model, the weights by name, and what it was made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hardpoint import Artifact, Device
from hardpoint_onnxruntime.executable import ELEMENTS, ONNX_TYPES, OrtExecutable, Port, to_ort
from hardpoint_onnxruntime.options import Options
from hardpoint_onnxruntime.origin import artifact_error, in_words
from hardpoint_onnxruntime.placement import placed, precision_of, refuse_elsewhere
from hardpoint_onnxruntime.providers import has_vnni
from hardpoint_onnxruntime.session import open_session, runtime, session_options

if TYPE_CHECKING:
    from hardpoint_onnxruntime.export import Model

FORMAT = "hardpoint-onnxruntime/1"
FILE = "model.onnx"
_AGAIN = "compile the segment again for this device"
_NAMES = {str(d).removeprefix("torch."): d for d in ELEMENTS}


def pack(
    model: Model,
    device: Device,
    precision: str,
    options: Options,
    inputs: list[Port],
    outputs: list[Port],
) -> Artifact:
    """``model`` as an artifact for ``device``."""
    return Artifact(
        FORMAT,
        files={FILE: model.graph},
        weights=model.weights,
        metadata={
            "onnxruntime": runtime().__version__,
            "provider": device.properties["provider"],
            "device": device.id,
            "precision": precision,
            "full_bytes": precision == "int8" and has_vnni(),
            "options": options.to_json(),
            "external": sorted(model.weights),
            "inputs": [_told(port) for port in inputs],
            "outputs": [_told(port) for port in outputs],
        },
    )


def _told(port: Port) -> list[object]:
    slices = [list(part) for part in port.slices]
    return [port.name, str(port.dtype).removeprefix("torch."), *([slices] if slices else [])]


def load(artifact: Artifact, device: Device) -> OrtExecutable:
    """Open an artifact.

    :raises ArtifactError: another provider or version, damaged, or the provider does not start.
    """
    facts = artifact.metadata
    _check(facts, device)
    if FILE not in artifact.files:
        raise artifact_error(f"the artifact has no file {FILE!r}", remedy=_AGAIN)
    try:
        options = Options.parse(_mapping(facts, "options"))
        inputs, outputs = _ports(facts, "inputs"), _ports(facts, "outputs")
    except (TypeError, ValueError, KeyError) as error:
        raise artifact_error(
            "the artifact's metadata are damaged", cause=in_words(error), remedy=_AGAIN
        ) from error
    weights = _weights(artifact)
    name = str(device.properties["provider"])
    settings = session_options(options, options.threads or torch.get_num_threads(), name)
    held = [to_ort(weight) for weight in weights.values()]
    if held:
        settings.add_external_initializers(list(weights), held)
    try:
        session = open_session(bytes(artifact.files[FILE]), settings, device)
    except Exception as error:
        raise artifact_error(
            f"ONNX Runtime does not open the model on {name}",
            cause=in_words(error),
            remedy="get the package again from its source, compile the segment again, or allow "
            "nodes on the CPU with the option cpu_nodes",
        ) from error
    _compare(session, inputs, outputs)
    where = placed(session)
    refuse_elsewhere(where, name, options)
    kind, _, index = device.torch_device.partition(":")
    rounded = any(weight.dtype is torch.int8 for weight in weights.values())
    precision = precision_of(where, str(facts.get("precision")), rounded=rounded)
    told = {
        **({"precision": precision} if precision else {}),
        "providers": {ep: len(nodes) for ep, nodes in where.items()},
        "fallback_nodes": sorted(n for ep, nodes in where.items() if ep != name for n, _ in nodes),
        "operators": _counted(where),
        "threads": settings.intra_op_num_threads,
        "spinning": options.spinning,
        "onnxruntime": runtime().__version__,
    }
    return OrtExecutable(session, [weights, held], inputs, outputs, (kind, int(index or 0)), told)


def _counted(where: Mapping[str, list[tuple[str, str]]]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for nodes in where.values():
        for _, kind in nodes:
            counted[kind] = counted.get(kind, 0) + 1
    return dict(sorted(counted.items()))


def _check(facts: Mapping[str, object], device: Device) -> None:
    made, here = facts.get("onnxruntime"), runtime().__version__
    if made != here:
        raise artifact_error(
            "the artifact was compiled for another version of ONNX Runtime",
            cause=f"it was tried and verified with {made}, this is {here}",
            remedy=_AGAIN,
        )
    provider = facts.get("provider")
    if provider != device.properties["provider"]:
        raise artifact_error(
            "the artifact was compiled for another execution provider",
            cause=f"it was compiled for {provider}, {device.id} is {device.properties['provider']}",
            remedy=_AGAIN,
        )
    if facts.get("full_bytes") and not has_vnni():
        raise artifact_error(
            "the artifact's int8 numbers are for a processor with VNNI",
            cause="this processor adds up products of bytes in 16 bits, where eight-bit weights "
            "overflow; seven-bit ones do not",
            remedy=_AGAIN,
        )


def _mapping(facts: Mapping[str, object], name: str) -> Mapping[str, Any]:
    found = facts.get(name)
    if not isinstance(found, Mapping):
        raise TypeError(f"it has no {name}")
    return found


def _ports(facts: Mapping[str, object], name: str) -> list[Port]:
    found = facts.get(name)
    if not isinstance(found, (list, tuple)):
        raise TypeError(f"it has no {name}")
    ports = [_port(*told) for told in found]
    if name == "outputs" and any(port.slices for port in ports):
        raise ValueError("a result in parts")
    return ports


def _port(name: object, dtype: str, slices: Sequence[tuple[int, int, object]] = ()) -> Port:
    parts = []
    for start, count, part in slices:
        if type(start) is not int or type(count) is not int or start < 0 or count < 0:
            raise ValueError(f"part {start!r}, {count!r}")
        parts.append((start, count, str(part)))
    return Port(str(name), _NAMES[dtype], tuple(parts))


def _weights(artifact: Artifact) -> dict[str, torch.Tensor]:
    wanted = artifact.metadata.get("external")
    names = [str(name) for name in wanted] if isinstance(wanted, (list, tuple)) else []
    missing = [name for name in names if name not in artifact.weights]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise artifact_error(
            f"the artifact lacks the weight {missing[0]!r}{more}",
            remedy="load it together with the weights that it was compiled with",
        )
    return {name: artifact.weights[name].detach().contiguous() for name in names}


def _bound(port: Port) -> list[str]:
    return [name for _, _, name in port.slices] or [port.name]


def _compare(session: Any, inputs: list[Port], outputs: list[Port]) -> None:
    """The model takes and gives what the metadata say: calls hand it pointers."""
    for what, ports, found in (
        ("takes", inputs, session.get_inputs()),
        ("gives", outputs, session.get_outputs()),
    ):
        names = [(name, p.dtype) for p in ports for name in _bound(p)]
        told = [(name, ELEMENTS[dtype]) for name, dtype in names]
        got = [(f.name, ONNX_TYPES.get(f.type)) for f in found]
        if told != got:
            raise artifact_error(
                "the model and the artifact's metadata do not belong together",
                cause=f"the model {what} {got}, the metadata say {told}",
                remedy=_AGAIN,
            )
