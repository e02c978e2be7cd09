"""The conformance kit's bench for backends: what it runs where, and how it says what is wrong."""

import io
import itertools
import pickle
import threading
import zipfile

import pytest
import torch

import hardpoint as hp
from eager_backend import Provider
from hardpoint.testing.backend.bench import bench_of
from hardpoint.testing.backend.host import HostBackend
from hardpoint.testing.backend.judge import agree
from hardpoint.testing.backend.packages import _pickle_in
from hardpoint.testing.backend.small import BINARY, UNARY, floats, turned
from hardpoint.testing.backend.split import FirstFit, alternate, only
from hardpoint.testing.backend.watch import computes, cpu_kernels
from hardpoint.testing.check import CheckFailed
from hardpoint.testing.models import MODELS
from hardpoint.testing.settings import Settings
from hardpoint.testing.subject import Subject


def subject(settings: Settings | None = None, **provider) -> Subject:
    registry = hp.Registry(path=[])
    registry.add("backend", "toy", Provider("toy", **provider))
    return Subject("backend", "toy", settings or Settings(), registry=registry)


def claims_only(*operators):
    return lambda node: str(node.target) in operators


# -- what runs ------------------------------------------------------------------------------------


def test_of_a_group_of_programs_those_that_are_claimed_whole_are_run_as_one():
    bench = bench_of(subject(claims=claims_only("aten.relu.default", "aten.add.Tensor")))
    ready = bench.claimed({**UNARY, **BINARY}, floats(4, 8))
    assert [part.name for part in ready.parts] == ["relu", "x + x", "x + y"]
    with ready.opened() as opened:
        got = ready.call(opened, floats(4, 8))
    ready.judge(got, floats(4, 8), "here")
    assert len(got) == 3


def test_a_backend_that_claims_none_of_a_group_is_skipped_with_its_own_reasons():
    bench = bench_of(subject(claims=claims_only("aten.conv2d.default")))
    with pytest.raises(pytest.skip.Exception, match=r"it claims none .*: aten.relu.default is not"):
        bench.claimed(UNARY, floats(4, 8))


def test_a_program_that_takes_one_input_is_given_one():
    bench = bench_of(subject(claims=claims_only("aten.relu.default")))
    ready = bench.claimed({**UNARY, **BINARY}, floats(4, 8))
    assert ready.small.inputs == 1
    with ready.opened() as opened:
        ready.judge(ready.call(opened, floats(4, 8)), floats(4, 8), "here")


def test_later_inputs_are_rows_of_the_examples():
    x, y = floats(3, 8)
    turned_x, turned_y = turned([x, y], 1, 5)
    assert torch.equal(turned_x, x[[1, 2, 0, 1, 2]])
    assert torch.equal(turned_y, y[[1, 2, 0, 1, 2]])


def test_the_configuration_of_the_settings_is_there_when_planning_opens_the_backend():
    seen = []

    class Asks(Provider):
        @hp.hookimpl
        def hardpoint_backend_open(self, config):
            seen.append(dict(config))
            return self.backend

    registry = hp.Registry(path=[])
    registry.add("backend", "toy", Asks("toy"))
    settings = Settings(config={"cores": 4})
    bench = bench_of(Subject("backend", "toy", settings, registry=registry))
    with bench.claimed(UNARY, floats(4, 8)).opened():
        pass
    assert seen == [{"cores": 4}] * len(seen)
    assert seen


def test_options_and_precision_of_the_settings_reach_compile():
    seen = []

    class Notes(Provider):
        def __init__(self, name):
            super().__init__(name, precisions=("fp32", "bf16"))
            compile_as_usual = self.backend.compile

            def compile_and_note(program, device, options):
                seen.append((options.precision, dict(options.backend)))
                return compile_as_usual(program, device, options)

            self.backend.compile = compile_and_note

    registry = hp.Registry(path=[])
    registry.add("backend", "toy", Notes("toy"))
    settings = Settings(precision="bf16", options={"mode": "fast"})
    bench = bench_of(Subject("backend", "toy", settings, registry=registry))
    ready = bench.claimed(UNARY, floats(4, 8))
    with ready.opened():
        pass
    bench.model(bench.plan(ready.program, FirstFit(alternate(2)))).close()
    assert seen == [("bf16", {"mode": "fast"})] * len(seen)
    assert len(seen) >= 2


