"""The one call that a host makes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.trace import TracerProvider

from hardpoint import Registry
from hardpoint_contrib_otel.calls import Calls
from hardpoint_contrib_otel.events import Events
from hardpoint_contrib_otel.harmless import Harmless


def instrument(
    registry: Registry, tracer_provider: TracerProvider | None = None
) -> Callable[[], None]:
    """Make spans of what ``registry`` and the models made with it do.

    Telemetry that fails is logged and never disturbs a call.

    :param tracer_provider: where spans go; by default OpenTelemetry's global one, looked up now.
    :returns: a function that ends it; calling it again does nothing.
    """
    tracer = trace.get_tracer(
        "hardpoint_contrib_otel", version("hardpoint-contrib-otel"), tracer_provider
    )
    harmless = Harmless()
    calls = Calls(tracer, harmless)
    take_off = registry.wrap(calls.wrappers())
    unobserve = registry.observe(Events(tracer, calls, harmless))

    def stop() -> None:
        unobserve()
        take_off()

    return stop
