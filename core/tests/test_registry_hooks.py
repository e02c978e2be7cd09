"""Every hook is dispatched to one provider; wrappers are around it, observers beside it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import hardpoint
from fakes.plugins import BackendPlugin, EveryKind
from hardpoint import Event, HardpointWarning, Probe, ProbeRequest, hookimpl
from hardpoint.interfaces.kinds import Kind


@pytest.fixture
def registry() -> hardpoint.Registry:
    """Two providers of each kind, all by one object, so that a broadcast would be noticed."""
    registry = hardpoint.Registry(path=[])
    plugin = EveryKind()
    for kind in ("serializer", "backend", "partitioner", "transport"):
        registry.add(kind, "one", plugin)
        registry.add(kind, "two", plugin)
    return registry


def probe(registry: hardpoint.Registry, kind: Kind) -> Probe:
    return registry.probe(kind, "one", ProbeRequest(deep=True))


def test_hook_hardpoint_serializer_info(registry: hardpoint.Registry) -> None:
    assert registry.info("serializer", "one").suffixes == (".empty",)


def test_hook_hardpoint_serializer_probe(registry: hardpoint.Registry) -> None:
    assert probe(registry, "serializer").available


def test_hook_hardpoint_serializer_open(registry: hardpoint.Registry) -> None:
    assert isinstance(registry.open("serializer", "one"), hardpoint.Serializer)


def test_hook_hardpoint_backend_info(registry: hardpoint.Registry) -> None:
    assert registry.info("backend", "one").precisions == ("fp32",)


def test_hook_hardpoint_backend_probe(registry: hardpoint.Registry) -> None:
    assert probe(registry, "backend").notes == ("deep=True",)


def test_hook_hardpoint_backend_open(registry: hardpoint.Registry) -> None:
    assert registry.open("backend", "one").devices()[0].id == "0"


def test_hook_hardpoint_partitioner_info(registry: hardpoint.Registry) -> None:
    assert registry.info("partitioner", "one").objectives == ("latency",)


def test_hook_hardpoint_partitioner_probe(registry: hardpoint.Registry) -> None:
    assert probe(registry, "partitioner").available


def test_hook_hardpoint_partitioner_open(registry: hardpoint.Registry) -> None:
    assert isinstance(registry.open("partitioner", "one"), hardpoint.Partitioner)


def test_hook_hardpoint_transport_info(registry: hardpoint.Registry) -> None:
    assert registry.info("transport", "one").devices == ("cpu",)


def test_hook_hardpoint_transport_probe(registry: hardpoint.Registry) -> None:
    answer = probe(registry, "transport")
    assert (answer.available, answer.remedy) == (False, "make friends")


def test_hook_hardpoint_transport_open(registry: hardpoint.Registry) -> None:
    assert isinstance(registry.open("transport", "one"), hardpoint.Transport)


class Watching:
    def __init__(self) -> None:
        self.seen: list[Event] = []

    @hookimpl
    def hardpoint_event(self, event: Event) -> None:
        self.seen.append(event)


def test_hook_hardpoint_event() -> None:
    registry, watching, told = hardpoint.Registry(path=[]), Watching(), list[Event]()
    registry.observe(watching)
    unsubscribe = registry.observe(told.append)
    registry.add("backend", "npu", BackendPlugin())
    unsubscribe()
    registry.emit(Event("ran", "backend:npu"))
    assert [event.kind for event in watching.seen] == ["loaded", "ran"]
    assert [event.kind for event in told] == ["loaded"]


def test_each_scan_tells_of_each_provider_once(tmp_path: Any) -> None:
    from fakes.dists import FakeSite

    site = FakeSite(tmp_path)
    site.add_backend("a")
    site.add_backend("b")
    registry, told = hardpoint.Registry(path=[str(tmp_path)]), list[Event]()
    registry.observe(told.append)
    registry.records()
    registry.records()
    assert sorted(event.provider for event in told) == ["backend:a", "backend:b"]
    assert {event.kind for event in told} == {"discovered"}
    registry.reload()
    assert len(told) == 4


def test_a_failure_is_told_with_its_stage_and_parts(tmp_path: Any) -> None:
    from fakes.dists import FakeSite

    FakeSite(tmp_path).add_backend("npu")  # not on sys.path: cannot be imported
    registry, told = hardpoint.Registry(path=[str(tmp_path)]), list[Event]()
    registry.observe(told.append)
    with pytest.raises(hardpoint.ProviderFailed):
        registry.open("backend", "npu")
    assert (told[-1].kind, told[-1].data["stage"]) == ("failed", "load")
    assert "No module named 'acme_npu'" in str(told[-1].data["cause"])


@pytest.mark.parametrize("error", [ValueError("I am out of ink"), SystemExit(1)])
def test_an_observer_that_raises_stops_nothing_and_warns_once(error: BaseException) -> None:
    registry, told = hardpoint.Registry(path=[]), list[Event]()

    def broken(event: Event) -> None:
        raise error

    registry.observe(broken)
    registry.observe(told.append)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        registry.emit(Event("ran"))
        registry.emit(Event("ran"))
    (warning,) = warned
    assert warning.category is HardpointWarning
    assert "an observer raised on 'ran' of the host and was ignored" in str(warning.message)
    assert len(told) == 2


def test_what_cannot_observe_is_refused() -> None:
    class OldArgument:
        @hookimpl
        def hardpoint_event(self, happening: Event) -> None:
            return None

    registry = hardpoint.Registry(path=[])
    with pytest.raises(hardpoint.ConfigError, match="neither callable nor has a hook"):
        registry.observe(3)
    with pytest.raises(hardpoint.ConfigError, match=r"hookspec definition: hardpoint_event\(event"):
        registry.observe(OldArgument())


class Tracing:
    """An embedder's wrappers: note every call, and refuse some."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    @hookimpl(wrapper=True)
    def hardpoint_backend_info(self) -> Iterator[Any]:
        self.calls.append("info")
        return (yield)

    @hookimpl(wrapper=True)
    def hardpoint_backend_probe(self, request: ProbeRequest) -> Iterator[Any]:
        self.calls.append(f"probe deep={request.deep}")
        return (yield)

    @hookimpl(wrapper=True)
    def hardpoint_backend_open(self, config: dict[str, object]) -> Iterator[Any]:
        self.calls.append(f"open {config}")
        if config.get("forbidden"):
            raise PermissionError("the embedder says no")
        return (yield)


