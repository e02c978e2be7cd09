"""What happened, a line of JSON each: survives a crash of the process that writes it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["passed", "failed", "skipped", "known", "crashed"]


@dataclass(frozen=True, slots=True)
class Result:
    """How one check ended.

    :param outcome: ``known`` is a failure that the settings expect, with their reason;
        ``crashed`` ended or hung the whole process.
    :param reason: why it failed or was skipped; ``""`` where it passed.
    :param seconds: wall time.
    :param figures: what the check measured or counted, JSON-serializable.
    """

    name: str
    level: str
    title: str
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Journal:
    """Appends to a file; each line reaches the system before :meth:`write` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: str, **data: object) -> None:
        """Add a line ``{"event": event, ...}``."""
        line = json.dumps({"event": event, **data}, default=str).encode() + b"\n"
        # One write of an appending descriptor: workers of one check may share the file.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def read(path: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole lines from ``offset`` on, each with the offset after it.

    A last line without its end was cut off by a crash, or is being written: not given yet.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield offset, json.loads(line)
