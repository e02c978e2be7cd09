"""Who calls: any thread, in any of PyTorch's modes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from hardpoint.errors import HardpointError
from hardpoint.testing.backend.bench import bench_of
from hardpoint.testing.backend.small import LAYERS, UNARY, floats
from hardpoint.testing.check import check, expect, fail
from hardpoint.testing.process import answer_of, run_python
from hardpoint.testing.subject import Subject

_THREADS = """
import sys, threading
from hardpoint.testing.fresh import Job
job = Job(sys.argv[1])
model = job.load()
threads, rounds = 8, 25
start, found = threading.Barrier(threads), []

def run(which):
    start.wait()
    for _ in range(rounds):
        try:
            error = job.error(model, which)
        except Exception as raised:
            found.append(f"raised {type(raised).__name__}: {raised}")
            return
        if not error <= job.limit:
            found.append(f"gave results that are wrong by {error:.3g}")
            return

workers = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
answer(found)
"""


def _autocast(device: str) -> AbstractContextManager[object]:
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


class CallingChecks:
    """Threads and modes."""

    @check("computes")
    def test_eight_threads_at_once(self, subject: Subject) -> None:
        """Eight threads call one executable at once, with inputs of their own: all are right."""
        with bench_of(subject).job() as job:
            done = run_python(_THREADS, job, timeout=120)
        found = answer_of(done, "eight threads call one executable at once")
        expect(
            not found,
            lambda: (
                f"called by eight threads at once it {found[0]}; {len(found)} threads of 8 "
                "are concerned; an executable is called from any thread"
            ),
        )

    @check("computes")
    def test_modes_of_the_caller(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Gradients, inference mode and autocast of the caller change nothing."""
        bench = bench_of(subject)
        inputs = floats(8, 8)[:1]
        ready = bench.claimed({**LAYERS, **UNARY}, inputs)
        modes: dict[str, Callable[[], AbstractContextManager[object]]] = {
            "enable_grad": torch.enable_grad,
            "no_grad": torch.no_grad,
            "inference_mode": torch.inference_mode,
            "autocast to bfloat16": lambda: _autocast(bench.device.torch_device),
        }
        figures["modes"] = list(modes)
        try:
            model = bench.model(bench.plan(ready.program))
        except HardpointError as error:
            fail(f"{ready.small.name!r}: {error}")
        try:
            for mode, enter in modes.items():
                with enter():
                    got = model.run([t.clone() for t in inputs])
                ready.judge(got, inputs, f"under the caller's {mode}")
                expect(not any(t.requires_grad for t in got), f"{mode}: a result requires grad")
        finally:
            model.close()
