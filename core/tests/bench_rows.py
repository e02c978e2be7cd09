"""A benchmark made up for tests of what shows it: every sort of row, two batches."""

import math

from hardpoint.benching.benchmark import Benchmark
from hardpoint.benching.front import arrange
from hardpoint.benching.row import EAGER, BenchRow
from hardpoint.measuring.results import Errors, Failure, Timing

MACHINE = {
    "system": "Linux 6.1 x86_64", "threads": 2, "torch": "2.13.0", "hardpoint": "0.1.0",
    "processor": {"name": "Acme Core 9", "processors": 2, "cores": 2,
                  "instruction_sets": ["avx2", "avx512_vnni"]},
    "sdks": {"openvino": "2026.4.1"},
}  # fmt: skip


def timing(ms, **more):
    figures = {
        "p50": ms / 1e3, "p95": ms / 900, "p99": ms / 800, "best": ms / 1100, "low": ms / 1050,
        "high": ms / 950, "confidence": 0.965, "rounds": 15, "calls": 300,
        "throughput": 1e3 / ms, "callers": 1, "ratio": 10 / ms, "peak_bytes": 300_000_000,
    }  # fmt: skip
    return Timing(**{**figures, **more})


def row(target, ms, error, *, batch=1, precision="fp32", limit=1e-4, **more):
    return BenchRow(
        target, precision, batch=batch, state="timed", timing=timing(ms), limit=limit,
        errors=Errors(error, error / 10, 0.99999, 0.975, 400), bytes=1_500_000,
        artifact_bytes=400_000,
        cold_seconds=0.25, process_seconds=1.9, memory_bytes=300_000_000, **more,
    )  # fmt: skip


def eager(ms, batch=1):
    return BenchRow(EAGER, batch=batch, state="timed", timing=timing(ms))


FAST = row("npu:0", 2.5, 2e-2, precision="int8", limit=0.1, variant="tiled",
           options={"npu": {"tile": 8}})  # fmt: skip
EXACT = row("cpu", 5.0, 3e-6)
SLOW = row("gpu", 6.0, 4e-6)
COARSE = row("npu:0", 1.5, 0.5, precision="int4w", limit=0.2)
EAGER_ROW = eager(10.0)
CRASHED = BenchRow("gpu", "bf16", state="failed",
                   failure=Failure("crashed", "compile s0 for gpu", "killed by SIGSEGV"))  # fmt: skip
NAN = BenchRow("gpu", "fp16", state="failed", errors=Errors(math.inf, math.inf, 0.0),
               failure=Failure("wrong", "verification", "error inf"))  # fmt: skip
PARTIAL = BenchRow("dsp", state="failed",
                   failure=Failure("not whole", "", "covers 3 of 4 operations: no relu"))  # fmt: skip
SPENT = BenchRow("cpu", "int8", state="not tried", remark="not tried: the budget of 60 s was spent")
ALL = (PARTIAL, SPENT, CRASHED, COARSE, NAN, EAGER_ROW, SLOW, FAST, EXACT)


def benchmark(rows=ALL, **more):
    facts = {
        "program": "Net", "objective": "latency", "max_error": None, "machine": MACHINE,
        "rounds": 15, "round_seconds": 0.06, "callers": 1, "heats": 1, "noise": 1.05,
        "noisy": False, "seconds": 61.5,
    }  # fmt: skip
    facts |= more
    return Benchmark(rows=tuple(arrange(rows, facts["objective"])), **facts)
