"""How a bad package is refused: always one :class:`PackageError`, whatever was wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hardpoint.errors import PackageError

AGAIN = "get the file again from where it was made; if it is bad there too, save it again"


def first_twice(names: Iterable[str]) -> str:
    """The first name that stands there more than once; in one pass, as there may be very many."""
    return next(name for name, count in Counter(names).items() if count > 1)


class MalformedError(Exception):
    """Inside this package: the cause in words, raised where the path of the file is not known."""

    def __init__(self, cause: str, *, remedy: str = AGAIN) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy


def unusable(path: Path | str, cause: str, *, remedy: str = AGAIN) -> PackageError:
    """The error for a package that must not be used."""
    return PackageError(f"{path} is not a usable package", cause=cause, remedy=remedy)


@contextmanager
def refusing(path: Path | str) -> Iterator[None]:
    """Turn :class:`MalformedError` into the :class:`PackageError` that names the file."""
    try:
        yield
    except MalformedError as error:
        raise unusable(path, error.cause, remedy=error.remedy) from None
