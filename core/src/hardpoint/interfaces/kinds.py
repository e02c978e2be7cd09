"""The four kinds of provider, the contract's version, and how targets are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from hardpoint.errors import ConfigError

Kind = Literal["serializer", "backend", "partitioner", "transport"]
KINDS: tuple[Kind, ...] = get_args(Kind)

API_MAJOR = 1
API_MINOR = 0

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_TARGET = re.compile(rf"(?P<backend>{_NAME})(?::(?P<device>{_NAME}))?(?:@(?P<rank>\d{{1,6}}))?")


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """Where a part of a program runs, written ``backend[:device][@rank]``.

    ``Target.parse("openvino:CPU")``, ``Target.parse("cuda:0@1")``; an empty ``device`` means the
    backend's first.
    """

    backend: str
    device: str = ""
    rank: int | None = None

    @classmethod
    def parse(cls, text: str | Target) -> Target:
        """:raises ConfigError: if ``text`` is not ``backend[:device][@rank]``."""
        if isinstance(text, Target):
            return text
        match = _TARGET.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"{text!r} is not a target",
                remedy="write backend[:device][@rank], e.g. 'cpu', 'openvino:CPU' or 'cuda:0@1'",
            )
        rank = match["rank"]
        return cls(match["backend"], match["device"] or "", None if rank is None else int(rank))

    def __str__(self) -> str:
        device = f":{self.device}" if self.device else ""
        rank = "" if self.rank is None else f"@{self.rank}"
        return f"{self.backend}{device}{rank}"
