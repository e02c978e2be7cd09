"""Telemetry must never break what it watches."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("hardpoint_contrib_otel")


class Harmless:
    """Runs telemetry; what it raises is logged, each kind of work once, and goes no further.

    The SDK catches what exporters raise; samplers and span processors it does not.
    """

    def __init__(self) -> None:
        self._said: set[str] = set()

    @contextmanager
    def while_(self, doing: str) -> Iterator[None]:
        """Guard one piece of telemetry, described as ``doing``."""
        try:
            yield
        except Exception:
            if doing not in self._said:
                self._said.add(doing)
                LOGGER.exception(
                    "tracing failed while %s; the call itself goes on (said once)", doing
                )
