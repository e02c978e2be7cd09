"""Processes that build, seen from their parent: one for each backend, as long as it is well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hardpoint.errors import HardpointError
from hardpoint.interfaces.kinds import Target
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.child import Child, LostError
from hardpoint.measuring.results import Failure

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

# What may be the fault of a candidate that was built in the same process before.
_DOUBTFUL = ("crashed", "memory")

_Backends = tuple[str, ...]


class Builders:
    """Builds candidates in processes that are kept, stopped, for the next of the same backends.

    To start one, read the program and ask the backend what it supports may take longer than to
    compile. What a process does after it has built something may be the doing of that, so a crash
    in one that was used before is tried once more in a fresh one.

    :param start: gives a new process for these backends. :param start_seconds: until it is ready.
    :param room: bytes that those that stand idle may take together; the last one stays whatever it
        takes.
    :param alone: whether a process for these targets must be gone before another starts: what it
        holds on a device cannot be seen from here.
    """

    def __init__(
        self,
        start: Callable[[Sequence[str]], Child],
        start_seconds: float,
        room: float,
        alone: Callable[[Sequence[Target]], bool],
    ) -> None:
        self._start, self._start_seconds = start, start_seconds
        self._room, self._alone = room, alone
        self._idle: dict[_Backends, Child] = {}  # least recently used first
        self._never_beside: set[_Backends] = set()

    def build(
        self,
        candidate: Candidate,
        command: Mapping[str, Any],
        seconds: float,
        on_stage: Callable[[str], None] | None,
    ) -> dict[str, Any] | Failure:
        """The figures of a build, or how it failed."""
        backends = tuple(t.backend for t in candidate.targets)
        for others in list(self._idle):
            if others != backends and others in self._never_beside:
                self._end(others)
        if backends not in self._never_beside and self._alone(candidate.targets):
            self._never_beside.add(backends)
        used = self._idle.pop(backends, None)
        made = self._ask(backends, used, command, seconds, on_stage)
        if isinstance(made, Failure) and made.kind in _DOUBTFUL and used is not None:
            made = self._ask(backends, None, command, seconds, on_stage)
        self._make_room()
        return made

    def stop(self) -> None:
        """End them all."""
        for backends in list(self._idle):
            self._end(backends)

    def _end(self, backends: _Backends) -> None:
        self._idle[backends].stop()
        del self._idle[backends]

    def _make_room(self) -> None:
        """End the longest unused until the rest fits."""
        sizes = {backends: child.resident() for backends, child in self._idle.items()}
        for backends in list(self._idle)[:-1]:
            if sum(sizes.values()) > self._room:
                self._end(backends)
                del sizes[backends]

    def _ask(
        self,
        backends: _Backends,
        child: Child | None,
        command: Mapping[str, Any],
        seconds: float,
        on_stage: Callable[[str], None] | None,
    ) -> dict[str, Any] | Failure:
        try:
            if child is None:
                child = self._start(backends)
                child.wait(self._start_seconds)
            child.resume()
            answer = child.ask(command, seconds, on_stage)
            # Others are timed now: whatever its threads spin for, they must not.
            child.pause()
        except LostError as lost:
            return lost.failure
        except BaseException:  # Ctrl-C: nobody else knows of the child
            if child is not None:
                child.stop()
            raise
        if "failure" not in answer:
            self._idle[backends] = child
            figures: dict[str, Any] = answer["figures"]
            return figures
        said, stage = answer["failure"], child.last_stage
        if said["kind"] in _DOUBTFUL:
            child.stop()
        else:
            self._idle[backends] = child
        return Failure(said["kind"], stage, said["reason"])


def on_a_device(registry: Registry, targets: Sequence[Target]) -> bool:
    """Whether one of them may hold memory of a device, beside the host's: its tensors lie there, or
    it names a device that a shallow probe does not list.
    """
    for target in targets:
        try:
            probe = registry.probe("backend", target.backend)
        except HardpointError:  # it cannot tell; what is wrong with it is said where it is built
            return True
        listed = [d for d in probe.devices if target.device in ("", d.id)]
        if not listed or any(device.torch_device != "cpu" for device in listed):
            return True
    return False
