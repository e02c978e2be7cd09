"""Who speaks in this plugin's error messages, and the one exception that stays inside it."""

from __future__ import annotations

from importlib.metadata import version

from hardpoint import ArtifactError, CompileError, ConfigError

PROVIDER = "backend:simnpu"
ORIGIN = f"hardpoint-contrib-simnpu {version('hardpoint-contrib-simnpu')}"


class RefusedError(Exception):
    """An operation that the chip cannot run; the text is the reason, for the user."""


def compile_error(what: str, *, cause: str = "", remedy: str = "") -> CompileError:
    """A :class:`CompileError` of this provider."""
    return CompileError(what, provider=PROVIDER, origin=ORIGIN, cause=cause, remedy=remedy)


def artifact_error(what: str, *, cause: str = "", remedy: str = "") -> ArtifactError:
    """An :class:`ArtifactError` of this provider."""
    return ArtifactError(what, provider=PROVIDER, origin=ORIGIN, cause=cause, remedy=remedy)


def config_error(what: str, remedy: str) -> ConfigError:
    """A :class:`ConfigError` of this provider."""
    return ConfigError(what, provider=PROVIDER, origin=ORIGIN, remedy=remedy)
