"""A registry, an exporter that keeps spans in memory, and a provider that does as it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import hardpoint as hp
from hardpoint_contrib_otel import instrument


@dataclass
class Spans:
    """Spans that ended, in order, in a provider of their own."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    provider: TracerProvider = field(default_factory=TracerProvider)

    def __post_init__(self) -> None:
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def all(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def names(self) -> list[str]:
        return [span.name for span in self.all()]

    def one(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.all() if span.name == name]
        return found


class Plugin:
    """A partitioner whose hooks call what the test gives; it partitions nothing."""

    def __init__(self, **hooks: Callable[[], Any]) -> None:
        self.hooks = hooks

    def _or(self, hook: str, usual: object) -> Any:
        return self.hooks[hook]() if hook in self.hooks else usual

    @hp.hookimpl
    def hardpoint_partitioner_info(self) -> hp.PartitionerInfo:
        usual = hp.PartitionerInfo(requires_api=(1, 0), summary="told", objectives=("latency",))
        return self._or("info", usual)

    @hp.hookimpl
    def hardpoint_partitioner_probe(self, request: hp.ProbeRequest) -> hp.Probe:
        return self._or("probe", hp.Probe.ready())

    @hp.hookimpl
    def hardpoint_partitioner_open(self, config: Mapping[str, object]) -> hp.Partitioner:
        return self._or("open", Nothing())


class Nothing(hp.Partitioner):
    def partition(self, *arguments: object) -> hp.Assignment:
        return hp.Assignment({})


@pytest.fixture(autouse=True)
def no_policy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HARDPOINT_ALLOW", "HARDPOINT_DENY", "HARDPOINT_CONFIG", "HARDPOINT_LOCK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def registry(spans: Spans) -> hp.Registry:
    """An instrumented registry of all that is installed."""
    made = hp.Registry()
    instrument(made, spans.provider)
    return made


@pytest.fixture
def plugin() -> type[Plugin]:
    return Plugin
