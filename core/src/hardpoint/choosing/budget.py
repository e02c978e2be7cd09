"""What choosing may cost. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from hardpoint.errors import ConfigError

SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What the measured choice of a target may cost.

    :param seconds: in all. When they are spent nothing more is compiled, and the choice says what
        was not tried. What is known from before costs nothing.
    :param memory: bytes that a candidate's process may use; ``None``: 80 % of what is free.
    :param candidate_seconds: to compile and verify one candidate.
    :raises ConfigError: a limit that is not above 0.
    """

    seconds: float = SECONDS
    memory: int | None = None
    candidate_seconds: float = 300.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"a budget's {name} is {value}", remedy="give a number above 0")

    @classmethod
    def read(cls, given: Budget | float | None) -> Budget:
        """A budget, seconds alone, or the usual one."""
        if isinstance(given, Budget):
            return given
        return cls() if given is None else cls(seconds=float(given))
