"""Timing: who is compared with whom, how long a call may take, and what is left behind."""

import subprocess
import sys
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import hardpoint as hp
from hardpoint.choosing.contest import Contest
from hardpoint.measuring.child import _ending
from hardpoint.measuring.groups import free_in_groups
from hardpoint.measuring.inputs import write_inputs
from hardpoint.measuring.limits import Limits
from hardpoint.measuring.results import Round, Start
from hardpoint.measuring.runner import _Worker
from hardpoint.measuring.running import Runner
from hardpoint.measuring.session import Session
from hardpoint.measuring.workload import make_inputs
from hardpoint.registry.handover import describe
from hardpoint.runtime import settling
from splitting import program as captured


class Scripted:
    """A runner whose calls take what is written down."""

    def __init__(self, *seconds, bytes_=100):
        self.seconds, self.rounds, self.failure = chain(seconds, repeat(seconds[-1])), [], None
        self.begun = Start(0.0, 0.0, 0.0, 0.0, None, 1000 + bytes_, 1000)
        self.candidate, self.samples, self.callers, self.stopped = None, 1, 1, False

    def round(self, seconds, *, callers):
        took = next(self.seconds)
        self.rounds.append(Round([took], took, 1, 0))

    def stop(self):
        self.stopped = True


def contest(*runners, room=None):
    made = Contest(None, 1, lambda: 1.0, lambda race, runners: None, room)
    for runner in runners:
        made.enter(runner)
    return made


def test_who_was_dropped_in_a_quiet_minute_does_not_win_in_a_busy_one():
    steady = Scripted(*[1.0] * 3, *[1.0] * 3, *[1.0] * 5, *[2.0] * 100)
    slower = Scripted(*[1.3] * 8, 1.3)
    made = contest(steady, slower)
    ranked = made.decide()
    assert slower.stopped
    assert len(slower.rounds) == 5
    assert ranked[0] is steady  # its median is 2.0 in the end: the machine was busy
    assert ranked[1] is slower


def test_near_ones_get_as_many_rounds_again_and_the_rest_stays_behind():
    first, second = Scripted(1.0), Scripted(1.01)
    third = Scripted(1.05)
    made = contest(first, second, third)
    assert made.decide() == [first, second, third]
    assert [len(r.rounds) for r in (first, second, third)] == [30, 30, 15]


def test_contenders_that_take_too_much_memory_together_are_given_up_slowest_first():
    runners = [Scripted(1.2), Scripted(1.0), Scripted(1.1)]
    made = contest(*runners, room=250)
    assert [r.stopped for r in runners] == [True, False, False]
    assert set(made.contenders) == set(runners[1:])
    alone = contest(Scripted(1.0, bytes_=10**9), room=250)
    assert len(alone.contenders) == 1  # one there must be


class Line:
    """A child that answers, and notes how long it may take."""

    def __init__(self, first_seconds, error=None):
        self.first_seconds, self.error, self.limits, self.stopped = first_seconds, error, [], False

    def wait(self, seconds):
        if self.error is not None:
            raise self.error
        return {"first_seconds": self.first_seconds, "errors": None, "facts": {}, "cold_seconds": 1,
                "import_seconds": 1, "load_seconds": 1, "memory_bytes": 1, "base_bytes": 1}  # fmt: skip

    def ask(self, command, seconds):
        self.limits.append(seconds)
        return {"calls": [1.0], "seconds": 1.0, "count": 1, "callers": 1, "peak_bytes": 1}

    def pause(self):
        pass

    def resume(self):
        pass

    def stop(self):
        self.stopped = True


def test_a_model_whose_call_takes_a_minute_does_not_count_as_hung():
    slow, quick = Line(60.0), Line(0.001)
    for line in (slow, quick):
        Runner(line, None, 1, Limits()).round(0.06)
    assert slow.limits[0] > 4 * 60  # three to warm up, one that is timed
    assert quick.limits[0] == pytest.approx(60.06, abs=0.1)


def test_whoever_presses_control_c_while_a_process_starts_leaves_none_behind(monkeypatch):
    program = hp.capture(nn.ReLU().eval(), (torch.ones(2, 2),))
    line = Line(1.0, KeyboardInterrupt())
    with Session(program, hp.Registry(path=[]), threads=1) as session:
        monkeypatch.setattr(session, "_child", lambda module, job: line)
        with pytest.raises(KeyboardInterrupt):
            session.start(None)
    assert line.stopped


def test_a_process_that_cannot_be_killed_is_told_of():
    assert _ending(None) == "it hangs in the system's kernel, where it cannot be killed"
    assert (_ending(3), _ending(-9)) == ("exit status 3", "killed by SIGKILL")


GIGA = 10**9


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(str(text))


def test_a_container_leaves_what_its_limit_leaves(tmp_path):
    own, root = tmp_path / "own", tmp_path / "fs"
    assert free_in_groups(root, own) is None
    own.write_text("0::/outer/inner\n")
    group(root / "outer" / "inner", memory_max="max", memory_current=3 * GIGA)
    assert free_in_groups(root, own) is None
    stat = f"anon {GIGA}\ninactive_file {GIGA}\n"
    group(root / "outer", memory_max=8 * GIGA, memory_current=5 * GIGA, memory_stat=stat)
    assert free_in_groups(root, own) == 4 * GIGA  # pages of files can be dropped
    group(root / "outer" / "inner", memory_max=2 * GIGA)
    assert free_in_groups(root, own) == 0


def test_older_containers_too_whose_path_is_the_hosts(tmp_path):
    own, root = tmp_path / "own", tmp_path / "fs"
    own.write_text("7:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n")
    group(root / "memory", memory_limit_in_bytes=4 * GIGA, memory_usage_in_bytes=GIGA)
    assert free_in_groups(root, own) == 3 * GIGA


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux")
def test_where_memory_runs_out_the_kernel_ends_a_child_first():
    code = (
        "from hardpoint.measuring.serving import go_first\n"
        "go_first(); print(open('/proc/self/oom_score_adj').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1000"


def test_each_accelerator_is_waited_for_by_name(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    settling.settling(["cpu", "cuda:1", torch.device("cuda:0"), "cuda:1"])()
    assert sorted(map(str, waited)) == ["cuda:0", "cuda:1"]
    waited.clear()
    settling.settling(["cpu"])()
    assert waited == []


@pytest.mark.skipif("cpu" not in hp.Registry().names("backend"), reason="needs hardpoint-cpu")
def test_on_other_inputs_a_model_starts_from_the_state_that_was_captured(tmp_path):
    program, registry = captured("counter"), hp.Registry()
    plan = hp.plan(program, targets="cpu", registry=registry)
    model = hp.compile(plan, options={"cpu": {"mode": "eager"}}, registry=registry)
    package, inputs = model.save(tmp_path / "m.pt2"), tmp_path / "i.pt2"
    write_inputs(inputs, make_inputs(program))
    job = {"threads": torch.get_num_threads(), "processors": [], "inputs": str(inputs),
           "registry": describe(registry, ["cpu"]), "started": 0.0, "package": str(package),
           "precisions": {"cpu": "fp32"}}  # fmt: skip
    worker = _Worker(job, SimpleNamespace(say=lambda *event, **data: None))
    worker.round({"warmups": 2, "seconds": 1e-9, "callers": 1})  # it has counted on
    assert worker.use(inputs)["errors"]["max"] < 1e-6
