"""``--precision`` on the command line: one for all, ``auto``, or one a backend."""

from __future__ import annotations

from typing import Any

import rich_click as click
from click.shell_completion import CompletionItem

from hardpoint.errors import did_you_mean
from hardpoint.interfaces.backend import PRECISIONS

_CHOICES = (*PRECISIONS, "auto")


class PrecisionType(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """``fp16``, ``auto``, or ``npu=fp16,cpu=bf16`` as a mapping from backend to precision."""

    name = "precision"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A precision, or a mapping of them."""
        if not isinstance(value, str) or "=" not in value:
            if value not in _CHOICES:
                near = did_you_mean(str(value), _CHOICES)
                self.fail(f"{value!r} is no precision; {near}", param, ctx)
            return value
        chosen: dict[str, str] = {}
        for word in value.split(","):
            backend, equals, precision = word.partition("=")
            if not equals or not backend:
                self.fail(f"{word!r} is not BACKEND=PRECISION, e.g. npu=fp16", param, ctx)
            if precision not in PRECISIONS:
                near = did_you_mean(precision, PRECISIONS)
                self.fail(f"{precision!r} is no precision of a backend; {near}", param, ctx)
            if backend in chosen:
                self.fail(f"{backend} is given twice", param, ctx)
            chosen[backend] = precision
        return chosen

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The precisions, after ``BACKEND=`` too."""
        head, equals, tail = incomplete.rpartition("=")
        known = PRECISIONS if equals else _CHOICES
        return [CompletionItem(f"{head}{equals}{p}") for p in known if p.startswith(tail)]
