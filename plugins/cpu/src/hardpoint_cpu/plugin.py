"""The hooks of ``backend:cpu``: light, imports neither torch nor the rest of the plugin."""

from __future__ import annotations

from collections.abc import Mapping

from hardpoint import Backend, BackendInfo, Probe, ProbeRequest, hookimpl
from hardpoint_cpu import host


@hookimpl
def hardpoint_backend_info() -> BackendInfo:
    """What this backend is and can do."""
    return BackendInfo(
        requires_api=(1, 0),
        summary="The CPU, through eager PyTorch, Inductor or AOTInductor",
        precisions=("fp32", "bf16", "int8", "int8w", "int4w"),
        options={
            "mode": "eager (default; int8: aot), inductor (compiles again where it is loaded) "
            "or aot (compiled once, needs no compiler where it is loaded)",
            "freezing": "inductor and aot: fold and repack the weights when compiling "
            "(default false; int8: true); faster, and what was repacked is no longer shared",
            "max_autotune": "with freezing: time several kernels for each product when compiling, "
            "which takes minutes (default false)",
            "threads": "that a call computes on (default: as torch.set_num_threads says; numa: the "
            "node's cores)",
            "numa": "NUMA node that calls run on, in a thread bound to its processors (default: "
            "where the caller runs)",
            "group_size": "int4w: columns of a weight that share a scale, 32, 64 or 128 "
            "(default 64)",
            "activation_scales": "int8: static (observed on the examples) or dynamic (taken in "
            "each call); default static where there are convolutions, else dynamic",
        },
        variants={
            "eager": {"mode": "eager"},
            "inductor": {"mode": "inductor"},
            "inductor-frozen": {"mode": "inductor", "freezing": True},
            "aot": {"mode": "aot"},
            "aot-frozen": {"mode": "aot", "freezing": True},
        },
        strided_inputs=True,
        cpu_kernels=True,
    )


@hookimpl
def hardpoint_backend_probe(request: ProbeRequest) -> Probe:
    """Always ready; a missing C++ compiler takes away two modes, and the notes say so."""
    missing = host.compiler_missing()
    notes = [] if missing is None else [f"modes inductor and aot cannot compile here: {missing}"]
    nodes = host.numa_nodes()
    if nodes > 1:
        notes.append(
            f"memory is in {nodes} NUMA nodes: keep the process in one (numactl --cpunodebind=0 "
            "--membind=0), with no more threads than that node has cores, or a model (option numa)"
        )
    return Probe.ready(host.device(), notes=tuple(notes))


@hookimpl
def hardpoint_backend_open(config: Mapping[str, object]) -> Backend:
    """Import torch and return the backend. ``config`` may hold ``operators``: see the README."""
    from hardpoint_cpu.backend import CpuBackend

    return CpuBackend(config)
