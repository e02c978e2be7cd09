"""Programs in a PT2 archive: ``torch.export.ExportedProgram`` in and out, never unpickled.

PyTorch opens what is written here (``torch.export.pt2_archive``'s ``load_pt2``), and programs that
``torch.export.save`` wrote can be read here, except where they hold pickles. ``load_pt2`` demands
an entry of pickled example inputs but accepts an empty one: so it is empty, and is never read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch.export import ExportedProgram

from hardpoint.errors import PackageError
from hardpoint.package import torch_serde
from hardpoint.package.archive import Archive
from hardpoint.package.pickles import CONSTANTS, MODELS, SAMPLES, WEIGHTS, programs, refuse_pickles
from hardpoint.package.refusal import MalformedError, refusing
from hardpoint.package.tensors import MappedTensors, Ref, TensorStore, tensor_from_ref
from hardpoint.package.writer import ArchiveWriter

__all__ = [
    "MappedTensors",
    "Ref",
    "TensorStore",
    "read_program",
    "tensor_from_ref",
    "weights",
    "write_program",
]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
# What PyTorch's reader wants weights and tensor constants to be called.
_WEIGHT = f"{WEIGHTS}weight_"
_CONSTANT = f"{CONSTANTS}tensor_"


def write_program(
    writer: ArchiveWriter,
    exported: ExportedProgram,
    name: str = "model",
    *,
    store: TensorStore | None = None,
) -> None:
    """Write ``exported`` as program ``name``, with its weights.

    :param store: where weights go; give the one that artifacts use too, and a weight that both have
        is written once. Its program should be written first, since only its own entries can be used
        for PyTorch's description of weights.
    :raises PackageError: a custom object, a tensor without plain bytes, or a graph that PyTorch
        cannot serialize.
    """
    store = TensorStore(writer) if store is None else store
    if not _NAME.fullmatch(name):
        raise _unwritable(writer, f"{name!r} cannot name a program")
    constants: dict[str, torch.Tensor] = {}
    for key, value in exported.constants.items():
        if not isinstance(value, torch.Tensor):
            raise _unwritable(
                writer, f"the program's constant {key!r} is a {type(value).__name__}, not a tensor"
            )
        constants[key] = value
    try:
        graph = torch_serde.graph_json(exported)
    except Exception as error:
        raise _unwritable(writer, f"PyTorch cannot serialize it: {error}") from error
    for tensors, prefix, config in (
        (exported.state_dict, _WEIGHT, f"{WEIGHTS}{name}_weights_config.json"),
        (constants, _CONSTANT, f"{CONSTANTS}{name}_constants_config.json"),
    ):
        refs = store.put_all(tensors, prefix=prefix, share=False)
        writer.add(config, torch_serde.payload_json(tensors, refs))
    writer.add(f"{MODELS}{name}.json", graph)
    writer.add(f"{SAMPLES}{name}.pt", b"")


def read_program(archive: Archive, name: str = "model") -> ExportedProgram:
    """Program ``name``, on weights that are mapped from the file.

    It has no example inputs. What it carries of the model's own checks of its inputs ("guards") is
    kept.

    :raises PackageError: no such program, it holds pickles or code, or it is malformed.
    """
    refuse_pickles(archive)
    known = programs(archive)
    with refusing(archive.path):
        if name not in known:
            raise MalformedError(
                f"it has no program {name!r}; it has: {', '.join(known) or 'none'}"
            )
    mapped = MappedTensors(archive)
    state = _tensors(archive, mapped, WEIGHTS, f"{name}_weights_config.json")
    constants = _tensors(archive, mapped, CONSTANTS, f"{name}_constants_config.json")
    data = archive.read_json(f"{MODELS}{name}.json")
    with refusing(archive.path):
        return torch_serde.build_program(data, state, constants)


def weights(archive: Archive, name: str = "model") -> Mapping[str, torch.Tensor]:
    """Parameters and persistent buffers of program ``name`` by their names, mapped, not copied.

    :raises PackageError: no such program, or it holds pickles or malformed tensors.
    """
    refuse_pickles(archive)
    return _tensors(archive, MappedTensors(archive), WEIGHTS, f"{name}_weights_config.json")


def _tensors(
    archive: Archive, mapped: MappedTensors, folder: str, config: str
) -> dict[str, torch.Tensor]:
    data = archive.read_json(folder + config)
    found: dict[str, torch.Tensor] = {}
    with refusing(archive.path):
        for name, payload in torch_serde.read_payloads(data, folder):
            tensor = _on(payload.device, mapped.tensor(payload.ref))
            if payload.is_parameter:
                if payload.requires_grad and not (
                    tensor.is_floating_point() or tensor.is_complex()
                ):
                    raise MalformedError(
                        f"the parameter {name!r} is of integers but wants a gradient"
                    )
                tensor = torch.nn.Parameter(tensor, requires_grad=payload.requires_grad)
            found[name] = tensor
    return found


def _on(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    try:
        return tensor.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise MalformedError(
            f"its weights belong on the device {device}, which is not usable here: {error}",
            remedy="load it on a machine with that device, or capture the model on the CPU",
        ) from error


def _unwritable(writer: ArchiveWriter, cause: str) -> PackageError:
    return PackageError(
        f"{writer.path} could not be written",
        cause=cause,
        remedy="a package holds graphs and plain tensors only: replace what is named above",
    )
