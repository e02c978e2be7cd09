"""Processes that build, seen from their parent: one for each backend, as long as it is well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.child import Child, LostError
from hardpoint.measuring.results import Failure

# What may be the fault of a candidate that was built in the same process before.
_DOUBTFUL = ("crashed", "memory")


class Builders:
    """Builds candidates in processes that are kept for the next of the same backends.

    What a process does after it has built something may be the doing of that, so a crash in one
    that was used before is tried once more in a fresh one.

    :param start: gives a new process for these backends. :param start_seconds: until it is ready.
    """

    def __init__(self, start: Callable[[Sequence[str]], Child], start_seconds: float) -> None:
        self._start, self._start_seconds = start, start_seconds
        self._child: Child | None = None
        self._backends: Sequence[str] = ()
        self._used = False

    def build(
        self,
        candidate: Candidate,
        command: Mapping[str, Any],
        seconds: float,
        on_stage: Callable[[str], None] | None,
    ) -> dict[str, Any] | Failure:
        """The figures of a build, or how it failed."""
        backends = [t.backend for t in candidate.targets]
        if backends != self._backends:
            self.stop()
        doubtful = self._used
        made = self._ask(backends, command, seconds, on_stage)
        if isinstance(made, Failure) and made.kind in _DOUBTFUL and doubtful:
            made = self._ask(backends, command, seconds, on_stage)
        return made

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._child is not None:
            self._child.stop()
        self._child, self._used = None, False

    def _ask(
        self,
        backends: Sequence[str],
        command: Mapping[str, Any],
        seconds: float,
        on_stage: Callable[[str], None] | None,
    ) -> dict[str, Any] | Failure:
        try:
            if self._child is None:
                self._child, self._backends = self._start(backends), backends
                self._child.wait(self._start_seconds)
            self._used = True
            self._child.resume()
            answer = self._child.ask(command, seconds, on_stage)
            # Others are timed now: whatever its threads spin for, they must not.
            self._child.pause()
        except LostError as lost:
            self.stop()
            return lost.failure
        if "failure" not in answer:
            figures: dict[str, Any] = answer["figures"]
            return figures
        said, stage = answer["failure"], self._child.last_stage
        if said["kind"] in _DOUBTFUL:
            self.stop()
        return Failure(said["kind"], stage, said["reason"])
