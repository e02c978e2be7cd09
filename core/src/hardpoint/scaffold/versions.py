"""What a new plugin asks of the core, from the version of the core that makes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hardpoint.interfaces.kinds import API_MAJOR, API_MINOR

REQUIRES_API = (API_MAJOR, API_MINOR)


@dataclass(frozen=True, slots=True)
class CoreVersions:
    """The core's releases that a plugin is made for.

    :param current: major and minor of the core that makes it, e.g. ``"1.4"``.
    :param previous: the minor before, ``"1.3"``, or ``""`` where this is the first of its major.
    :param next_major: the first major that it is not made for, ``"2"``.
    """

    current: str
    previous: str
    next_major: str

    @classmethod
    def of(cls, version: str) -> CoreVersions:
        """From a version as in ``hardpoint.__version__``: ``"1.4.0"``, ``"1.4.0rc1"``.

        :raises ValueError: it does not begin with a major and a minor.
        """
        match = re.match(r"(\d+)\.(\d+)", version)
        if match is None:
            raise ValueError(f"{version!r} does not begin with a major and a minor")
        major, minor = int(match[1]), int(match[2])
        # Zero point zero was never released.
        has_previous = minor > 0 and (major, minor) != (0, 1)
        previous = f"{major}.{minor - 1}" if has_previous else ""
        return cls(f"{major}.{minor}", previous, str(major + 1))

    @property
    def minors(self) -> tuple[str, ...]:
        """What CI tests against: the current minor, and the previous one where there is one."""
        return (self.current, self.previous) if self.previous else (self.current,)

    @property
    def range(self) -> str:
        """As in a requirement: from the oldest minor that CI tests up to the next major."""
        return f">={self.minors[-1]},<{self.next_major}"

    @property
    def comment(self) -> str:
        """What the CI file says about :attr:`minors`."""
        if self.previous:
            return "hardpoint's current minor and the one before: raise both with each release"
        return f"{self.current} is the first minor of its major: add the next when it is out"
