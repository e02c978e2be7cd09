"""Damaged artifacts, loaded in a process of their own: a damaged file must not end a process."""

from __future__ import annotations

from typing import Any

from hardpoint.testing.backend.bench import bench_of
from hardpoint.testing.check import check, expect, fail
from hardpoint.testing.process import run_python
from hardpoint.testing.subject import Subject

# Prints each damage before it is tried, so that the last line tells what ended the process.
_TRY = """
import sys
from dataclasses import replace
import torch
from hardpoint.errors import ArtifactError
from hardpoint.testing.fresh import Job, distance
job = Job(sys.argv[1])
model = job.load()
segment = model.segments[0]
backend = job.registry.open("backend", segment.target.backend)
whole = segment.artifact

def flipped(data, at):
    changed = bytearray(data)
    changed[at] ^= 0x40
    return bytes(changed)

damages = {}
for name, data in whole.files.items():
    left = {k: v for k, v in whole.files.items() if k != name}
    damages[f"file {name!r} is missing"] = replace(whole, files=left)
    for keep in dict.fromkeys((0, len(data) // 2, len(data) - 1)):
        if keep < len(data):
            what = f"file {name!r} is cut to {keep} of {len(data)} bytes"
            damages[what] = replace(whole, files={**whole.files, name: bytes(data)[:keep]})
    for at in sorted({0, len(data) // 3, len(data) - 1} if data else ()):
        what = f"file {name!r} has one bit changed at {at}"
        damages[what] = replace(whole, files={**whole.files, name: flipped(data, at)})
for name in list(whole.weights)[:2]:
    left = {k: v for k, v in whole.weights.items() if k != name}
    damages[f"weight {name!r} is missing"] = replace(whole, weights=left)
if whole.metadata:
    damages["its metadata are missing"] = replace(whole, metadata={})

found = {}
for what, artifact in damages.items():
    print(what, flush=True)
    try:
        executable = backend.load(artifact, segment.device)
    except ArtifactError as error:
        found[what] = "refused" if str(error).strip() else "refused without a reason"
        continue
    except Exception as error:
        found[what] = f"load() raised {type(error).__name__}: {error}"
        continue
    if "one bit" in what:  # the package's hashes keep such a file from being called
        found[what] = "loaded"
        continue
    try:
        inputs = [t.to(segment.device.torch_device) for t in job.inputs[0]]
        with torch.no_grad():  # as the runtime calls it
            error = distance(executable(*inputs), job.expected[0])
    except Exception as error:
        found[what] = f"it was loaded, and a call raised {type(error).__name__}: {error}"
        continue
    found[what] = "not needed" if error <= job.limit else "other numbers"
answer(found)
"""


class DamageChecks:
    """Files that were cut, lost or changed on their way."""

    @check("packages")
    def test_damaged_artifacts(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A file that is cut or missing is refused with an ``ArtifactError``, or was not needed;
        one with a changed bit is refused so, or loaded; no load ends the process.
        """
        with bench_of(subject).job() as job:
            done = run_python(_TRY, job, timeout=180)
        if done.code != 0 or done.answer is None:
            last = (done.out.strip().splitlines() or ["the whole artifact"])[-1]
            fail(f"when {last}, loading and calling the artifact ends the process: {done.ending}")
        figures["damages"] = done.answer
        for what, how in done.answer.items():
            expect(
                how in ("refused", "not needed", "loaded"),
                f"when {what}: {how}; the contract asks for an ArtifactError with the reason",
            )
