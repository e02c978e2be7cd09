"""A target that is lost or full at run time: the chain of `fallback=`, and what stays as it was."""

from __future__ import annotations

import gc
import threading
import warnings

import pytest
import torch
from torch import nn

import hardpoint as hp
from eager_backend import Provider
from hardpoint import Executable
from splitting import Scatter, program

ONES = torch.ones(2, 4)


class Breakable(Executable):
    """Works until its `switch` holds an error; then each call raises it."""

    def __init__(self, inner, switch):
        self.inner, self.switch, self.calls, self.closed = inner, switch, 0, 0

    def __call__(self, *inputs):
        self.calls += 1
        if self.switch["error"] is not None:
            raise self.switch["error"]()
        with torch.autocast("cpu", enabled=False):  # as the contract asks of each backend
            return self.inner(*inputs)

    def close(self):
        self.closed += 1


class Wrong(Executable):
    """Gives other numbers than eager PyTorch."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, *inputs):
        return tuple(out + 1 for out in self.inner(*inputs))


class World:
    """Backends `a`, `b`, `c` that can be broken, `wrong`, and `picky`; and what is heard of them."""

    def __init__(self):
        self.registry, self.events = hp.Registry(path=[]), []
        self.switches = {name: {"error": None} for name in "abc"}
        self.made: dict[str, list] = {name: [] for name in "abc"}
        for name in "abc":
            self.registry.add("backend", name, Provider(name, spoil=self._breakable(name), strided=name != "b"))  # fmt: skip
        self.registry.add("backend", "wrong", Provider("wrong", spoil=Wrong))
        self.registry.add("backend", "picky", Provider("picky", claims=lambda node: False))
        self.registry.observe(lambda e: self.events.append(e) if e.kind == "fell back" else None)

    def _breakable(self, name):
        def spoil(inner):
            self.made[name].append(Breakable(inner, self.switches[name]))
            return self.made[name][-1]

        return spoil

    def compile(self, case="counter", targets=("a",), run=1, **options):
        captured = program(case) if isinstance(case, str) else case
        plan = hp.plan(captured, targets=targets, partitioner=Scatter(1, len(targets), run), registry=self.registry)  # fmt: skip
        return hp.compile(plan, registry=self.registry, **options)

    def lose(self, name, error=lambda: hp.DeviceLost("the watchdog reset it")):
        self.switches[name]["error"] = error


@pytest.fixture
def world():
    return World()


@pytest.mark.parametrize("error", [MemoryError, lambda: hp.DeviceLost("the watchdog reset it")])
def test_the_model_goes_on_elsewhere_with_the_state_that_it_had(world, error):
    model, peer = world.compile(fallback="b"), world.compile()
    for _ in range(2):
        assert torch.equal(model(ONES), peer(ONES))
    world.switches["a"]["error"], kept = error, world.switches["a"]
    with pytest.warns(hp.HardpointWarning):
        got = model(ONES)
    kept["error"] = None
    assert torch.equal(got, peer(ONES))
    assert int(model.held["count"]) == 3, "the call that failed wrote nothing; its repeat did"
    assert [str(s.target) for s in model.segments] == ["b"]
    assert torch.equal(model(ONES), peer(ONES))


def test_the_warning_the_event_and_the_model_say_what_happened(world):
    model = world.compile(fallback=["b", "c"])
    world.lose("a")
    with pytest.warns(hp.HardpointWarning) as heard:
        model(ONES)
    name = model.facts.name
    assert [str(w.message) for w in heard] == [
        f"{name}: segment s0 falls back from a to b in fp32: the watchdog reset it"
    ]
    assert heard[0].filename == __file__
    (event,) = world.events
    assert event.provider == "backend:a"
    assert {k: v for k, v in event.data.items() if k != "seconds"} == {
        "program": name, "segment": "s0", "from": "a", "to": ["b"], "precision": "fp32",
        "reason": "the watchdog reset it", "passed_over": [],
    }  # fmt: skip
    assert model.fell_back == (event.data,)
    assert [row["target"] for row in model.facts.plan["segments"]] == ["b"]
    assert model.verification["fell_back"] == [event.data]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(ONES)
    assert len(world.events) == 1


def test_without_a_fallback_the_error_names_the_remedy(world):
    model = world.compile()
    world.lose("a", MemoryError)
    with pytest.raises(hp.OutOfMemory, match=r"remedy: .*compile with fallback=\['cpu'\]"):
        model(ONES)
    assert model.fell_back == ()


def test_targets_that_cannot_take_it_are_passed_over_with_their_reasons(world):
    model = world.compile(fallback=["picky", "wrong", "a", "c"])
    world.lose("a")
    with pytest.warns(hp.HardpointWarning, match="falls back from a to c"):
        model(ONES)
    (refused, wrong) = model.fell_back[0]["passed_over"]
    assert refused.startswith("picky: it cannot run ")
    assert "is not claimed" in refused
    assert wrong.startswith("wrong: segment s0 gives wrong numbers on wrong: error ")


def test_where_no_target_is_left_the_last_error_tells_every_reason(world):
    model = world.compile(fallback=["wrong", "b"])
    world.lose("a", MemoryError)
    with pytest.warns(hp.HardpointWarning, match="from a to b"):
        model(ONES)
    world.lose("b")
    for _ in range(2):  # what did not work is not tried once more
        made = len(world.made["b"])
        with pytest.raises(hp.DeviceLost) as error:
            model(ONES)
        text = str(error.value)
        assert text.startswith("the watchdog reset it\n  provider: backend:b (from this process)\n")
        assert "no fallback is left: a: segment s0 on a ran out of memory: MemoryError" in text
        assert "; wrong: segment s0 gives wrong numbers" in text
        assert text.endswith("remedy: name further targets with fallback=, or make the model again")
        assert len(world.made["b"]) == made
    assert int(model.held["count"]) == 1


def test_the_only_target_as_its_own_fallback_is_none(world):
    model = world.compile(fallback="a")
    world.lose("a")
    with pytest.raises(hp.DeviceLost, match="cause: fallback= names no other"):
        model(ONES)


@pytest.mark.parametrize("bad", [torch.ones(2, 4).double(), torch.ones(2, 5), "text"])
def test_a_wrong_input_never_falls_back(world, bad):
    model = world.compile(fallback="b")
    with pytest.raises(hp.InputError):
        model(bad)
    assert model.fell_back == ()
    assert not world.made["b"]


def test_another_failure_of_the_provider_never_falls_back(world):
    model = world.compile(fallback="b")
    world.lose("a", lambda: RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(hp.ProviderFailed):
        model(ONES)
    assert not world.made["b"]


def test_only_the_segments_concerned_move(world):
    model = world.compile("grouped_attention", ("a", "c"), fallback="b")
    x = torch.randn(2, 3, 8)
    want = model(x)
    world.lose("a")
    with pytest.warns(hp.HardpointWarning):
        got = model(x)
    torch.testing.assert_close(got, want)
    before = {row["segment"]: row["from"] for row in model.fell_back}
    assert set(before.values()) == {"a"}
    assert {str(s.target) for s in model.segments} == {"b", "c"}
    assert len(world.events) == len(before) > 1


def test_a_device_that_was_lost_is_not_gone_to_again(world):
    model = world.compile("grouped_attention", ("a", "c"), fallback=["a", "b"])
    x = torch.randn(2, 3, 8)
    world.lose("a")
    with pytest.warns(hp.HardpointWarning):
        model(x)
    world.switches["a"]["error"] = None  # it answers again, but its context is gone
    world.lose("c", MemoryError)
    with pytest.warns(hp.HardpointWarning):
        model(x)
    assert {str(s.target) for s in model.segments} == {"b"}
    from_c = next(row for row in model.fell_back if row["from"] == "c")
    assert from_c["passed_over"] == ["a: its device was lost before"]


@pytest.mark.parametrize("case", ["counter", "plain"])
def test_eight_threads_in_one_fault_fall_back_once_and_all_get_their_results(world, case):
    plain = hp.capture(nn.Linear(4, 4).eval(), (ONES,), registry=hp.Registry(path=[]))
    captured = program("counter") if case == "counter" else plain
    model = world.compile(captured, fallback="b")
    want = None if case == "counter" else model(ONES)
    start, found = threading.Barrier(8), []

    def work():
        start.wait()
        for i in range(20):
            if i == 5:
                world.lose("a")
            found.append(model(ONES))

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 160
    assert len(model.fell_back) == len(world.events) == len(world.made["b"]) == 1
    assert sum(issubclass(w.category, hp.HardpointWarning) for w in heard) == 1
    if want is None:
        assert int(model.held["count"]) == 160
    else:
        assert all(torch.allclose(got, want) for got in found)


def test_what_was_left_is_closed_when_the_last_call_is_out_of_it(world):
    model = world.compile(fallback="b")
    world.lose("a")
    with pytest.warns(hp.HardpointWarning):
        model(ONES)
    gc.collect()
    assert [e.closed for e in world.made["a"]] == [1]
    model.close()
    assert [e.closed for e in (*world.made["a"], *world.made["b"])] == [1, 1]


@pytest.mark.parametrize(
    "mode", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_the_mode_of_the_call_that_falls_back_does_not_reach_what_is_compiled(world, mode):
    model = world.compile("counter", fallback="b")
    world.lose("a")
    with mode(), pytest.warns(hp.HardpointWarning, match="from a to b"):
        model(ONES)
    assert model.verification["segments"]["s0"]["error"] == 0
    model(ONES)
    assert int(model.held["count"]) == 2


def test_a_warning_that_is_made_an_error_leaves_a_model_that_goes_on(world):
    model = world.compile(fallback="b")
    world.lose("a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(hp.HardpointWarning, match="falls back from a to b"):
            model(ONES)
        assert int(model.held["count"]) == 0
        model(ONES)
    assert int(model.held["count"]) == 1


def test_precision_of_the_target_where_it_has_the_one_asked_for_and_else_fp32():
    registry, switch = hp.Registry(path=[]), {"error": None}
    registry.add("backend", "a", Provider("a", spoil=lambda inner: Breakable(inner, switch), precisions=("fp32", "bf16")))  # fmt: skip
    registry.add("backend", "b", Provider("b"))
    plan = hp.plan(program("counter"), targets="a", partitioner=Scatter(1, 1, 1), registry=registry)
    model = hp.compile(plan, registry=registry, precision="bf16", fallback="b")
    switch["error"] = MemoryError
    with pytest.warns(hp.HardpointWarning, match="from a to b in fp32: segment s0 on a ran out of"):
        model(ONES)


def test_a_fault_while_compiling_falls_back_too(world):
    world.lose("a", MemoryError)
    with pytest.warns(hp.HardpointWarning, match="from a to b") as heard:
        model = world.compile(fallback="b")
    assert heard[0].filename == __file__
    assert [str(s.target) for s in model.segments] == ["b"]
    assert len(world.events) == len(model.fell_back) == 1
    assert torch.equal(model(ONES), model(ONES) / 2)
    assert model.facts.plan["segments"][0]["target"] == "b"


def test_a_fault_in_the_last_check_of_compiling_falls_back_too(world):
    calls = []

    def third():
        calls.append(1)
        return hp.DeviceLost("late")

    class Late(Breakable):
        def __call__(self, *inputs):
            if self.calls == 1:
                raise third()
            return super().__call__(*inputs)

    registry = hp.Registry(path=[])
    registry.add("backend", "a", Provider("a", spoil=lambda inner: Late(inner, {"error": None})))
    registry.add("backend", "b", Provider("b"))
    plan = hp.plan(program("counter"), targets="a", partitioner=Scatter(1, 1, 1), registry=registry)
    with pytest.warns(hp.HardpointWarning, match="from a to b in fp32: late"):
        model = hp.compile(plan, registry=registry, fallback="b")
    assert calls == [1]
    assert int(model.held["count"]) == 0
    assert model.verification["segments"]["s0"]["error"] == 0
    assert [row["reason"] for row in model.verification["fell_back"]] == ["late"]


def test_a_fallback_that_nobody_provides_is_told_at_once(world):
    with pytest.raises(hp.ProviderNotFound, match="nothing installed provides backend:d"):
        world.compile(fallback=["b", "d"])


def test_options_and_precision_may_name_a_backend_of_the_chain(world):
    model = world.compile(fallback="b", options={"b": {"threads": 1}}, precision={"b": "fp32"})
    assert model.fell_back == ()
    with pytest.raises(hp.ConfigError, match="the plan uses: a, b"):
        world.compile(fallback="b", options={"c": {}})
