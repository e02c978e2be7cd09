"""Who speaks in error messages: this plugin, or one of another device that uses its modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version

from hardpoint import ArtifactError, CompileError

PROVIDER = "backend:cpu"
ORIGIN = f"hardpoint-cpu {version('hardpoint-cpu')}"
_SPEAKER: ContextVar[tuple[str, str]] = ContextVar("speaker", default=(PROVIDER, ORIGIN))


@contextmanager
def speaking_as(provider: str, origin: str) -> Iterator[None]:
    """Errors made inside name ``provider`` and ``origin``, whose backend it is that works."""
    token = _SPEAKER.set((provider, origin))
    try:
        yield
    finally:
        _SPEAKER.reset(token)


def compile_error(what: str, *, cause: str = "", remedy: str = "") -> CompileError:
    """A :class:`CompileError` of the provider that speaks."""
    provider, origin = _SPEAKER.get()
    return CompileError(what, provider=provider, origin=origin, cause=cause, remedy=remedy)


def artifact_error(what: str, *, cause: str = "", remedy: str = "") -> ArtifactError:
    """An :class:`ArtifactError` of the provider that speaks."""
    provider, origin = _SPEAKER.get()
    return ArtifactError(what, provider=provider, origin=origin, cause=cause, remedy=remedy)


def in_words(error: BaseException, limit: int = 600) -> str:
    """``Type: message`` of an error, cut to a readable length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:limit]}{' ...' if len(text) > limit else ''}"
