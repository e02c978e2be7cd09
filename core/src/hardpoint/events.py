"""What observers are told: one small immutable record per happening."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

EventKind = Literal[
    "discovered",
    "loaded",
    "failed",
    "captured",
    "planned",
    "compiled",
    "packaged",
    "ran",
    "fell back",
    "measured",
    "chosen",
]
EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)


@dataclass(frozen=True, slots=True)
class Event:
    """One happening.

    :param kind: what happened; one of :data:`EVENT_KINDS`.
    :param provider: ``kind:name`` of the provider concerned, or ``""``.
    :param data: details, JSON-serializable; ``seconds`` is how long it took, up to :attr:`time`.
    :param time: seconds since the epoch.
    """

    kind: EventKind
    provider: str = ""
    data: Mapping[str, object] = field(default_factory=dict)
    time: float = field(default_factory=time.time)
