"""The measured choice goes on where a backend crashes, hangs, eats memory or is wrong: each fault
is planted in a real backend, in real processes, and stands in the report with its reason.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes.dists import FakeSite
from fakes.vendor import vendor

# What each variant does, and what the report says of it: (kind, words of stage and reason).
FAULTS = {
    "narrow": ("wrong", ["computes in bf16 on vendor, not in fp32"]),
    "wrong": ("wrong", ["error 0.5, at most 0.0001 is allowed"]),
    "raise": ("refused", ["could not be compiled", "RuntimeError: the tiler lost its tiles"]),
    "crash in compile": ("crashed", ["compiling s0 for vendor", "killed by SIGSEGV"]),
    "crash in call": ("crashed", ["verifying s0 for vendor", "killed by SIGSEGV"]),
    "crash later": ("crashed", ["in call: killed by SIGSEGV"]),
    "raise on load": ("refused", ["the driver knows this process only"]),
}
# Those that the budget ends, or that say themselves what they lack.
TOO_MUCH = {
    "hang in compile": ("hung", "compiling s0 for vendor", "no answer within 10 s"),
    "hang in call": ("hung", "verifying s0 for vendor", "no answer within 10 s"),
    "eat memory": ("memory", "compiling s0 for vendor", "at most 2.0 GB is allowed"),
    "no memory": ("memory", "compiling s0 for vendor", "not a byte is left"),
    "refuse": ("refused", "compiling s0 for vendor", "this chip has no adders"),
}
CHOOSE = """
import json, sys, torch, hardpoint as hp

class Model(torch.nn.Module):
    def forward(self, x):
        return -torch.relu(x)

def main():
    program = hp.capture(Model().eval(), (torch.linspace(-1, 1, 12).reshape(3, 4),))
    events = []
    hp.default_registry().observe(events.append)
    budget = hp.Budget(**json.loads(sys.argv[1])) if sys.argv[1:] else None
    compiled = hp.compile(program, targets="auto", budget=budget)
    x = torch.randn(3, 4)
    assert torch.equal(compiled(x), -torch.relu(x))
    told = [e.data for e in events if e.kind == "measured"]
    print(json.dumps({"choice": compiled.choice.to_json(), "text": str(compiled.choice),
                      "told": [[d["candidate"], d.get("failure")] for d in told],
                      "kinds": [e.kind for e in events]}))

if __name__ == "__main__":
    main()
"""
MEASURE = """
import json, sys, torch, hardpoint as hp
from hardpoint.measuring.limits import Limits
from hardpoint.measuring.results import Failure
from hardpoint.measuring.session import Session

class Model(torch.nn.Module):
    def forward(self, x):
        return -torch.relu(x)

def main(limits):
    program = hp.capture(Model().eval(), (torch.linspace(-1, 1, 12).reshape(3, 4),))
    with Session(program, hp.default_registry(), limits=Limits(**limits), threads=1) as session:
        said = {}
        if "eager" in sys.argv:
            session.start(None)  # a process that stands still from now on
        for candidate in session.survey().candidates:
            if candidate.variant:
                made = session.build(candidate)
                said[candidate.variant] = [made.kind, made.stage, made.reason]
    print(json.dumps(said))

