"""Every exception that hardpoint raises.

Each message is written for its reader: what was asked, who provides it (provider, distribution and
version), the cause, and what to do next. The parts are attributes too, so that ``--json`` and an
embedder's log need not parse text.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ArtifactError",
    "CaptureError",
    "CompileError",
    "ConfigError",
    "ContractViolation",
    "DeviceLost",
    "DuplicateProvider",
    "HardpointError",
    "HardpointWarning",
    "InputError",
    "LockMismatch",
    "OutOfMemory",
    "PackageError",
    "PlanError",
    "PolicyWarning",
    "ProviderDenied",
    "ProviderError",
    "ProviderFailed",
    "ProviderIncompatible",
    "ProviderNotFound",
    "ProviderSkipped",
    "ProviderUnavailable",
    "RuntimeFault",
    "TransportError",
    "VerificationError",
    "WeightsError",
    "WeightsMismatch",
    "did_you_mean",
]


class HardpointError(Exception):
    """Base of every error that hardpoint raises on purpose.

    :param what: one sentence: what was asked and what went wrong.
    :param provider: ``kind:name`` of the provider concerned, or ``""``.
    :param origin: ``distribution version`` that the provider comes from, or ``""``.
    :param cause: the root cause in words, e.g. ``ImportError: libfoo.so.1: not found``.
    :param remedy: what the reader can do next.
    """

    def __init__(
        self,
        what: str,
        *,
        provider: str = "",
        origin: str = "",
        cause: str = "",
        remedy: str = "",
    ) -> None:
        self.what = what
        self.provider = provider
        self.origin = origin
        self.cause = cause
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.provider:
            by = f" (from {self.origin})" if self.origin else ""
            lines.append(f"  provider: {self.provider}{by}")
        if self.cause:
            lines.append(f"  cause: {self.cause}")
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        parts = (self.what, self.provider, self.origin, self.cause, self.remedy)
        return (_rebuild, (type(self), parts), {"__notes__": getattr(self, "__notes__", [])})

    def to_json(self) -> dict[str, str]:
        """The parts of the message, for machines."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "provider": self.provider,
            "origin": self.origin,
            "cause": self.cause,
            "remedy": self.remedy,
        }


def _rebuild(cls: type[HardpointError], parts: tuple[str, str, str, str, str]) -> HardpointError:
    """Rebuild an error that crossed a process boundary."""
    what, provider, origin, cause, remedy = parts
    return cls(what, provider=provider, origin=origin, cause=cause, remedy=remedy)


class ConfigError(HardpointError):
    """An option, environment variable or configuration file holds something unusable."""


class ProviderError(HardpointError):
    """Something about one provider."""


class ProviderNotFound(ProviderError):
    """No installed distribution provides this name."""


class ProviderDenied(ProviderError):
    """Policy forbids this provider; nothing of it was imported."""


class ProviderIncompatible(ProviderError):
    """The provider asks for another version of the contract than this core has."""


class ProviderFailed(ProviderError):
    """The provider could not be loaded or opened: it is broken, not merely without hardware."""


class ProviderUnavailable(ProviderError):
    """The provider works, but what it needs (device, driver, compiler) is not on this machine."""


class RuntimeFault(ProviderFailed):
    """A sound executable could not go on: what it needs at run time is gone. A backend raises one
    of the two below, and ``fallback=`` acts on it; the same call may work elsewhere.
    """


class DeviceLost(RuntimeFault):
    """The device is gone or its context is spoiled: no call on it will work from now on."""


class OutOfMemory(RuntimeFault):
    """A call, or opening an artifact, needs more memory than the device or the machine has left."""


class DuplicateProvider(ProviderError):
    """Two distributions provide the same name."""


class LockMismatch(ProviderError):
    """The installed distribution is not the one that ``hardpoint lock`` pinned."""


class ContractViolation(ProviderError):
    """A provider returned something that its interface forbids."""


class CaptureError(HardpointError):
    """A model could not be captured as a program."""


class PlanError(HardpointError):
    """No valid plan exists for this program and these targets."""


class CompileError(HardpointError):
    """A segment could not be compiled."""


class VerificationError(CompileError):
    """A compiled program gives other numbers than eager PyTorch, or would: the weights that it was
    compiled from were written to.
    """


class ArtifactError(HardpointError):
    """An artifact does not fit this device, this machine or this version of its backend."""


class InputError(HardpointError):
    """A call's arguments do not match the program's signature, or hold what a backend refuses: an
    index out of range.
    """


class PackageError(HardpointError):
    """A package file is damaged, hostile, or of another format."""


class WeightsError(HardpointError):
    """A weight file is damaged, hostile, or of another format; or a tensor is missing."""


class WeightsMismatch(WeightsError):
    """Weights are not what their checksum, or a signature over them, says."""


class TransportError(HardpointError):
    """A process group could not be made, or a collective failed."""


class HardpointWarning(UserWarning):
    """Base of every warning that hardpoint gives."""


class ProviderSkipped(HardpointWarning):
    """A provider that was picked automatically, not by name, is left out; the message says why."""


class PolicyWarning(HardpointWarning):
    """A policy entry names nothing that is installed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'x'?"`` for the nearest known name, else the known names, else ``""``."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(names)}" if names else ""
