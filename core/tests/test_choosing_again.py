"""What may be taken from an earlier choice, and what must be measured again."""

import sqlite3
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import hardpoint as hp
from hardpoint.choosing import choose, identity
from hardpoint.choosing.cache import open_cache
from hardpoint.choosing.database import NAME, Known
from hardpoint.choosing.memory import Memory, worth_another_try
from hardpoint.choosing.request import read_request
from hardpoint.choosing.row import Row
from hardpoint.compiler.fallback import later
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.limits import allowed_memory
from hardpoint.measuring.results import Failure

KEY = ("program", "machine", "environment", "candidate")
LIMITS = {"candidate_seconds": 300.0, "memory": 10**9}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HARDPOINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def failed(kind):
    row = Row(Candidate((hp.Target("npu"),), {"npu": "fp32"}), "failed")
    return row.failed(Failure(kind, "compile", "why"))


@pytest.mark.parametrize(
    ("kind", "now", "attempts", "again"),
    [
        ("hung", {"candidate_seconds": 300.0}, 1, False),
        ("hung", {"candidate_seconds": 301.0}, 1, True),
        ("memory", {"memory": 1.2 * 10**9}, 1, False),  # what is free differs from day to day
        ("memory", {"memory": 2 * 10**9}, 1, True),
        ("memory", {"memory": None}, 1, False),
        ("crashed", {}, 1, True),
        ("crashed", {}, 2, False),
        ("refused", {"candidate_seconds": 9e9, "memory": 10**12}, 1, False),
    ],
)
def test_a_failure_counts_as_long_as_its_limits_do(kind, now, attempts, again):
    why = Failure(kind, "compile", "why")
    assert worth_another_try(why, LIMITS, {**LIMITS, **now}, attempts) is again


@pytest.mark.parametrize(("budget", "again"), [(None, False), (900.0, True)])
def test_a_choice_that_gave_one_up_as_hung_is_made_again_with_more_time(budget, again):
    allowed = hp.Budget() if budget is None else hp.Budget(candidate_seconds=budget)
    request = read_request("latency", "fp32", None, None, allowed)
    chooser = choose._Chooser(None, hp.Registry(path=[]), request, None, 1, 0.0, ("p", "m"))
    assert chooser._may_pass_now(failed("hung"), LIMITS) is again
    assert not chooser._may_pass_now(failed("crashed"), LIMITS)
    assert not chooser._may_pass_now(failed("hung"), None)  # kept by nobody knows whom


def test_what_memory_was_allowed_is_known_where_nobody_named_it():
    assert allowed_memory(5) == 5
    assert allowed_memory(None) is None or allowed_memory(None) > 10**7


def test_a_database_that_fails_costs_the_memory_and_never_the_choice(tmp_path):
    cache = open_cache()
    memory = Memory(cache)
    cache.close()  # any later use is an error of sqlite3
    with pytest.warns(hp.HardpointWarning, match="what is measured now is not remembered: "):
        assert memory.candidate(KEY) is None
    # Said once; from now on nothing is known and nothing kept.
    assert memory.choice(KEY) is None
    memory.keep(KEY, Known({}, None, 1, {}))
    memory.keep_choice(KEY, {}, "abc")
    (tmp_path / "package").write_bytes(b"x")
    assert memory.put(tmp_path / "package") is None
    assert (tmp_path / "package").exists()


@pytest.mark.parametrize("text", ["{", "[]", "null", ""])
def test_a_row_that_is_damaged_inside_is_measured_again(folder, text):
    cache = open_cache()
    cache.database.keep_candidate(KEY, Known({"a": 1}, None, 1, {}))
    cache.database.keep_choice(KEY, {"a": 1}, "abc")
    with sqlite3.connect(folder / NAME) as known:
        known.execute("UPDATE candidates SET row = ?", [text])
        known.execute("UPDATE choices SET choice = ?", [text])
    assert cache.database.candidate(*KEY) is None
    assert cache.database.choice(*KEY) is None
    cache.close()


