"""A backend in a long-lived process: memory, handles, closing, forks, compiling elsewhere."""

from __future__ import annotations

import os
from typing import Any

from hardpoint.testing.backend.bench import bench_of
from hardpoint.testing.backend.small import LAYERS, UNARY, floats
from hardpoint.testing.check import check, expect, fail, skip_unless
from hardpoint.testing.process import answer_of, run_python
from hardpoint.testing.subject import Subject

_START = """
import gc, sys
from hardpoint.testing.fresh import Job, open_files, resident_bytes, threads
job = Job(sys.argv[1])
"""
_CALLS = """
model = job.load()

def call(times):
    for i in range(times):
        model.run(job.inputs[i % len(job.inputs)])
    gc.collect()
    return resident_bytes()

call(200)
before, after = call(1), call(1000)
answer([before, after, max(job.error(model, i) for i in range(len(job.inputs)))])
"""
_LOADS = """
def load(times):
    for _ in range(times):
        model = job.load()
        error = job.error(model, 0)
        model.close()
        if not error <= job.limit:
            raise SystemExit(f"a model that was loaded again is wrong by {error:.3g}")
        del model
    gc.collect()
    return open_files(), threads(), resident_bytes()

load(5)
answer([load(1), load(50)])
"""
_CLOSES = """
model = job.load()
executable = model.segments[0].executable
before = job.error(model, 0)
executable.close()
executable.close()
try:
    after = job.error(model, 0)
    said = f"a call after close() works" if after <= job.limit else f"wrong by {after:.3g}"
except Exception as error:
    said = f"{type(error).__name__}: {error}"
again = job.load()
answer([said, job.error(again, 0)])
"""
_FORKS = """
import os, time
model = job.load()
child = os.fork()
if not child:
    code = 1
    try:
        code = 0 if job.error(model, 0) <= job.limit else 2
    except Exception as error:
        code = 3
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(code)
end = time.monotonic() + 60  # a first call may compile
while time.monotonic() < end:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        answer(os.waitstatus_to_exitcode(status))
        break
    time.sleep(0.01)
else:
    os.kill(child, 9)
    os.waitpid(child, 0)
    answer("hangs")
"""
# Bytes that a thousand calls, or fifty loads, may add: what allocators keep for later.
CALLS_MAY_KEEP, LOADS_MAY_KEEP = 8 * 2**20, 32 * 2**20


class LastingChecks:
    """What shows only after a while."""

    @check("robust")
    def test_a_thousand_calls(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A thousand calls leave the process no larger, and all are right."""
        with bench_of(subject).job() as job:
            done = run_python(_START + _CALLS, job, timeout=300)
        before, after, error = answer_of(done, "an executable is called a thousand times")
        figures["max_error"] = error
        expect(
            error <= bench_of(subject).limit,
            f"after a thousand calls results are wrong by {error:.3g}",
        )
        skip_unless(before is not None, "this system does not tell how much memory is used")
        figures["bytes_more"] = after - before
        expect(
            after - before <= CALLS_MAY_KEEP,
            f"a thousand calls, after 200 that do not count, leave the process "
            f"{(after - before) / 1e6:.1f} MB larger, about {(after - before) // 1000:,} bytes a "
            "call: it leaks",
        )

    @check("robust")
    def test_loaded_fifty_times(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Fifty times loading, calling and closing leaves no file, thread or memory behind."""
        with bench_of(subject).job() as job:
            done = run_python(_START + _LOADS, job, timeout=300)
        before, after = answer_of(done, "a package is loaded and closed fifty times")
        for what, was, now, most in zip(
            ("open files", "threads", "bytes"), before, after, (0, 0, LOADS_MAY_KEEP), strict=True
        ):
            if was is not None:
                figures[f"more_{what.replace(' ', '_')}"] = now - was
                expect(
                    now - was <= most,
                    f"loading and closing fifty times leaves {now - was:,} more {what}: close() "
                    "must let go of all that load() took",
                )

    @check("robust")
    def test_closed_twice(self, subject: Subject, figures: dict[str, Any]) -> None:
        """``close`` may be called twice; a call afterwards works or says what is wrong, and what is
        loaded anew works.
        """
        with bench_of(subject).job() as job:
            done = run_python(_START + _CLOSES, job, timeout=120)
            limit = bench_of(subject).limit
        said, again = answer_of(done, "an executable is closed twice and called once more")
        figures["call_after_close"] = said
        expect(not said.startswith("wrong"), f"a call after close() gives numbers that are {said}")
        expect(": " not in said or said.partition(": ")[2].strip(),
               f"a call after close() raises {said} without words")  # fmt: skip
        expect(again <= limit, f"loaded anew after a close(), results are wrong by {again:.3g}")

    @check("robust")
    def test_forked_after_load(self, subject: Subject, figures: dict[str, Any]) -> None:
        """In a child forked after ``load``, a call is right or raises; it neither hangs nor
        crashes.
        """
        skip_unless(hasattr(os, "fork"), "this system does not fork")
        with bench_of(subject).job() as job:
            done = run_python(_START + _FORKS, job, timeout=120)
        ended = answer_of(done, "a process forks after load()")
        outcomes = {0: "right", 2: "wrong", 3: f"raises {done.out.strip()}"}
        figures["in_the_child"] = outcomes.get(ended, ended)
        expect(ended != "hangs", "a child that was forked after load() hangs in its first call")
        expect(ended != 2, "a child that was forked after load() gets wrong numbers")
        if ended not in (0, 3):
            fail(f"a child that was forked after load() ends in its first call, status {ended}")

    @check("robust")
    def test_compiled_in_isolation(self, subject: Subject) -> None:
        """``compile(isolate=True)``, in a child process, gives an artifact that works here."""
        bench = bench_of(subject)
        inputs = floats(8, 8)[:1]
        ready = bench.claimed({**LAYERS, **UNARY}, inputs)
        with ready.opened(isolate=True) as opened:
            ready.judge(ready.call(opened, inputs), inputs, "compiled in a child process")
