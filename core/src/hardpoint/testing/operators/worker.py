"""The process that runs cases: one by one, as the parent says, a line of JSON for each event.

It is a fresh interpreter, so that a crash or a hang of the backend ends this process only. What
the backend prints cannot disturb the exchange: answers go through a descriptor of their own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hardpoint.errors import HardpointError


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to know; JSON-serializable.

    :param name: of the backend. :param config: for its ``open``. :param options: for ``compile``.
    :param seconds: of processor time that one case may take.
    """

    name: str
    precision: str
    config: Mapping[str, object]
    options: Mapping[str, object]
    seconds: float


def main(answers: int) -> None:
    """Read a job and then cases from stdin; answer on descriptor ``answers`` until stdin ends."""
    commands = sys.stdin.buffer
    os.set_inheritable(answers, False)
    replies = os.fdopen(answers, "wb")

    def say(**event: object) -> None:
        replies.write(json.dumps(event).encode() + b"\n")
        replies.flush()

    warnings.simplefilter("ignore")  # the exporter's, about samples that nobody wrote
    try:
        _serve(Job(**json.loads(commands.readline())), commands, say)
    except HardpointError as error:
        say(event="failed", message=str(error))
    except Exception:
        say(event="failed", message=traceback.format_exc())


def _serve(job: Job, commands: Any, say: Any) -> None:
    import torch

    from hardpoint.testing.operators.attempt import Result, Setting, attempt
    from hardpoint.testing.operators.case import digest, prepare
    from hardpoint.testing.operators.database import EXAMPLE, Case, Database

    torch.set_num_threads(1)  # as many workers run as the caller wants processors
    database = Database()
    example = database.sample(EXAMPLE)
    assert example is not None, "the database was tried with it"
    prepare(example, "warm-up")  # the first capture imports: no case's own time
    setting = Setting(_registry(job), job.name, job.precision, job.options)  # type: ignore[arg-type]
    say(event="ready", cases=[asdict(case) for case in database.cases()])
    for line in commands:
        command = json.loads(line)
        case = Case(**command["case"])
        _allow(job.seconds)
        say(event="stage", stage="sample")
        try:
            sample = database.sample(case)
        except Exception as error:
            say(event="done", **_left_out(case, f"{type(error).__name__}: {error}"))
            continue
        if sample is None:
            say(event="done", **_left_out(case, "the database has no sample of it"))
            continue
        key = digest(sample)
        if key == command["known"]:
            say(event="same")
            continue
        state, reason = attempt(
            setting, case, sample, lambda stage: say(event="stage", stage=stage)
        )
        result = Result(case.op, case.variant, case.dtype, state, reason, key)
        say(event="done", **result.to_json())


def _left_out(case: Any, reason: str) -> dict[str, str]:
    return {**asdict(case), "state": "left_out", "reason": reason[:300], "sample": ""}


def _allow(seconds: float) -> None:
    """Be killed by SIGXCPU after so many more seconds of processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _registry(job: Job) -> Any:
    """A registry whose backend is opened with the settings' configuration, whoever opens it."""
    from hardpoint.registry.registry import Registry

    registry = Registry()
    if job.config:
        registry.configure("backend", job.name, job.config)
    return registry