def test_an_embedders_wrappers_see_every_dispatch_also_of_providers_loaded_later() -> None:
    registry, tracing = hardpoint.Registry(path=[]), Tracing()
    registry.add("backend", "early", BackendPlugin())
    unwrap = registry.wrap(tracing)
    registry.add("backend", "late", BackendPlugin())
    registry.probe("backend", "early")
    registry.open("backend", "late", {"threads": 2})
    with pytest.raises(hardpoint.ProviderFailed, match="PermissionError: the embedder says no"):
        registry.open("backend", "early", {"forbidden": True})
    unwrap()
    registry.open("backend", "early")
    assert tracing.calls == [
        "info", "probe deep=False", "open {'threads': 2}", "open {'forbidden': True}"
    ]  # fmt: skip


def test_a_wrapper_that_is_none_would_answer_for_providers_and_is_refused() -> None:
    registry = hardpoint.Registry(path=[])
    with pytest.raises(hardpoint.ConfigError, match="hardpoint_backend_info must be a wrapper"):
        registry.wrap(BackendPlugin())
    with pytest.raises(hardpoint.ConfigError, match="no function marked"):
        registry.wrap(object())
    registry.add("backend", "npu", BackendPlugin())


def test_a_wrapper_is_told_which_provider_it_wraps(registry: hardpoint.Registry) -> None:
    asked: list[str] = []

    class Trace:
        @hookimpl(wrapper=True)
        def hardpoint_backend_probe(self, request: ProbeRequest, provider: str) -> Iterator[None]:
            asked.append(provider)
            return (yield)

    registry.wrap(Trace())
    registry.probe("backend", "two")
    registry.probe("backend", "one")
    assert asked == ["two", "one"]
