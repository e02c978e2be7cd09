"""From the registry's events to spans that are over already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode, Tracer

import hardpoint
from hardpoint import Event
from hardpoint_contrib_otel.attributes import ERROR_TYPE, SEVERITY, Attributes, of_event
from hardpoint_contrib_otel.calls import Calls
from hardpoint_contrib_otel.harmless import Harmless

# Event -> the span's name; of `failed` the stage says it. `discovered` comes once for each
# installed provider, tells nothing of this process's work, and gets no span.
NAMES: Final[Mapping[str, str]] = {
    "loaded": "hardpoint.load",
    "captured": "hardpoint.capture",
    "planned": "hardpoint.plan",
    "compiled": "hardpoint.compile",
    "packaged": "hardpoint.save",
    "ran": "hardpoint.run",
    "fell back": "hardpoint.fall_back",
    "measured": "hardpoint.measure",
    "chosen": "hardpoint.choose",
}


class Events:
    """An observer. Its spans are children of the span that is current where the event came up.

    An event comes when the work is done, and says how long it took: the span starts that much
    earlier. One that does not say gives a span of no length.
    """

    def __init__(self, tracer: Tracer, calls: Calls, harmless: Harmless) -> None:
        self._tracer = tracer
        self._calls = calls
        self._harmless = harmless

    def __call__(self, event: Event) -> None:
        """Make the event's span."""
        with self._harmless.while_(f"telling of {event.kind!r}"):
            if event.kind == "failed":
                self._failed(event)
            elif event.kind == "fell back":
                self._fell_back(event)
            elif event.kind in NAMES:
                self._span(NAMES[event.kind], event).end(_end(event))

    def _span(self, name: str, event: Event) -> Span:
        return self._tracer.start_span(
            name, attributes=of_event(event), start_time=_end(event) - _nanoseconds(event)
        )

    def _fell_back(self, event: Event) -> None:
        """A span, and a note on the caller's. It is a warning: status has no word for that."""
        facts: Attributes = {**of_event(event), SEVERITY: "WARN"}
        span = self._span(NAMES[event.kind], event)
        span.set_attribute(SEVERITY, "WARN")
        for told in (span, trace.get_current_span()):
            told.add_event("hardpoint.fell_back", facts, timestamp=_end(event))
        span.end(_end(event))

    def _failed(self, event: Event) -> None:
        """A span with the error, unless a wrapper's span has it; and a note on the caller's."""
        error = str(event.data["error"])
        message = ": ".join(str(event.data[k]) for k in ("what", "cause") if event.data.get(k))
        facts: Attributes = {
            **of_event(event),
            "exception.type": _type_name(error),
            "exception.message": message,
        }
        caller = trace.get_current_span()
        caller.add_event("hardpoint.failed", facts, timestamp=_end(event))
        stage = str(event.data["stage"])
        if self._calls.has_told(event.provider, stage):
            return
        span = self._span(f"hardpoint.{stage}", event)
        span.set_attribute(ERROR_TYPE, error)
        span.add_event("exception", facts, timestamp=_end(event))
        span.set_status(StatusCode.ERROR, message)
        span.end(_end(event))


def _type_name(error: str) -> str:
    """The class's full name where it is one of hardpoint's; a plugin's own is told by its name."""
    return f"hardpoint.errors.{error}" if error in hardpoint.__all__ else error


def _end(event: Event) -> int:
    return int(event.time * 1e9)


def _nanoseconds(event: Event) -> int:
    seconds = event.data.get("seconds")
    return int(seconds * 1e9) if isinstance(seconds, (int, float)) and seconds > 0 else 0
