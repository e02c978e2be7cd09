"""Options that take several words separated by commas, each checked and completed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rich_click as click
from click.shell_completion import CompletionItem

from hardpoint.benching.variants import DEFAULT
from hardpoint.errors import ProviderError, did_you_mean
from hardpoint.interfaces.backend import PRECISIONS
from hardpoint.registry.registry import default_registry


class Listed(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """``a,b`` as ``("a", "b")``; the words are :meth:`known`."""

    name = "word,..."

    def known(self) -> Sequence[str]:
        """What the words can be."""
        raise NotImplementedError

    def check(self, word: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word, or a usage error that names the nearest."""
        if word not in self.known():
            self.fail(f"{word!r}: {did_you_mean(word, self.known())}", param, ctx)
        return word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The words, each once."""
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in value.split(",")]
        return tuple(dict.fromkeys(self.check(word, param, ctx) for word in words))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Words that are not there yet, after what is there."""
        head, comma, tail = incomplete.rpartition(",")
        there = head.split(",")
        return [
            CompletionItem(f"{head}{comma}{word}")
            for word in self.known()
            if word.startswith(tail) and word not in there
        ]


class PrecisionsType(Listed):
    """``fp32,int8``."""

    name = "precision,..."

    def known(self) -> Sequence[str]:
        """All precisions of the contract."""
        return PRECISIONS


class VariantsType(Listed):
    """``default,freezing``: words of the installed backends, whose light modules are loaded."""

    name = "variant,..."

    def known(self) -> Sequence[str]:
        """What the backends declare; one that does not load declares nothing."""
        words = [DEFAULT]
        for name in default_registry().names("backend"):
            try:
                words += default_registry().info("backend", name).variants
            except ProviderError:
                continue
        return tuple(dict.fromkeys(words))


class BatchesType(Listed):
    """``1,8``: positive numbers."""

    name = "number,..."

    def known(self) -> Sequence[str]:
        """Nothing to complete."""
        return ()

    def check(self, word: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        if not word.isdecimal() or int(word) < 1:
            self.fail(f"{word!r} is no batch size; give numbers above 0, e.g. 1,8", param, ctx)
        return int(word)
