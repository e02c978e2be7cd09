"""The report of a choice: the table, the winner, the reasons. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hardpoint.choosing.row import Row, row_from_json
from hardpoint.interfaces.partitioner import Objective
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.results import CALIBRATED, SAME_DATA, Failure, Timing
from hardpoint.units import size


@dataclass(frozen=True, eq=False)
class Choice:
    """What was tried, what won, and why. ``print(compiled.choice)`` shows the table.

    :param objective: what was to be best.
    :param max_error: greatest error accepted, by precision.
    :param rows: every candidate, the winner first, then by the objective.
    :param left_out: (target, reason) of what gave no candidate.
    :param eager: eager PyTorch's figures in the last race; ``None``: nothing was timed.
    :param noise: 90th percentile of eager's round medians ÷ the least of them, in that race.
    :param noisy: that is so much that the order of near ones means nothing.
    :param seconds: that choosing took.
    :param budget: the seconds that it was allowed.
    :param threads: that each process computed with.
    :param remembered: nothing was run: it is known from before.
    :param held_out: errors are also on inputs that nothing was compiled or calibrated with.
    """

    objective: Objective
    max_error: Mapping[str, float]
    rows: tuple[Row, ...]
    left_out: tuple[tuple[str, Failure], ...]
    eager: Timing | None
    noise: float
    noisy: bool
    seconds: float
    budget: float
    threads: int
    remembered: bool = False
    held_out: bool = False

    @property
    def winner(self) -> Candidate:
        """What is compiled now."""
        return self.rows[0].candidate

    @property
    def not_tried(self) -> tuple[Candidate, ...]:
        """What was not tried because the time was spent."""
        return tuple(r.candidate for r in self.rows if r.state == "not tried")

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the winner is the winner, and what became of the others, in sentences."""
        return tuple(_reasons(self))

    def __str__(self) -> str:
        lines = [f"{self.winner.label} for {self.objective}", "", *_table(self), ""]
        return "\n".join([*lines, *self.reasons])

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable; :func:`choice_from_json` reads it back."""
        return {
            "objective": self.objective,
            "max_error": dict(self.max_error),
            "winner": self.winner.label,
            "rows": [row.to_json() for row in self.rows],
            "left_out": [[name, failure.to_json()] for name, failure in self.left_out],
            "eager": None if self.eager is None else self.eager.to_json(),
            "noise": self.noise,
            "noisy": self.noisy,
            "seconds": self.seconds,
            "budget": self.budget,
            "threads": self.threads,
            "remembered": self.remembered,
            "held_out": self.held_out,
            "reasons": list(self.reasons),
        }


def choice_from_json(data: Mapping[str, Any]) -> Choice:
    """What :meth:`Choice.to_json` wrote.

    :raises KeyError: or TypeError, ValueError: it is something else.
    """
    eager = data["eager"]
    return Choice(
        objective=data["objective"],
        max_error=data["max_error"],
        rows=tuple(map(row_from_json, data["rows"])),
        left_out=tuple((name, Failure(**failure)) for name, failure in data["left_out"]),
        eager=None if eager is None else Timing(**eager),
        noise=data["noise"],
        noisy=data["noisy"],
        seconds=data["seconds"],
        budget=data["budget"],
        threads=data["threads"],
        remembered=data["remembered"],
        held_out=data.get("held_out", False),
    )


def _table(choice: Choice) -> list[str]:
    """A header, eager PyTorch and a line a candidate, in columns."""
    head = ("candidate", "p50 ms", "95 % interval", "x eager", "samples/s", "error", "package",
            "memory", "")  # fmt: skip
    rows: list[tuple[str, ...]] = [head]
    if choice.eager is not None:
        rows.append(("eager PyTorch", *_figures(choice.eager), "", "", "", "the baseline"))
    rows += [_cells(row) for row in choice.rows]
    rows += [(name, *[""] * 7, f"left out: {why.reason}") for name, why in choice.left_out]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def _cells(row: Row) -> tuple[str, ...]:
    error = "" if row.errors is None else f"{row.errors.max:.2g}"
    figures = ("", "", "", "") if row.timing is None else _figures(row.timing)
    package = "" if row.bytes is None else size(row.bytes)
    memory = "" if row.memory_bytes is None else size(row.memory_bytes)
    said = row.state if row.failure is None else str(row.failure)
    return (row.label, *figures, error, package, memory, said)


def _figures(timing: Timing) -> tuple[str, str, str, str]:
    ratio = "" if timing.ratio is None else f"{timing.ratio:.2f}"
    interval = f"{timing.low * 1e3:.3f} - {timing.high * 1e3:.3f}"
    return f"{timing.p50 * 1e3:.3f}", interval, ratio, f"{timing.throughput:.1f}"


def _reasons(choice: Choice) -> list[str]:
    first, said = choice.rows[0], []
    rivals = [r for r in choice.rows[1:] if r.state in ("timed", "ready")]
    if choice.objective in ("latency", "throughput") and first.timing is not None:
        if first.timing.ratio is not None:
            said.append(f"{first.label} is {first.timing.ratio:.2f}x as fast as eager PyTorch.")
        rivals = [r for r in rivals if r.timing is not None]
        if rivals and rivals[0].timing is not None:
            near = rivals[0].timing.low <= first.timing.high
            note = ": within the noise of the winner" if near else ""
            said.append(f"The next is {rivals[0].label}{note}.")
    elif choice.objective == "size" and first.bytes is not None:
        said.append(f"{first.label}: the smallest package, {size(first.bytes)}.")
    elif choice.objective == "memory" and first.memory_bytes is not None:
        said.append(f"{first.label}: the least memory, {size(first.memory_bytes)}.")
    wrong = [r.label for r in choice.rows if r.failure is not None and r.failure.kind == "wrong"]
    if wrong:
        said.append(f"Beyond the error asked for: {_some(wrong)}.")
    failed = sum(r.state == "failed" for r in choice.rows) - len(wrong)
    if failed:
        said.append(f"{failed} failed; the table says why.")
    if choice.not_tried:
        names = _some([c.label for c in choice.not_tried])
        said.append(f"Not tried, as the budget of {choice.budget:g} s was spent: {names}.")
    spinning = [name for name, given in choice.winner.options.items() if given.get("spinning")]
    if spinning:
        said.append(
            f"Threads of {spinning[0]} wait spinning, and take cores from whatever else this "
            "process runs: where that is much, fix "
            f"options={{'{spinning[0]}': {{'spinning': False}}}}."
        )
    rounded = [r for r in choice.rows if r.errors and CALIBRATED in r.candidate.precisions.values()]
    if rounded and not choice.held_out:
        said.append(SAME_DATA)
    if choice.noisy:
        said.append(
            f"The machine was busy (eager's own rounds differ by {choice.noise:.2f}x): the order "
            "of near ones may be chance."
        )
    if choice.remembered:
        said.append("Known from before; nothing was run.")
    return said


def _some(names: list[str], most: int = 5) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
