"""OpenTelemetry spans of what a hardpoint registry does."""

from hardpoint_contrib_otel.instrument import instrument

__all__ = ["instrument"]
