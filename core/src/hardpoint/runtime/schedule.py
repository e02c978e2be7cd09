"""The order of a call, as data: which slot holds what, and what each step reads and writes.

Made from a plan, stored in packages, run by :class:`hardpoint.runtime.model.CompiledModel`. The
first slots are the call's inputs, then the program's state (what a run changes), then weights
that are results themselves, then what segments make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hardpoint.errors import PackageError

MAX_SLOTS = 1_000_000


class Step(NamedTuple):
    """One segment: slots it reads, slots it fills, slots that nobody reads afterwards."""

    segment: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    frees: tuple[int, ...]


class Schedule(NamedTuple):
    """A whole call.

    :param slots: how many slots there are.
    :param inputs: how many of them are the call's inputs.
    :param held: name of state or weight -> its slot; filled once, not at every call.
    :param steps: in running order.
    :param results: slot of each flat result.
    :param state_writes: (slot of the new value, name of the state that it replaces).
    :param input_writes: (slot of the new value, index of the input that it is written to).
    """

    slots: int
    inputs: int
    held: Mapping[str, int]
    steps: tuple[Step, ...]
    results: tuple[int, ...]
    state_writes: tuple[tuple[int, str], ...] = ()
    input_writes: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict[str, object]:
        """JSON-serializable; :func:`from_json` reads it back."""
        return {
            "slots": self.slots,
            "inputs": self.inputs,
            "held": dict(self.held),
            "steps": [
                {
                    "segment": s.segment,
                    "inputs": list(s.inputs),
                    "outputs": list(s.outputs),
                    "frees": list(s.frees),
                }
                for s in self.steps
            ],
            "results": list(self.results),
            "state_writes": [list(w) for w in self.state_writes],
            "input_writes": [list(w) for w in self.input_writes],
        }


def with_frees(
    steps: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]], kept: set[int]
) -> tuple[Step, ...]:
    """Steps with the slots that can be emptied after each: last read there, and not in ``kept``."""
    last: dict[int, int] = {}
    for i, (_, reads, writes) in enumerate(steps):
        for slot in (*reads, *writes):
            last[slot] = i
    return tuple(
        Step(
            segment, reads, writes,
            tuple(sorted({s for s in (*reads, *writes) if last[s] == i and s not in kept})),
        )
        for i, (segment, reads, writes) in enumerate(steps)
    )  # fmt: skip


def from_json(data: Mapping[str, object]) -> Schedule:
    """Read a schedule from a package's manifest, which nobody vouches for.

    Every slot is written before it is read, and once; so a run cannot go wrong in a way that
    gives numbers.

    :raises PackageError: it is not what :meth:`Schedule.to_json` writes, or breaks that rule.
    """
    try:
        schedule = _parse(data)
        _check(schedule)
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(
            "the package's schedule is malformed",
            cause=f"{type(error).__name__}: {error}",
            remedy="get the file again from its source, or save it again",
        ) from error
    return schedule


def _parse(data: Mapping[str, object]) -> Schedule:
    def number(value: object) -> int:
        if type(value) is not int or not 0 <= value <= MAX_SLOTS:
            raise ValueError(f"slot {value!r}")
        return value

    def numbers(value: object) -> tuple[int, ...]:
        if not isinstance(value, list):
            raise TypeError("expected a list of slots")
        return tuple(map(number, value))

    steps, held = data["steps"], data["held"]
    state_writes, input_writes = data["state_writes"], data["input_writes"]
    for value in (steps, state_writes, input_writes):
        if not isinstance(value, list):
            raise TypeError("expected a list")
    if not isinstance(held, dict):
        raise TypeError("expected an object")
    return Schedule(
        slots=number(data["slots"]),
        inputs=number(data["inputs"]),
        held={str(name): number(slot) for name, slot in held.items()},
        steps=tuple(
            Step(
                str(s["segment"]), numbers(s["inputs"]), numbers(s["outputs"]), numbers(s["frees"])
            )
            for s in steps  # type: ignore[attr-defined]
        ),
        results=numbers(data["results"]),
        state_writes=tuple((number(v), str(n)) for v, n in state_writes),  # type: ignore[attr-defined]
        input_writes=tuple((number(v), number(i)) for v, i in input_writes),  # type: ignore[attr-defined]
    )


def _check(schedule: Schedule) -> None:
    filled = set(range(schedule.inputs)) | set(schedule.held.values())
    if filled and max(filled) >= schedule.slots:
        raise ValueError(f"slot {max(filled)} of {schedule.slots}")
    if len(filled) != schedule.inputs + len(schedule.held):
        raise ValueError("inputs and held tensors share a slot")
    for step in schedule.steps:
        for slot in step.inputs:
            if slot not in filled:
                raise ValueError(f"{step.segment} reads slot {slot}, which is empty then")
        for slot in step.outputs:
            if slot in filled or slot >= schedule.slots:
                raise ValueError(f"{step.segment} writes slot {slot}")
            filled.add(slot)
        if not filled.issuperset(step.frees):
            raise ValueError(f"{step.segment} frees a slot that is empty")
        filled.difference_update(step.frees)
    used = {*schedule.results, *(v for v, _ in (*schedule.state_writes, *schedule.input_writes))}
    if used - filled:
        raise ValueError(f"slot {min(used - filled)} is empty at the end")
    if any(name not in schedule.held for _, name in schedule.state_writes):
        raise ValueError("state that is not held")
    if any(index >= schedule.inputs for _, index in schedule.input_writes):
        raise ValueError("an input that does not exist")