# -- splitting ------------------------------------------------------------------------------------


def targets(split):
    bench = bench_of(subject())
    program = bench.claimed(UNARY, floats(4, 8)).program
    plan = bench.plan(program, split)
    return [segment.target.backend for segment in plan.segments for _ in segment.nodes]


def test_what_is_claimed_stays_and_every_second_of_it_can_be_sent_away():
    assert set(targets(FirstFit())) == {"toy"}
    assert sorted(targets(FirstFit(alternate(99)))) == ["kit-host"] * 4 + ["toy"] * 4


def test_too_many_pieces_become_runs():
    names = [f"n{i}" for i in range(100)]
    away = set(alternate(5)(names))
    runs = sum((a in away) != (b in away) for a, b in itertools.pairwise(names))
    assert len(away) == 50
    assert runs == 9


def test_one_node_can_stay_alone():
    assert only("b")(["a", "b", "c"]) == {"a", "c"}


def test_the_hosts_artifacts_do_not_leave_it():
    with pytest.raises(hp.ArtifactError, match="runs only what it compiled itself"):
        HostBackend().load(hp.Artifact("hardpoint-kit-host/1", metadata={"index": 0}), None)


# -- watching -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["relu", "addmm", "_softmax", "div", "index_select", "convolution"]
)
def test_mathematics_is_computation(name):
    assert computes(name)


@pytest.mark.parametrize("name", ["view", "t", "slice", "empty_strided", "copy_", "_to_copy", "as_strided", "contiguous", "detach", "expand", "reshape"])  # fmt: skip
def test_moving_and_describing_memory_is_none(name):
    assert not computes(name)


def test_kernels_are_seen_also_in_other_threads():
    x = torch.ones(4, 4)
    with cpu_kernels("cpu") as seen:
        x.t().contiguous().to(torch.float16).reshape(-1)
        torch.empty(3).copy_(x[0, :3])
    assert not seen
    with cpu_kernels("cpu") as seen:
        worker = threading.Thread(target=lambda: x @ x)
        worker.start()
        worker.join()
        torch.relu(x)
    assert {"mm", "relu"} <= seen.keys()


# -- judging --------------------------------------------------------------------------------------


def test_a_wrong_number_is_said_with_its_place():
    with pytest.raises(CheckFailed) as raised:
        agree([torch.tensor([1.0, 2.5])], [torch.tensor([1.0, 2.0])], 1e-3, "'relu' here")
    assert str(raised.value) == (
        "'relu' here: result 0 differs from eager by 0.25, at most 0.001 is allowed: "
        "element 1 is 2.5 and must be 2.0"
    )


@pytest.mark.parametrize(
    ("got", "says"),
    [
        (None, "it gave NoneType, not a tuple"),
        ((), "it gave 0 results, not 1"),
        ((3,), "result 0 is int, no tensor"),
        ((torch.zeros(2, 1),), "result 0 is float32[2, 1], the program says float32[2]"),
        ((torch.zeros(2).half(),), "result 0 is float16[2], the program says float32[2]"),
        ((torch.tensor([torch.nan, 0.0]),), "element 0 is nan and must be 0.0"),
    ],
)
def test_a_wrong_kind_of_result_is_said(got, says):
    with pytest.raises(CheckFailed) as raised:
        agree(got, [torch.zeros(2)], 1e-3, "a call")
    assert says in str(raised.value)


def test_pickles_are_found_also_in_archives():
    data = pickle.dumps({"weight": [1.0]})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", data)
    assert _pickle_in(data) == "is a pickle"
    assert _pickle_in(archive.getvalue()) == "holds the pickle 'archive/data.pkl'"
    assert _pickle_in(b"\x80\x04 and then something else") == ""
    assert _pickle_in(b"") == ""


# -- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["convolutional", "decoder", "diffusion", "recurrent"])
def test_a_model_of_the_kit_is_the_same_each_time(name):
    case = MODELS[name]
    state = torch.random.get_rng_state()
    first, again = case.expected(2, dynamic=True), case.expected(2, dynamic=True)
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))  # fmt: skip
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(first[0][0], first[1][0])


def test_a_model_that_is_not_here_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HARDPOINT_MINILM", str(tmp_path))
    assert MODELS["sentences"].missing() == f"{tmp_path} holds no model (config.json is not there)"
