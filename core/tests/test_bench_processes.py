"""What a benchmark does with its processes: several callers, batches, interrupts, files."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

import hardpoint as hp
from bench_rows import ALL
from hardpoint.benching.bench import _batches
from hardpoint.cli import main
from hardpoint.cli.model_args import ModelArgs
from hardpoint.measuring import session as sessions
from hardpoint.measuring.limits import Limits
from hardpoint.measuring.runner import _Worker
from hardpoint.measuring.running import Runner
from hardpoint.measuring.session import Session


def worker(call):
    made = object.__new__(_Worker)
    made._inputs, made._timed = (), call
    return made


def test_each_caller_calls_once_before_what_counts():
    first, lock = set(), threading.Lock()

    def call(_inputs):
        with lock:
            new = threading.get_ident() not in first
            first.add(threading.get_ident())
        return 1000.0 if new else 0.001

    calls, seconds = worker(call)._together(3, 0.01)
    assert len(first) == 3
    assert set(calls) == {0.001}, "what a runtime makes for a new thread is not timed"
    assert seconds > 0


def test_a_caller_that_fails_at_its_start_keeps_nobody_waiting():
    turns = iter(range(100))

    def call(_inputs):
        if next(turns) == 1:
            raise ValueError("no more requests")
        return 0.001

    with pytest.raises(ValueError, match="no more requests"):
        worker(call)._together(3, 0.01)


class Quiet:
    """A child that answers at once, and remembers how long it was waited for."""

    def __init__(self, first):
        self.first, self.waited, self.stopped = first, [], False

    def wait(self, seconds):
        return {"errors": None, "facts": {}, "cold_seconds": 1.0, "import_seconds": 0.5,
                "load_seconds": 0.1, "first_seconds": self.first, "memory_bytes": 1,
                "base_bytes": 1}  # fmt: skip

    def ask(self, command, seconds):
        self.waited.append(seconds)
        return {"callers": 1, "calls": [self.first], "seconds": self.first, "count": 1,
                "peak_bytes": 1}  # fmt: skip

    def pause(self):
        pass

    resume = pause

    def stop(self):
        self.stopped = True


def test_a_call_of_half_a_minute_is_slow_not_hung():
    child = Quiet(first=30.0)
    runner = Runner(child, None, 1, Limits(round_seconds=60.0))
    runner.round(0.06)
    assert child.waited[0] > 4 * 30.0 + 60.0, "three calls before, and one that counts"


def test_an_interrupt_while_a_model_loads_leaves_no_process_behind(monkeypatch):
    child = Quiet(first=1.0)
    monkeypatch.setattr(child, "wait", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    session = object.__new__(Session)
    session.limits, session._runners = Limits(), []
    session._written = lambda _: (Path("inputs"), SimpleNamespace(samples=1))
    session._job = lambda _: {}
    session._child = lambda *_: child
    assert sessions.Runner is Runner
    with pytest.raises(KeyboardInterrupt):
        session.start(None)
    assert child.stopped


def test_the_least_batch_comes_first_whatever_was_typed():
    program = hp.capture(
        torch.nn.ReLU().eval(), (torch.randn(4, 3),), dynamic={"input": {0: "batch"}}
    )
    assert list(_batches(program, (8, 1, 4, 8)).items()) == [(1, 1), (4, None), (8, 8)]


def interrupted(monkeypatch, *arguments):
    def bench(_program, *, watch, **_):
        watch(ALL)
        raise KeyboardInterrupt

    monkeypatch.setattr(hp.api, "bench", bench)
    monkeypatch.setattr(ModelArgs, "program", lambda _: None)
    return CliRunner().invoke(main, ["bench", "net:make", *arguments], prog_name="hardpoint")


def test_ctrl_c_leaves_the_figures_so_far(monkeypatch):
    done = interrupted(monkeypatch)
    assert done.exit_code == 1
    assert "npu:0" in done.stdout
    assert "killed by SIGSEGV" in done.stdout
    assert "interrupted: figures so far; no file was written" in done.stderr


def test_ctrl_c_leaves_no_half_json(monkeypatch):
    done = interrupted(monkeypatch, "--json")
    assert done.exit_code == 1
    assert done.stdout.strip() == ""


def test_somebodys_csv_is_not_replaced(tmp_path):
    sales = tmp_path / "sales.csv"
    sales.write_text("customer,sum\n1,2\n")
    done = CliRunner().invoke(main, ["bench", "net:make", "--csv", str(sales)])
    assert done.exit_code == 2
    assert "is not a table of this command" in " ".join(done.stderr.split())
    assert sales.read_text() == "customer,sum\n1,2\n"
