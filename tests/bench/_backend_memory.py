"""What a program's weights take while it runs: resident memory of a fresh process, in parts.

By how much loading and calling a package makes the process grow, after a small package of the same
backend has brought its runtime into memory. Private memory is the process's own; mapped pages are
of the package's file, in the page cache, and the system may drop them.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _backend_models import Model, made
from torch import nn

import hardpoint as hp
from hardpoint.benching.row import BenchRow
from hardpoint.measuring.candidate import Candidate

CHILD = """
import gc, json, sys
import torch
import hardpoint as hp

def resident():
    gc.collect()
    lines = (l.split() for l in open("/proc/self/status"))
    sizes = {l[0]: int(l[1]) * 1024 for l in lines if l[0] in ("RssAnon:", "RssFile:")}
    return sizes["RssAnon:"], sizes["RssFile:"]

torch.set_num_threads(int(sys.argv[4]))
small = hp.load(sys.argv[1])
small.run([torch.ones(4, 8)])
inputs = torch.load(sys.argv[3], weights_only=True)
before = resident()
model = hp.load(sys.argv[2])
for _ in range(3):
    model.run(inputs)
after = resident()
print(json.dumps({"private": after[0] - before[0], "mapped": after[1] - before[1]}))
"""
TIMEOUT = 600.0


def measure(
    model: Model, candidates: Sequence[Candidate], threads: int, folder: Path
) -> dict[str, Any]:
    """Bytes by which a process grows, by candidate; and the weights in fp32."""
    module, args, kwargs = made(model)
    program = hp.capture(module, args, kwargs, name=model.name)
    inputs, child = folder / "inputs.pt", folder / "child.py"
    torch.save(list(program.example_inputs), inputs)
    child.write_text(CHILD, "utf-8")
    rows = []
    for candidate in candidates:
        backend = candidate.targets[0].backend
        small = _package(_small(), candidate, folder / f"{backend}-small.pt2", options={})
        package = _package(program, candidate, folder / "whole.pt2", options=candidate.options)
        done = subprocess.run(
            [sys.executable, str(child), str(small), str(package), str(inputs), str(threads)],
            capture_output=True, text=True, check=False, timeout=TIMEOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{candidate.label}: {done.stderr[-600:]}")
        label = BenchRow.of(candidate, 1).label
        rows.append({"label": label, **json.loads(done.stdout.splitlines()[-1])})
        package.unlink()
    return {"weights": 4 * sum(p.numel() for p in module.parameters()), "rows": rows}


def _package(program: hp.Program, candidate: Candidate, path: Path, options: Any) -> Path:
    compiled = hp.compile(
        program, targets=[candidate.targets[0]], precision=dict(candidate.precisions),
        options=options, max_error=math.inf, isolate=True,
    )  # fmt: skip
    try:
        return compiled.save(path)
    finally:
        compiled.close()


def _small() -> hp.Program:
    torch.manual_seed(0)
    return hp.capture(nn.Linear(8, 8).eval(), (torch.ones(4, 8),), name="small")
