"""One run of a part of a check as several ranks: what they are told, and how it went."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hardpoint.interfaces.transport import TransportInfo
from hardpoint.testing.check import fail

_SHOWN = 10  # problems that a failure lists


@dataclass(frozen=True)
class Request:
    """What every rank of one run is told.

    :param device: type of the device that holds tensors.
    :param devices: how many of these there are; 0: as many as one likes.
    :param arguments: of the part.
    """

    provider: str
    config: Mapping[str, object]
    info: TransportInfo
    device: str
    devices: int
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """One rank, ended.

    :param code: its exit status, or minus a signal; ``None``: it had to be killed.
    :param events: what it wrote into its journal.
    """

    rank: int
    code: int | None
    events: list[dict[str, Any]]
    output: str

    def told(self, event: str) -> list[dict[str, Any]]:
        """Its events of one sort."""
        return [line for line in self.events if line["event"] == event]

    @property
    def notes(self) -> dict[str, Any]:
        """What it noted down."""
        return {key: value for line in self.told("note") for key, value in line["data"].items()}

    def trouble(self, seconds: float) -> str:
        """How it ended, in words, where that was not well; else ``""``.

        :param seconds: what it was given.
        """
        places = self.told("at")
        where = f" in {places[-1]['what']}" if places else ""
        for error in self.told("raised"):
            return f"{error['type']}{where}: {error['message'][:1500]} (at {error['place']})"
        if self.code is None:
            stack = [
                line.strip() for line in self.output.splitlines() if line.startswith("  File ")
            ]
            return f"no end within {seconds:g} s{where}; {'; '.join(stack[:5])}".rstrip("; ")
        if self.code < 0:
            tail = "; ".join(self.output.strip().splitlines()[-4:])
            return f"killed by {signal.Signals(-self.code).name}{where}; {tail}".rstrip("; ")
        if self.code or not self.told("end"):
            return f"ended with status {self.code}{where}"
        return ""


@dataclass(frozen=True)
class Run:
    """A set of ranks, all ended, and what they left in the system.

    :param seconds: what they were given.
    :param expendable: ranks that may have ended in any way.
    :param processes: command lines of what they left running (killed since).
    :param shared_memory: names of what they left in ``/dev/shm``.
    :param files: what they left in their folder for temporary files (removed since).
    """

    ranks: list[Ended]
    seconds: float
    expendable: tuple[int, ...] = ()
    processes: list[str] = field(default_factory=list)
    shared_memory: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """All that went wrong, in words; the same trouble of several ranks once."""
        found: dict[str, list[int]] = {}
        for ended in self.ranks:
            for line in ended.told("wrong"):
                found.setdefault(line["message"], []).append(ended.rank)
            if ended.rank not in self.expendable and (how := ended.trouble(self.seconds)):
                found.setdefault(how, []).append(ended.rank)
        return [f"{self._named(ranks)}: {message}" for message, ranks in found.items()]

    def judge(self) -> Run:
        """Itself, where every rank ended well and found nothing wrong; else the check fails."""
        problems = self.problems()
        if len(problems) > _SHOWN:
            problems[_SHOWN:] = [f"... and {len(problems) - _SHOWN} more"]
        if problems:
            fail("\n".join(problems))
        return self

    def remains(self) -> list[str]:
        """What is still there though every rank has ended, in words."""
        return [
            *(f"a process runs on: {line}" for line in self.processes),
            *(f"shared memory is left: {name}" for name in self.shared_memory),
            *(f"a file is left in the folder for temporary files: {name}" for name in self.files),
        ]

    def noted(self, name: str) -> Any:
        """What the ranks noted under ``name``: the first one's word."""
        return next((r.notes[name] for r in self.ranks if name in r.notes), None)

    def _named(self, ranks: Iterable[int]) -> str:
        listed = [str(rank) for rank in ranks]
        return f"rank{'s' if len(listed) > 1 else ''} {', '.join(listed)} of {len(self.ranks)}"