if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
"""


def site(tmp_path, *variants, default=""):
    made = FakeSite(tmp_path / "site")
    made.add_backend("vendor", vendor(*variants, default=default))
    return made


def run(made, tmp_path, script, *arguments, **environment):
    path = tmp_path / "script.py"
    path.write_text(script)
    done = made.run(
        str(path), *arguments, timeout=500,
        HARDPOINT_ALLOW="backend:vendor", HARDPOINT_CACHE=str(tmp_path / "cache"), **environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_fault_is_in_the_report_and_the_rest_goes_on(tmp_path):
    made = site(tmp_path, *FAULTS)
    said = run(made, tmp_path, CHOOSE)
    choice = said["choice"]
    assert choice["winner"] == "vendor fp32"
    rows = {row["candidate"]["variant"]: row for row in choice["rows"]}
    assert rows.keys() == {"", *FAULTS}
    for variant, (kind, words) in FAULTS.items():
        failure = rows[variant]["failure"]
        assert failure["kind"] == kind, (variant, failure)
        text = f"in {failure['stage']}: {failure['reason']}"
        for word in words:
            assert word in text, (variant, text)
        [line] = [line for line in said["text"].splitlines() if line.startswith(f"vendor fp32 {variant}  ")]  # fmt: skip
        assert failure["reason"] in line
    assert {candidate for candidate, failure in said["told"] if failure is None} == {"vendor fp32"}
    assert len(said["told"]) == 1 + len(FAULTS)
    assert said["kinds"][-2:] == ["chosen", "ran"]
    # The numbers of what was wrong are told too.
    assert rows["wrong"]["errors"]["max"] == pytest.approx(0.5, rel=1e-3)

    again = run(made, tmp_path, CHOOSE)
    assert again["choice"]["remembered"]
    assert again["told"] == []
    assert [r["failure"] for r in again["choice"]["rows"]] == [r["failure"] for r in choice["rows"]]


def test_what_is_beyond_the_budget_is_in_the_report_and_the_next_one_wins(tmp_path):
    """The only good one is the last: whatever ends before it, the choice goes on."""
    first, *others = TOO_MUCH
    made = site(tmp_path, *others, "well", default=first)
    budget = {"candidate_seconds": 10, "memory": 2 * 10**9}
    said = run(made, tmp_path, CHOOSE, json.dumps(budget))
    choice = said["choice"]
    assert choice["winner"] == "vendor fp32 well"
    rows = {row["candidate"]["variant"] or first: row for row in choice["rows"]}
    assert rows.keys() == {*TOO_MUCH, "well"}
    assert rows.pop("well")["state"] == "winner"
    for variant, (kind, stage, reason) in TOO_MUCH.items():
        failure = rows[variant]["failure"]
        assert rows[variant]["state"] == "failed"
        assert (failure["kind"], failure["stage"]) == (kind, stage), variant
        assert reason in failure["reason"], variant
        assert failure["reason"] in said["text"]
    assert [name for name, failure in said["told"] if failure is None] == ["vendor fp32 well"]
    assert len(said["told"]) == 1 + len(TOO_MUCH)


def test_what_hangs_in_compile_or_call_is_stopped(tmp_path):
    made = site(tmp_path, "hang in compile", "hang in call")
    said = run(made, tmp_path, MEASURE, json.dumps({"build_seconds": 3}))
    assert said == {
        "hang in compile": ["hung", "compiling s0 for vendor", "no answer within 3 s"],
        "hang in call": ["hung", "verifying s0 for vendor", "no answer within 3 s"],
    }


def test_what_eats_memory_is_stopped_at_the_limit(tmp_path):
    made = site(tmp_path, "eat memory")
    said = run(made, tmp_path, MEASURE, json.dumps({"memory_bytes": 2 * 10**9}))
    kind, stage, reason = said["eat memory"]
    assert (kind, stage) == ("memory", "compiling s0 for vendor")
    assert reason.startswith("it took 2.")
    assert reason.endswith("at most 2.0 GB is allowed")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_killed_parent_leaves_no_process_behind(tmp_path):
    made = site(tmp_path, "hang in compile")
    path = tmp_path / "script.py"
    path.write_text(MEASURE)
    mark = tmp_path / "marks"
    mark.mkdir()
    parent = subprocess.Popen(
        [sys.executable, str(path), "{}", "eager"], cwd=made.root, stdout=subprocess.DEVNULL,
        env=made.environment(HARDPOINT_ALLOW="backend:vendor", TMPDIR=str(mark)),
    )  # fmt: skip
    try:
        [builder] = wait_for(lambda: named("builder", working_in(mark)))
        [runner] = named("runner", working_in(mark))
        assert state(runner) == "T"  # stopped
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not builder.exists() and not runner.exists())


def working_in(folder):
    """Processes (their /proc folders) whose current folder lies in ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(process)
        except OSError:
            continue
    return found


def named(module, processes):
    return [p for p in processes if f"measuring.{module}" in (p / "cmdline").read_text()]


def state(process):
    return (process / "stat").read_text().rpartition(")")[2].split()[0]


def wait_for(what, seconds=200):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("it did not come")
