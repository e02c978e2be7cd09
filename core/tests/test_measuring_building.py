"""Processes that build: kept for the next candidate of the same backend, while there is room."""

import json

import pytest

import hardpoint as hp
from eager_backend import Provider
from fakes.dists import FakeSite
from fakes.vendor import vendor
from hardpoint.interfaces.probe import Device
from hardpoint.measuring.building import Builders, on_a_device
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.child import LostError
from hardpoint.measuring.results import Failure

# Builds with two backends in turn; prints in which process each was built.
BUILD = """
import json, sys, torch, hardpoint as hp
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.limits import Limits
from hardpoint.measuring import session as sessions
from hardpoint.measuring.session import Session
from hardpoint.package.load import load_package

def main():
    sessions._IDLE_SHARE = float(sys.argv[1])
    program = hp.capture(torch.nn.ReLU().eval(), (torch.randn(3, 4),))
    registry, said = hp.Registry(), []
    with Session(program, registry, limits=Limits(memory_bytes=16 << 30), threads=1) as session:
        for name in ("one", "two", "one", "two"):
            built = session.build(Candidate((hp.Target(name),), {name: "fp32"}))
            assert not hasattr(built, "kind"), built
            model = load_package(built.package, registry=registry)
            said.append([segment.artifact.metadata["process"] for segment in model.segments])
    print(json.dumps(said))

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(("share", "processes"), [(1.0, 2), (1e-9, 4)])
def test_a_process_is_kept_for_its_backend_where_there_is_room(tmp_path, share, processes):
    site = FakeSite(tmp_path / "site")
    for name in ("one", "two"):
        site.add_backend(name, vendor())
    script = tmp_path / "script.py"
    script.write_text(BUILD)
    done = site.run(str(script), str(share), HARDPOINT_ALLOW="backend:one,backend:two")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert [len(one) for one in said] == [1, 1, 1, 1]
    if processes == 2:
        assert said[0] == said[2]
        assert said[1] == said[3]
    assert len({pid for [pid] in said}) == processes


class Worker:
    """A child that builds at once, and says what is done with it."""

    last_stage = "compile"

    def __init__(self, name, notes, answers=()):
        self.name, self.notes, self.answers = name, notes, list(answers)

    def wait(self, seconds):
        self.notes.append(f"start {self.name}")

    def ask(self, command, seconds, on_stage):
        self.notes.append(f"build {self.name}")
        if self.answers:
            raise self.answers.pop(0)
        return {"figures": {}}

    def pause(self):
        pass

    resume = pause

    def resident(self):
        return 100

    def stop(self):
        self.notes.append(f"stop {self.name}")


def builders(notes, *, room=1e9, alone=lambda targets: False, answers=None):
    answers = {} if answers is None else answers
    return Builders(
        lambda names: Worker(names[0], notes, answers.pop(names[0], ())), 1.0, room, alone
    )


def build(made, *names):
    for name in names:
        candidate = Candidate((hp.Target(name),), {name: "fp32"})
        yield made.build(candidate, {}, 1.0, None)


def test_the_longest_unused_goes_first_and_the_last_one_stays():
    notes = []
    made = builders(notes, room=200)
    list(build(made, "a", "b", "a", "c"))
    assert notes == ["start a", "build a", "start b", "build b", "build a", "start c", "build c", "stop b"]  # fmt: skip
    notes.clear()
    list(build(builders(notes, room=0), "a", "a", "b"))
    assert notes == ["start a", "build a", "build a", "start b", "build b", "stop a"]


def test_what_may_hold_a_device_is_gone_before_another_starts():
    notes = []
    made = builders(notes, alone=lambda targets: targets[0].backend == "npu")
    list(build(made, "npu", "npu", "cpu", "npu", "cpu"))
    assert notes == [
        "start npu", "build npu", "build npu", "stop npu", "start cpu", "build cpu",
        "start npu", "build npu", "stop npu", "build cpu",
    ]  # fmt: skip


def crashed():
    return LostError(Failure("crashed", "compile", "killed by SIGKILL"))


def test_one_that_died_while_it_waited_is_replaced_and_the_build_tried_again():
    notes, answers = [], {}
    made = builders(notes, answers=answers)
    assert list(build(made, "a")) == [{}]
    made._idle[("a",)].answers = [crashed()]
    assert list(build(made, "a")) == [{}]
    assert notes == ["start a", "build a", "build a", "start a", "build a"]
    answers["b"] = [crashed()]
    assert [f.kind for f in build(made, "b")] == ["crashed"], "a fresh one has no excuse"


def test_ctrl_c_leaves_no_process_that_nobody_knows_of():
    notes = []
    made = builders(notes, answers={"a": [KeyboardInterrupt()]})
    with pytest.raises(KeyboardInterrupt):
        list(build(made, "a"))
    assert notes[-1] == "stop a"
    assert list(build(made, "b")) == [{}]
    made._alone = lambda targets: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        list(build(made, "c"))
    made.stop()
    assert notes[-1] == "stop b"


class Broken(Provider):
    @hp.hookimpl
    def hardpoint_backend_probe(self, request):
        raise OSError("the driver does not answer")


def test_who_may_hold_memory_of_a_device():
    registry = hp.Registry(path=[])
    npu = Provider("npu")
    npu.backend.devices = lambda: [Device("0", "an NPU", torch_device="npu:0")]
    for name, provider in (("eager", Provider()), ("npu", npu), ("broken", Broken("broken"))):
        registry.add("backend", name, provider)
    for targets, expected in (
        (["eager"], False),
        (["eager:0"], False),
        (["eager:gpu"], True),  # a shallow probe does not list it
        (["npu"], True),
        (["eager", "npu"], True),
        (["broken"], True),
    ):
        assert on_a_device(registry, [hp.Target.parse(t) for t in targets]) is expected, targets
