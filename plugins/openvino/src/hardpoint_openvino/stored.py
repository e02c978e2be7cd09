"""A model as bytes and back, its weights beside it by name.

A constant that lies in the memory of one of the program's weights is written as a parameter
``weight:<i>``, so that a package stores the weight once for all its artifacts and its program, and
the model here computes on the package's own mapped memory.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hardpoint_openvino.origin import artifact_error, in_words
from hardpoint_openvino.runtime import op, ov
from hardpoint_openvino.sdk import core

XML, BIN = "model.xml", "model.bin"
_PREFIX = "weight:"
# Below this a constant may be a size or a scale that conversion and shapes depend on.
_LEAST_BYTES = 256
_AGAIN = "compile the segment again"


def write(
    model: ov.Model, weights: Mapping[str, tuple[str, torch.Tensor]]
) -> tuple[dict[str, bytes], dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Files, weights by the program's names, and the facts that bring them together again.

    ``model`` cannot be used afterwards.
    """
    lying = {t.data_ptr(): (name, t) for name, t in weights.values() if _fits(t)}
    kept: dict[str, torch.Tensor] = {}
    facts: list[dict[str, Any]] = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_byte_size() < _LEAST_BYTES:
            continue
        kind = node.get_output_element_type(0)
        name, tensor = lying.get(address(node), ("", None))
        if tensor is None or kind != ov.Type.f32 or node.get_byte_size() != tensor.nbytes:
            continue
        shape = list(node.get_output_shape(0))
        parameter = op.parameter(shape, kind, name=f"{_PREFIX}{len(facts)}")
        node.output(0).replace(parameter.output(0))
        model.add_parameters([parameter])
        kept[name] = tensor
        facts.append({"name": name, "shape": shape})
    with tempfile.TemporaryDirectory(prefix="hardpoint-openvino-") as folder:
        xml, data = Path(folder, XML), Path(folder, BIN)
        ov.serialize(model, xml, data)
        files = {XML: xml.read_bytes(), BIN: data.read_bytes()}
    return files, kept, facts


def _fits(tensor: torch.Tensor) -> bool:
    return tensor.dtype is torch.float32 and tensor.is_contiguous() and tensor.numel() > 0


def address(constant: ov.Node) -> int:
    """Where a constant's numbers lie."""
    found: int = constant.data.__array_interface__["data"][0]
    return found


def read(
    xml: bytes, data: bytes | memoryview, weights: Mapping[str, torch.Tensor], facts: Any
) -> tuple[ov.Model, list[Any]]:
    """The model that :func:`write` wrote, and what it computes on and must not outlive.

    :raises ArtifactError: damaged, or a weight is missing or another.
    """
    held: list[Any] = []
    try:
        model = core().read_model(xml, over(data))
        for parameter in list(model.get_parameters()):
            name = parameter.get_friendly_name()
            if name.startswith(_PREFIX):
                held.append(_array(facts[int(name.removeprefix(_PREFIX))], weights))
                constant = ov.op.Constant(held[-1], shared_memory=True)
                parameter.output(0).replace(constant.output(0))
                model.remove_parameter(parameter)
        model.validate_nodes_and_infer_types()
    except (RuntimeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise artifact_error(
            "the model in the artifact is damaged, or its weights are not all there",
            cause=in_words(error),
            remedy=_AGAIN,
        ) from error
    return model, held


def over(data: bytes | memoryview) -> ov.Tensor:
    """A tensor over the bytes where they lie; an empty file is one byte that nothing reads.

    By way of PyTorch, since OpenVINO wants numpy's leave to write, which it does not make use of.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the buffer is read-only
        array = torch.frombuffer(data if len(data) else b"\0", dtype=torch.uint8).numpy()
    return ov.Tensor(array, shared_memory=True)


def _array(fact: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> Any:
    tensor = weights[str(fact["name"])].detach()
    if tensor.dtype is not torch.float32:
        raise ValueError(f"weight {fact['name']!r} is {tensor.dtype}, not float32")
    return tensor.contiguous().numpy().reshape(fact["shape"])
