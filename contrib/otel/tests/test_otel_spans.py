"""What a host sees in its traces: names, attributes, times, parents, errors."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

import hardpoint as hp
from hardpoint.events import EVENT_KINDS
from hardpoint_contrib_otel import instrument
from hardpoint_contrib_otel.events import NAMES


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def parent_of(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent else 0


def id_of(span: Any) -> int:
    return int(span.get_span_context().span_id)


def test_every_event_but_discovered_and_failed_has_a_name() -> None:
    assert {*NAMES, "discovered", "failed"} == set(EVENT_KINDS)


def test_a_model_on_its_way_through_is_a_row_of_spans(
    registry: hp.Registry, spans: Any, tmp_path: Path
) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()
    before = time.time()
    program = hp.capture(model, (torch.randn(3, 4),), dynamic={"input": {0: "batch"}}, registry=registry)  # fmt: skip
    plan = hp.plan(program, targets="cpu", registry=registry)
    compiled = hp.compile(plan, registry=registry)
    compiled(torch.randn(5, 4))
    compiled(torch.randn(5, 4))
    compiled.save(tmp_path / "m.pt2")
    after = time.time()
    flow = ("capture", "plan", "compile", "save")
    assert [n for n in spans.names() if n.removeprefix("hardpoint.") in flow] == [
        f"hardpoint.{step}" for step in flow
    ]
    program_name = {"hardpoint.program.name": "Sequential"}
    capture = dict(spans.one("hardpoint.capture").attributes)
    assert capture.pop("hardpoint.program.nodes") > 2
    assert capture == program_name
    assert dict(spans.one("hardpoint.plan").attributes) == {
        **program_name, "hardpoint.provider": "partitioner:capability",
        "hardpoint.kind": "partitioner", "hardpoint.plan.segments": 1,
        "hardpoint.plan.targets": ("cpu",),
    }  # fmt: skip
    assert dict(spans.one("hardpoint.compile").attributes) == {
        **program_name, "hardpoint.plan.targets": ("cpu",), "hardpoint.precision": "fp32",
        "hardpoint.verification.max_error": 0.0,
    }  # fmt: skip
    saved = {**program_name, "hardpoint.package.path": str(tmp_path / "m.pt2")}
    assert dict(spans.one("hardpoint.save").attributes) == saved
    # One for the example's sizes, when it was verified, and one for those of the first call.
    assert spans.names().count("hardpoint.run") == 2
    for step in flow:
        span = spans.one(f"hardpoint.{step}")
        assert 0 < seconds(span) < after - before
        assert before - 0.01 <= span.start_time / 1e9 <= span.end_time / 1e9 <= after + 0.01
        assert span.status.status_code is StatusCode.UNSET
    inner = [s for s in spans.all() if s.name == "hardpoint.open"]
    assert sum(map(seconds, inner)) > 0


def test_a_load_is_told_with_its_distribution_and_time(registry: hp.Registry, spans: Any) -> None:
    registry.load("backend", "cpu")
    load = spans.one("hardpoint.load")
    assert (
        dict(load.attributes).items()
        >= {
            "hardpoint.provider": "backend:cpu",
            "hardpoint.kind": "backend",
            "hardpoint.distribution.name": "hardpoint-cpu",
            "hardpoint.distribution.version": hp.__version__,
        }.items()
    )
    assert seconds(load) >= load.attributes["hardpoint.import_ms"] / 1e3
    assert spans.one("hardpoint.info").attributes["hardpoint.stage"] == "info"


def test_spans_are_children_of_the_hosts_and_parents_of_the_providers(
    spans: Any, plugin: Any
) -> None:
    tracer = spans.provider.get_tracer("host")

    def opens() -> Any:
        with tracer.start_as_current_span("the SDK at work"):
            time.sleep(0.02)
        return hp.Registry().open("partitioner", "capability")

    registry = hp.Registry(path=[])
    instrument(registry, spans.provider)
    registry.add("partitioner", "told", plugin(open=opens))
    with tracer.start_as_current_span("a request") as request:
        registry.probe("partitioner", "told")
        registry.open("partitioner", "told")
    opened = spans.one("hardpoint.open")
    assert parent_of(opened) == id_of(request)
    assert parent_of(spans.one("hardpoint.probe")) == id_of(request)
    assert parent_of(spans.one("the SDK at work")) == id_of(opened)
    assert seconds(opened) >= 0.02
    assert dict(opened.attributes) == {
        "hardpoint.provider": "partitioner:told", "hardpoint.kind": "partitioner",
        "hardpoint.stage": "open",
    }  # fmt: skip


def test_what_threads_do_at_once_is_not_mixed_up(spans: Any, plugin: Any) -> None:
    registry = hp.Registry(path=[])
    instrument(registry, spans.provider)
    tracer, together = spans.provider.get_tracer("host"), threading.Barrier(4)

    def opens() -> Any:
        together.wait(10)
        raise ValueError("no")

    registry.add("partitioner", "told", plugin(open=opens))

    def request(number: int) -> None:
        span = tracer.start_as_current_span(f"request {number}")
        with span, pytest.raises(hp.ProviderFailed):
            registry.open("partitioner", "told")

    threads = [threading.Thread(target=request, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    requests = {id_of(span) for span in spans.all() if span.name.startswith("request")}
    opened = [span for span in spans.all() if span.name == "hardpoint.open"]
    assert {parent_of(span) for span in opened} == requests
    assert len(opened) == 4, "one span for a failed call, not two"


# --- what fails


def test_an_open_that_raises_is_one_span_with_the_exception(
    registry: hp.Registry, spans: Any, plugin: Any
) -> None:
    def opens() -> Any:
        raise OSError("libacme.so.3: not found")

    registry.add("partitioner", "told", plugin(open=opens))
    request = spans.provider.get_tracer("host").start_as_current_span("a request")
    with request, pytest.raises(hp.ProviderFailed):
        registry.open("partitioner", "told")
    opened = spans.one("hardpoint.open")
    assert opened.status.status_code is StatusCode.ERROR
    assert opened.status.description == "OSError: libacme.so.3: not found"
    assert opened.attributes["error.type"] == "OSError"
    (exception,) = opened.events
    assert exception.name == "exception"
    assert exception.attributes["exception.type"] == "OSError"
    assert "in opens" in exception.attributes["exception.stacktrace"]
    (note,) = spans.one("a request").events
    assert note.name == "hardpoint.failed"
    assert note.attributes["exception.type"] == "hardpoint.errors.ProviderFailed"
    assert note.attributes["exception.message"] == (
        "partitioner:told could not be opened: OSError: libacme.so.3: not found"
    )
    assert note.attributes["hardpoint.error.remedy"] == "correct the object that was added"


def test_a_result_of_the_wrong_type_is_an_error_too_though_the_hook_returned(
    registry: hp.Registry, spans: Any, plugin: Any
) -> None:
    registry.add("partitioner", "told", plugin(open=lambda: 3))
    with pytest.raises(hp.ContractViolation):
        registry.open("partitioner", "told")
    hook, told = [span for span in spans.all() if span.name == "hardpoint.open"]
    assert hook.status.status_code is StatusCode.UNSET
    assert told.status.status_code is StatusCode.ERROR
    assert told.attributes["error.type"] == "ContractViolation"
    (exception,) = told.events
    assert exception.attributes["exception.message"].startswith(
        "hardpoint_partitioner_open of partitioner:told returned an object of type int"
    )


def test_a_veto_by_another_wrapper_is_told(registry: hp.Registry, spans: Any, plugin: Any) -> None:
    class Veto:
        @hp.hookimpl(wrapper=True)
        def hardpoint_partitioner_open(self, provider: str) -> Any:
            raise hp.ProviderDenied("not on Sundays", provider=f"partitioner:{provider}")
            yield

    registry.wrap(Veto())
    registry.add("partitioner", "told", plugin())
    with pytest.raises(hp.ProviderDenied, match="not on Sundays"):
        registry.open("partitioner", "told")
    failed = [s for s in spans.all() if s.status.status_code is StatusCode.ERROR]
    assert [(s.name, s.attributes["error.type"]) for s in failed] == [
        ("hardpoint.open", "ProviderDenied")
    ]


def test_a_module_that_cannot_be_imported_is_a_failed_load(spans: Any, tmp_path: Path) -> None:
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hardpoint.backend.v1]\nnpu = acme_nowhere\n")
    registry = hp.Registry(path=[str(tmp_path)])
    instrument(registry, spans.provider)
    with pytest.raises(hp.ProviderFailed):
        registry.open("backend", "npu")
    load = spans.one("hardpoint.load")
    assert load.status.status_code is StatusCode.ERROR
    assert load.attributes["hardpoint.distribution.origin"] == "acme 1.0"
    assert load.attributes["error.type"] == "ProviderFailed"
    (exception,) = load.events
    assert "No module named 'acme_nowhere'" in exception.attributes["exception.message"]
    assert seconds(load) > 0


def test_a_fallback_is_a_warning_on_its_span_and_on_the_hosts(
    registry: hp.Registry, spans: Any, tmp_path: Path
) -> None:
    model = torch.nn.Linear(4, 2).eval()
    plan = hp.plan(hp.capture(model, (torch.randn(3, 4),)), targets="cpu")
    package = hp.compile(plan).save(tmp_path / "m.pt2")
    cpu = registry.open("backend", "cpu")
    registry.remove("backend", "cpu")

    class Other:
        @hp.hookimpl
        def hardpoint_backend_info(self) -> hp.BackendInfo:
            return hp.BackendInfo(
                requires_api=(1, 0), summary="the same by another name", precisions=("fp32",),
                strided_inputs=True,
            )  # fmt: skip

        @hp.hookimpl
        def hardpoint_backend_probe(self) -> hp.Probe:
            return hp.Probe.ready(*cpu.devices())

        @hp.hookimpl
        def hardpoint_backend_open(self) -> hp.Backend:
            return cpu

    registry.add("backend", "other", Other())
    request = spans.provider.get_tracer("host").start_as_current_span("a request")
    with request, pytest.warns(hp.HardpointWarning, match="falls back to other"):
        hp.load(package, fallback="other", registry=registry)
    span = spans.one("hardpoint.fall_back")
    assert span.status.status_code is StatusCode.UNSET
    assert seconds(span) == 0
    assert span.attributes["hardpoint.severity"] == "WARN"
    assert span.attributes["hardpoint.fallback.targets"] == ("other",)
    for told in (span, spans.one("a request")):
        (note,) = [event for event in told.events if event.name == "hardpoint.fell_back"]
        assert note.attributes["hardpoint.severity"] == "WARN"
        assert (
            "nothing installed provides backend:cpu" in note.attributes["hardpoint.fallback.reason"]
        )
    assert "hardpoint.compile" in spans.names()


# --- the end


def test_after_stop_there_are_no_more_spans(spans: Any, plugin: Any) -> None:
    registry = hp.Registry(path=[])
    stop = instrument(registry, spans.provider)
    registry.add("partitioner", "told", plugin())
    before = len(spans.all())
    assert before > 0
    stop()
    stop()
    registry.open("partitioner", "told")
    registry.remove("partitioner", "told")
    registry.add("partitioner", "told", plugin())
    assert len(spans.all()) == before
