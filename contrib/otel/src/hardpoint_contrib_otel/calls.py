"""Spans around the calls of a provider's hooks, as hook wrappers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextvars import Token
from dataclasses import dataclass
from typing import Any, Final, get_args

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, StatusCode, Tracer

from hardpoint import Kind, hookimpl
from hardpoint_contrib_otel.attributes import ERROR_TYPE, STAGE, of_provider
from hardpoint_contrib_otel.harmless import Harmless

STAGES: Final = ("info", "probe", "open")
Wrapper = Callable[[str], Generator[None, object, object]]


@dataclass(frozen=True)
class _Active:
    span: Span
    token: Token[Context]


class Calls:
    """The wrappers. Their spans are current while the hook runs, so that its own are children."""

    def __init__(self, tracer: Tracer, harmless: Harmless) -> None:
        self._tracer = tracer
        self._harmless = harmless
        self._here = threading.local()

    def wrappers(self) -> object:
        """An object for ``registry.wrap``: one wrapper for each hook of each kind."""
        plugin = _Wrappers()
        for kind in get_args(Kind):
            for stage in STAGES:
                hook = f"hardpoint_{kind}_{stage}"
                setattr(plugin, hook, self._wrapper(kind, stage, hook))
        return plugin

    def has_told(self, provider: str, stage: str) -> bool:
        """Whether the span of this thread's last call, just ended, was this one and failed."""
        told = getattr(self._here, "failed", None) == (provider, stage)
        self._here.failed = None
        return told

    def _wrapper(self, kind: str, stage: str, hook: str) -> Wrapper:
        @hookimpl(wrapper=True, specname=hook)
        def around(provider: str) -> Generator[None, object, object]:
            key = f"{kind}:{provider}"
            active = self._begin(key, stage)
            try:
                result = yield
            except BaseException as error:
                self._end(active, key, stage, error)
                raise
            self._end(active, key, stage, None)
            return result

        wrapper: Any = around  # pluggy's marker says nothing of types
        return wrapper  # type: ignore[no-any-return]

    def _begin(self, key: str, stage: str) -> _Active | None:
        self._here.failed = None
        with self._harmless.while_(f"a span for {stage} began"):
            span = self._tracer.start_span(
                f"hardpoint.{stage}", attributes={**of_provider(key), STAGE: stage}
            )
            return _Active(span, context.attach(trace.set_span_in_context(span)))
        return None

    def _end(
        self, active: _Active | None, key: str, stage: str, error: BaseException | None
    ) -> None:
        if active is None:
            return
        with self._harmless.while_(f"a span for {stage} ended"):
            context.detach(active.token)
            if error is not None:
                self._here.failed = (key, stage)
                active.span.set_attribute(ERROR_TYPE, type(error).__qualname__)
                active.span.record_exception(error)
                active.span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
            active.span.end()


class _Wrappers:
    """Holds the wrappers as attributes, where the registry looks for hooks."""
