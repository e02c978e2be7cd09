"""Telemetry that fails, or that nobody set up, changes nothing for the host."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler

import hardpoint as hp
from hardpoint_contrib_otel import instrument


class Exporter(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        raise ConnectionError("the collector is away")


class AtStart(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("no room for a span")


class AtEnd(SpanProcessor):
    def on_end(self, span: Any) -> None:
        raise RuntimeError("no room for a span")


class Draw(Sampler):
    def should_sample(self, *arguments: Any, **more: Any) -> Any:
        raise RuntimeError("no coin to toss")

    def get_description(self) -> str:
        return "raises"


def provider_of(broken: Any) -> TracerProvider:
    if isinstance(broken, Sampler):
        return TracerProvider(sampler=broken)
    made = TracerProvider()
    made.add_span_processor(broken)
    return made


@pytest.mark.parametrize(
    "broken",
    [SimpleSpanProcessor(Exporter()), AtStart(), AtEnd(), Draw()],
    ids=["exporter", "processor at start", "processor at end", "sampler"],
)
def test_telemetry_that_raises_breaks_no_call_and_no_error(
    broken: Any, plugin: Any, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    def probes() -> Any:
        raise ValueError("the provider's own")

    registry = hp.Registry(path=[])
    instrument(registry, provider_of(broken))
    registry.add("partitioner", "told", plugin())
    assert isinstance(registry.open("partitioner", "told"), hp.Partitioner)
    registry.add("partitioner", "bad", plugin(probe=probes))
    with pytest.raises(hp.ProviderFailed, match="could not be probed") as failure:
        registry.probe("partitioner", "bad")
    assert failure.value.cause == "ValueError: the provider's own"
    assert not recwarn.list, "the core would warn of an observer that raises"
    assert caplog.records, "whoever runs the host can find out"


def test_each_failure_of_telemetry_is_logged_once(
    plugin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    registry = hp.Registry(path=[])
    instrument(registry, provider_of(AtStart()))
    registry.add("partitioner", "told", plugin())
    with caplog.at_level(logging.ERROR, "hardpoint_contrib_otel"):
        caplog.clear()
        for _ in range(3):
            registry.open("partitioner", "told")
    ours = [r for r in caplog.records if r.name == "hardpoint_contrib_otel"]
    assert [r.getMessage() for r in ours] == [
        "tracing failed while a span for open began; the call itself goes on (said once)"
    ]
    assert ours[0].exc_info is not None


def test_an_interrupt_by_the_user_passes(plugin: Any, spans: Any) -> None:
    def opens() -> Any:
        raise KeyboardInterrupt

    registry = hp.Registry(path=[])
    instrument(registry, spans.provider)
    registry.add("partitioner", "told", plugin(open=opens))
    with pytest.raises(KeyboardInterrupt):
        registry.open("partitioner", "told")
    assert spans.one("hardpoint.open").attributes["error.type"] == "KeyboardInterrupt"


def test_without_an_sdk_or_with_sampling_off_there_is_nothing_to_see(
    plugin: Any, spans: Any
) -> None:
    registry = hp.Registry(path=[])
    instrument(registry)
    off = TracerProvider(sampler=ALWAYS_OFF)
    off.add_span_processor(SimpleSpanProcessor(spans.exporter))
    instrument(registry, off)
    registry.add("partitioner", "told", plugin())
    registry.open("partitioner", "told")
    assert spans.all() == ()


def test_two_hosts_in_one_process_each_see_their_own(plugin: Any, spans: Any) -> None:
    mine, yours = hp.Registry(path=[]), hp.Registry(path=[])
    instrument(mine, spans.provider)
    yours.add("partitioner", "told", plugin())
    assert spans.all() == ()
    mine.add("partitioner", "told", plugin())
    assert spans.names() == ["hardpoint.info", "hardpoint.load"]


def test_instrumenting_imports_neither_torch_nor_the_sdk() -> None:
    code = (
        "import hardpoint, sys\n"
        "from hardpoint_contrib_otel import instrument\n"
        "instrument(hardpoint.Registry())\n"
        "print([m for m in ('torch', 'opentelemetry.sdk') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
