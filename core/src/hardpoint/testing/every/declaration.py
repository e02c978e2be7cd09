"""What a provider says it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hardpoint.interfaces.backend import PRECISIONS
from hardpoint.interfaces.kinds import Kind
from hardpoint.interfaces.partitioner import OBJECTIVES
from hardpoint.testing.check import check, expect, fail
from hardpoint.testing.subject import Subject

_LONGEST_SUMMARY = 200


class DeclarationChecks:
    """The info hook."""

    @check("loads")
    def test_declares_what_it_is(self, subject: Subject, figures: dict[str, Any]) -> None:
        """It loads, and its info says what it is and which contract it was written for."""
        info = subject.info  # loads it: the core judges hooks, types and the contract's version
        figures["summary"] = info.summary
        figures["requires_api"] = list(info.requires_api)
        summary = info.summary
        expect(
            isinstance(summary, str) and summary.strip(),
            "info.summary is empty: say in one line what it is",
        )
        expect(
            "\n" not in summary and len(summary) <= _LONGEST_SUMMARY,
            f"info.summary has {len(summary)} characters in {len(summary.splitlines())} line(s); "
            f"lists show one line of at most {_LONGEST_SUMMARY}",
        )
        _OWN[subject.kind](info)


def _backend(info: Any) -> None:
    _chosen("precisions", info.precisions, PRECISIONS)
    _help("options", info.options)


def _partitioner(info: Any) -> None:
    _chosen("objectives", info.objectives, OBJECTIVES)


def _serializer(info: Any) -> None:
    _words("suffixes", info.suffixes)
    bad = [suffix for suffix in info.suffixes if not suffix.startswith(".") or len(suffix) < 2]
    expect(not bad, f"info.suffixes holds {bad!r}: a suffix begins with a dot, e.g. '.acme'")


def _transport(info: Any) -> None:
    for field in ("devices", "collectives"):
        _words(field, getattr(info, field))
    bad = [device for device in info.devices if not device.isidentifier()]
    expect(not bad, f"info.devices holds {bad!r}: name types of device as PyTorch does, e.g. 'cpu'")


def _words(field: str, values: object) -> None:
    if not isinstance(values, tuple) or not values:
        fail(f"info.{field} is {values!r}: it is a tuple, and at least one must be declared")
    expect(
        all(isinstance(value, str) and value for value in values) and len({*values}) == len(values),
        f"info.{field} is {values!r}: it holds names, each once",
    )


def _chosen(field: str, values: object, known: Iterable[str]) -> None:
    _words(field, values)
    unknown = [value for value in values if value not in known]  # type: ignore[attr-defined]
    expect(not unknown, f"info.{field} holds {unknown!r}; the contract knows {', '.join(known)}")


def _help(field: str, options: object) -> None:
    expect(
        isinstance(options, Mapping)
        and all(
            isinstance(text, str) and text.strip() for item in options.items() for text in item
        ),
        f"info.{field} is {options!r}: it maps each option's name to a line of help",
    )


_OWN: Mapping[Kind, Callable[[Any], None]] = {
    "backend": _backend,
    "partitioner": _partitioner,
    "serializer": _serializer,
    "transport": _transport,
}
