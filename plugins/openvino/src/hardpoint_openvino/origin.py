"""Who speaks in this plugin's error messages."""

from __future__ import annotations

from importlib.metadata import version

from hardpoint import ArtifactError, CompileError, ConfigError

PROVIDER = "backend:openvino"
ORIGIN = f"hardpoint-openvino {version('hardpoint-openvino')}"


def compile_error(what: str, *, cause: str = "", remedy: str = "") -> CompileError:
    """A :class:`CompileError` of this provider."""
    return CompileError(what, provider=PROVIDER, origin=ORIGIN, cause=cause, remedy=remedy)


def artifact_error(what: str, *, cause: str = "", remedy: str = "") -> ArtifactError:
    """An :class:`ArtifactError` of this provider."""
    return ArtifactError(what, provider=PROVIDER, origin=ORIGIN, cause=cause, remedy=remedy)


def config_error(what: str, *, cause: str = "", remedy: str = "") -> ConfigError:
    """A :class:`ConfigError` of this provider."""
    return ConfigError(what, provider=PROVIDER, origin=ORIGIN, cause=cause, remedy=remedy)


def in_words(error: BaseException, limit: int = 600) -> str:
    """``Type: message`` of an error, cut to a readable length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:limit]}{' ...' if len(text) > limit else ''}"
