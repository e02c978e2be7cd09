"""What a check is: a test method with a level, a title and a way to say what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import pytest

from hardpoint.interfaces.kinds import Kind

# The levels of each kind, the lowest first. A provider reaches a level when every check of it, and
# of those below, holds or is a known failure, of which the verdict says how many there are.
LEVELS: Mapping[Kind, tuple[str, ...]] = {
    "backend": ("loads", "computes", "partitions", "packages", "robust"),
    "partitioner": ("loads", "assigns", "optimizes", "scales"),
    "serializer": ("loads", "round-trips", "refuses", "robust"),
    "transport": ("loads", "communicates", "trains", "robust"),
}

PREFIX = "test_"
_MARK = "__hardpoint_check__"

F = TypeVar("F", bound=Callable[..., None])


class CheckFailed(AssertionError):  # noqa: N818 - it reads as what pytest prints
    """A provider does not do what its contract says; the message is for its author."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a suite.

    :param name: what the method is called, without ``test_``: how reports and settings name it.
    :param level: the level it belongs to, one of :data:`LEVELS` of its suite's kind.
    :param title: the first line of its docstring.
    """

    name: str
    level: str
    title: str


def check(level: str) -> Callable[[F], F]:
    """Mark a test method as a check of ``level``. Its docstring's first line is its title."""

    def mark(method: F) -> F:
        name = method.__name__.removeprefix(PREFIX)
        if name == method.__name__ or not method.__doc__:
            raise TypeError(f"check {method.__name__} needs a name in {PREFIX}* and a docstring")
        title = " ".join(method.__doc__.strip().split("\n\n")[0].split())
        setattr(method, _MARK, Check(name, level, title))
        return method

    return mark


def check_of(method: object) -> Check | None:
    """The check that a test method is, or ``None``."""
    found = getattr(method, _MARK, None)
    return found if isinstance(found, Check) else None


def checks_of(suite: type) -> list[Check]:
    """The checks of a suite class, by level and then by name."""
    kind: Kind = suite.kind  # type: ignore[attr-defined]
    found = [c for c in map(check_of, (getattr(suite, n) for n in dir(suite))) if c is not None]
    return sorted(found, key=lambda c: (LEVELS[kind].index(c.level), c.name))


def expect(condition: object, message: str | Callable[[], str]) -> None:
    """Fail the check unless ``condition`` holds. Unlike ``assert`` it also holds under ``-O``.

    :param message: what is wrong and what the contract asks for; a function where making it costs.
    :raises CheckFailed: with that message.
    """
    if not condition:
        raise CheckFailed(message() if callable(message) else message)


def fail(message: str) -> NoReturn:
    """Fail the check.

    :raises CheckFailed: always.
    """
    raise CheckFailed(message)


def skip_unless(condition: object, reason: str) -> None:
    """Skip the check, with a reason, unless the provider declares what it is about."""
    if not condition:
        pytest.skip(reason)
