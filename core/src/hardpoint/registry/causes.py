"""Running someone else's code so that its failure becomes one error that names the root cause."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hardpoint.errors import HardpointError, ProviderFailed
from hardpoint.registry.record import Record


@contextmanager
def isolated(what: str, record: Record, *, own_words: bool) -> Iterator[None]:
    """Turn whatever a provider raises into :class:`ProviderFailed`.

    ``KeyboardInterrupt`` is the user's, and passes.

    :param own_words: let a ``HardpointError``, the provider's own choice of words, pass too,
        signed with the provider's name.
    """
    handled_before = sys.exc_info()[1]
    try:
        yield
    except (Exception, SystemExit) as error:
        if own_words and isinstance(error, HardpointError):
            error.provider = error.provider or record.key
            error.origin = error.origin or record.origin
            raise
        raise ProviderFailed(
            what,
            provider=record.key,
            origin=record.origin,
            cause=in_words(error, handled_before),
            remedy=_remedy(root_of(error, handled_before), record),
        ) from error


def in_words(error: BaseException, outside: BaseException | None = None) -> str:
    """``ImportError: libacme.so.3: ...``, and the root cause where ``error`` only wraps it.

    :param outside: what the caller was already handling: no part of this failure.
    """
    root = root_of(error, outside)
    words = _one_line(error)
    return words if root is error else f"{words}; root cause: {_one_line(root)}"


def root_of(error: BaseException, outside: BaseException | None = None) -> BaseException:
    """The exception at the end of the chain of causes and contexts."""
    seen = {id(error), id(outside)}
    while True:
        below = error.__cause__
        if below is None and not error.__suppress_context__:
            below = error.__context__
        if below is None or id(below) in seen:
            return error
        seen.add(id(below))
        error = below


def _one_line(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"SystemExit: it tried to end the process with exit code {error.code!r}"
    text = str(error)
    if isinstance(error, HardpointError):
        text = f"{error.what}: {error.cause}" if error.cause else error.what
    joined = " ".join(text.split())
    return f"{type(error).__name__}: {joined}" if joined else type(error).__name__


def _remedy(root: BaseException, record: Record) -> str:
    if not record.dist:
        return "correct the object that was added"
    leave_out = f"or leave it out with HARDPOINT_DENY={record.key}"
    own = record.module.partition(".")[0]
    if isinstance(root, ModuleNotFoundError) and root.name and root.name.split(".")[0] != own:
        return f"install what provides the module {root.name!r}, {leave_out}"
    if isinstance(root, ImportError | OSError):
        return f"reinstall {record.dist} and the libraries that it needs, {leave_out}"
    return f"report it to the authors of {record.dist}, {leave_out}"
