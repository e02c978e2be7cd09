"""What measurements hold for: this very program, on this machine, with these versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.fx import GraphModule, Node

import hardpoint
from hardpoint.interfaces.kinds import Kind
from hardpoint.measuring.limits import total_memory
from hardpoint.measuring.machine import processor
from hardpoint.measuring.stamps import stamp, tree
from hardpoint.package.tensors import bytes_of
from hardpoint.program.program import Program

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

# Settings of libraries from outside that change what arithmetic they do, and how fast.
_SETTINGS = (
    *("ATEN_CPU_CAPABILITY", "DNNL_DEFAULT_FPMATH_MODE", "DNNL_MAX_CPU_ISA", "MKL_CBWR"),
    *("MKL_ENABLE_INSTRUCTIONS", "NVIDIA_TF32_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
)
# PyTorch names sizes afresh in each process; here they are numbered as they come.
_SYMBOL = re.compile(r"\b[su]\d+\b")
_HASHERS = 4


def of_program(program: Program) -> str:
    """A hash of graph, calling convention, every weight's bytes, and the inputs that it is
    measured with.

    All bytes count: a package in the cache is used in place of compiling, so two programs that
    differ in one weight must never be taken for one. SHA-256 runs at the memory's pace in a few
    threads: the interpreter's lock is not held.
    """
    numbers: dict[str, str] = {}
    text = "\n".join(_lines(program.exported.graph_module))
    structure = _SYMBOL.sub(lambda m: numbers.setdefault(m[0], f"size{len(numbers)}"), text)
    held = {**program.exported.state_dict, **program.exported.constants}
    tensors = [t for t in held.values() if isinstance(t, torch.Tensor)]
    inputs = [*program.example_inputs, *program.check_inputs]
    with ThreadPoolExecutor(_HASHERS) as pool:
        contents = list(pool.map(_of_tensor, tensors + inputs))
    signature = program.exported.graph_signature
    parts = [
        structure,
        json.dumps(program.signature.to_json(), sort_keys=True),
        *(f"{s.kind} {s.arg} {s.target}" for s in signature.input_specs),
        *(f"{s.kind} {s.arg} {s.target}" for s in signature.output_specs),
        *held,
        str(len(program.example_inputs)),  # the others are check inputs
        *contents,
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def of_machine(threads: int) -> str:
    """A hash of processor, memory, system, how many threads compute, and libraries' settings."""
    # The system's own share of the memory changes a little from boot to boot.
    gigabytes = round((total_memory() or 0) / 2**30)
    parts = [processor(), gigabytes, platform.system(), platform.machine(), threads]
    return _hash([*parts, [[name, os.environ.get(name)] for name in _SETTINGS]])


def of_backends(registry: Registry, names: Iterable[str], partitioner: str = "") -> str:
    """A hash of PyTorch, the core and these backends: versions, SDKs, configuration, devices.

    :param partitioner: that cuts the program for them, if one does.
    """
    parts = [_core(), *(_provider(registry, "backend", name) for name in sorted(set(names)))]
    if partitioner:
        parts.append(_provider(registry, "partitioner", partitioner))
    return _hash(parts)


def of_everything(registry: Registry) -> str:
    """A hash of all that a choice depends on: a new backend may be better."""
    return _hash(
        [
            _core(),
            *(_provider(registry, "backend", r.name) for r in registry.records("backend")),
            *(_provider(registry, "partitioner", r.name) for r in registry.records("partitioner")),
        ]
    )


def _core() -> list[object]:
    parts: list[object] = [platform.python_version(), torch.__version__, hardpoint.__version__]
    file = hardpoint.__file__
    try:
        return [*parts, stamp("hardpoint", file)]
    except importlib.metadata.PackageNotFoundError:  # run from its source
        return [*parts, tree(Path(file).parent)]


def _provider(registry: Registry, kind: Kind, name: str) -> list[object]:
    from hardpoint.errors import HardpointError

    record = registry.record(kind, name)
    parts: list[object] = [kind, name, record.dist, record.version, record.state == "denied"]
    if record.state == "denied" or not record.dist:
        return parts
    try:
        probe = registry.probe(kind, name)
    except HardpointError as error:
        return [*parts, str(error)]
    devices = [[d.id, d.name, d.torch_device, d.memory] for d in probe.devices]
    file = registry.record(kind, name).file
    return [
        *parts, stamp(record.dist, file), probe.available, devices,
        sorted(map(str, registry.configuration(kind, name).items())),
    ]  # fmt: skip


def _lines(module: GraphModule) -> Iterator[str]:
    """The graph and those inside of it (of control flow), a line a node."""
    for path, part in module.named_modules():
        if isinstance(part, GraphModule):
            yield f"graph {path}"
            for node in part.graph.nodes:
                yield f"{node.op} {node.name} {node.target} {node.args} {node.kwargs} {_kind(node)}"


def _kind(node: Node) -> str:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else (value,)
    return " ".join(
        f"{v.dtype}{list(v.shape)}{v.device}" if isinstance(v, torch.Tensor) else type(v).__name__
        for v in values
    )


def _of_tensor(tensor: torch.Tensor) -> str:
    plain = tensor.detach()
    if type(plain) is not torch.Tensor or plain.is_meta or plain.layout is not torch.strided:
        return secrets.token_hex()  # no plain bytes: like no other, and writing it is refused
    plain = plain.cpu().resolve_conj().resolve_neg().contiguous()
    digest = hashlib.sha256(bytes_of(plain)).hexdigest()
    return f"{tensor.dtype}{list(tensor.shape)}{list(tensor.stride())}{tensor.device} {digest}"


def _hash(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