def test_failures_in_a_row_are_counted_and_a_success_ends_them():
    cache = open_cache()
    memory, row = Memory(cache), failed("crashed")
    for attempts in (1, 2):
        memory.keep_row(KEY, row, None, LIMITS)
        assert memory.candidate(KEY).attempts == attempts
    memory.keep_row(KEY, Row(row.candidate, "ready"), "abc", LIMITS)
    memory.keep_row(KEY, row, None, LIMITS)
    known = memory.candidate(KEY)
    assert (known.attempts, known.limits) == (1, LIMITS)
    cache.close()


def test_half_written_packages_of_long_ago_are_removed(folder, tmp_path, monkeypatch):
    cache = open_cache()
    left = folder / "packages" / ".0123.tmp"
    left.write_bytes(b"x")
    cache.trim("none")
    assert left.exists()  # somebody may be writing it
    monkeypatch.setattr("hardpoint.choosing.cache._LEFT_SECONDS", -1.0)
    cache.trim("none")
    assert not left.exists()
    cache.close()


def test_who_waits_in_vain_for_another_measurement_is_told():
    cache, other, measured = open_cache(), open_cache(), []
    request = read_request("latency", "fp32", None, None, 0.01)
    chooser = SimpleNamespace(
        recall=lambda memory: None, measure=lambda memory, folder: measured.append(folder)
    )
    with other.lock(0.0, lambda: None) as held:
        assert held
        with pytest.warns(hp.HardpointWarning, match="another process still measures after 0.01"):
            choose._with_cache(chooser, cache, request, None)
    assert measured == [None]  # not in the folder of the other
    cache.close()
    other.close()


def test_another_partitioner_makes_other_mixes(monkeypatch):
    registry, stamp = hp.Registry(), identity.stamp
    if "capability" not in registry.names("partitioner"):
        pytest.skip("needs a partitioner")
    cuts = registry.record("partitioner", "capability").dist
    before = identity.of_backends(registry, [], "capability")
    assert identity.of_backends(registry, []) != before
    newer = lambda dist, file="": "newer" if dist == cuts else stamp(dist, file)  # noqa: E731
    monkeypatch.setattr(identity, "stamp", newer)
    assert identity.of_backends(registry, [], "capability") != before


def test_settings_that_change_the_arithmetic_are_part_of_the_machine(monkeypatch):
    monkeypatch.delenv("ONEDNN_DEFAULT_FPMATH_MODE", raising=False)
    before = identity.of_machine(1)
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    assert identity.of_machine(1) != before


def test_a_lazily_conjugated_tensor_is_another_and_one_without_bytes_is_like_no_other():
    value = torch.tensor([1 + 2j])
    assert identity._of_tensor(value) == identity._of_tensor(value.clone())
    assert identity._of_tensor(value) != identity._of_tensor(value.conj())
    empty = torch.empty(3, device="meta")
    assert identity._of_tensor(empty) != identity._of_tensor(empty)


class Double(nn.Module):
    def forward(self, x):
        return x.double() * 2 if x.dtype is torch.float32 else x * 2


@pytest.mark.parametrize(
    ("dtype", "arguments", "limit"),
    [
        (torch.float64, {}, 1e-9),
        (torch.float64, {"max_error": 1e-3}, 1e-3),
        (torch.float32, {}, 1e-4),
    ],
)
def test_a_program_of_float64_must_be_computed_so(monkeypatch, dtype, arguments, limit):
    asked = []

    class EnoughError(Exception):
        pass

    def choosing(program, *, request, **_):
        asked.append(request.max_error)
        raise EnoughError

    monkeypatch.setattr(choose, "choose", choosing)
    program = hp.capture(Double().eval(), (torch.ones(3, dtype=dtype),))
    with pytest.raises(EnoughError):
        hp.compile(program, registry=hp.Registry(path=[]), **arguments)
    assert asked == [{"fp32": limit}]


def test_the_fallback_of_what_was_chosen_has_the_options_that_were_asked_for(monkeypatch):
    monkeypatch.setattr("hardpoint.compiler.recover.Recovery.__call__", lambda made, *_: made)
    model = SimpleNamespace(facts=SimpleNamespace(verification={"allowed": 1e-3}))
    options = {"cpu": {"mode": "eager"}}
    recovery = later((hp.Target("cpu"),), hp.Registry(path=[]), model, options)(model, None)
    assert (recovery.request.options, recovery.request.max_error) == (options, 1e-3)
