"""A schedule with the segments that run it. Never changed: a fallback makes a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import torch

from hardpoint.errors import ContractViolation, DeviceLost, RuntimeFault
from hardpoint.program.signature import Signature
from hardpoint.runtime.boundary import Call, CopyError, Leave
from hardpoint.runtime.schedule import Schedule, Step
from hardpoint.runtime.step import OpenedSegment

Slots = list[torch.Tensor | None]
# Called with each segment, what it took and what it gave.
Watch = Callable[[OpenedSegment, list[torch.Tensor], tuple[torch.Tensor, ...]], None]


class FaultedError(Exception):
    """Inside the runtime: ``segment`` met ``fault``, which a fallback can act on."""

    def __init__(self, segment: OpenedSegment, fault: RuntimeFault, original: Exception) -> None:
        super().__init__(str(fault))
        self.segment, self.fault = segment, fault
        self.cause = original if original is not fault else fault.__cause__

    def give(self) -> NoReturn:
        """Raise the fault itself."""
        raise self.fault from self.cause


class Wiring:
    """Which call fills which slots from which, in running order.

    :param held: name of state or weight -> its tensor.
    """

    def __init__(
        self,
        schedule: Schedule,
        signature: Signature,
        held: Mapping[str, torch.Tensor],
        segments: Sequence[OpenedSegment],
    ) -> None:
        self.segments = tuple(segments)
        self._schedule = schedule
        self._homes = [spec.device for spec in signature.results]
        by_id = {s.id: s for s in segments}
        self._makers = {slot: by_id[s.segment] for s in schedule.steps for slot in s.outputs}
        moves, place = _places(schedule, signature, held, by_id)

        def leaving(step: Step) -> dict[int, Leave]:
            """How what a step on the CPU reads comes from other devices."""
            makers = self._makers if by_id[step.segment].device.torch_device == "cpu" else {}
            return {
                at: makers[slot].to_cpu for at, slot in enumerate(step.inputs)
                if slot in makers and place[slot] != "cpu"
            }  # fmt: skip

        self._steps: list[
            tuple[Call, tuple[int, ...], tuple[int, ...], tuple[int, ...], OpenedSegment]
        ] = [
            (by_id[s.segment].call(s.segment in moves, leaving(s)), s.inputs, s.outputs,
             s.frees, by_id[s.segment])
            for s in schedule.steps
        ]  # fmt: skip
        # Some result or new value is not made where it must be in the end.
        ends = [*zip(schedule.results, self._homes, strict=True)]
        ends += [(slot, str(held[name].device)) for slot, name in schedule.state_writes]
        ends += [(slot, signature.inputs[i].device) for slot, i in schedule.input_writes]
        self.elsewhere = any(place[slot] != home for slot, home in ends)
        self.direct = self._direct()

    def fill(self, slots: Slots, watch: Watch | None = None) -> None:
        """Run every segment; ``slots`` holds inputs and held tensors, and results afterwards.

        :raises FaultedError: a segment's fault. :raises HardpointError: any other failure.
        """
        for call, reads, writes, frees, segment in self._steps:
            try:
                values = call(*[slots[i] for i in reads])
            except CopyError as failed:
                self._copy_failed(segment, reads[failed.position], failed)
            except Exception as error:
                fail(segment, error)
            if type(values) is not tuple or len(values) != len(writes):
                raise wrong_result(segment, f"{len(writes)} tensors in a tuple were expected")
            if watch is not None:
                watch(segment, [slots[i] for i in reads], values)  # type: ignore[misc]
            for slot, value in zip(writes, values, strict=True):
                slots[slot] = value
            for slot in frees:
                slots[slot] = None

    def results(self, slots: Slots) -> list[torch.Tensor]:
        """The flat results, each where the program says that it lives."""
        found = self._schedule.results
        if not self.elsewhere:
            return [slots[i] for i in found]  # type: ignore[misc]
        return [
            self.brought(slots, slot, home) for slot, home in zip(found, self._homes, strict=True)
        ]

    def brought(self, slots: Slots, slot: int, home: torch.device | str) -> torch.Tensor:
        """What ``slot`` holds, at ``home``. Here an asynchronous device tells of its errors."""
        tensor = slots[slot]
        assert tensor is not None
        maker = self._makers.get(slot)
        try:
            if maker is not None and str(home) == "cpu" and maker.device.torch_device != "cpu":
                return maker.to_cpu(tensor)
            return tensor.to(home)
        except Exception as error:
            if maker is None:
                raise
            fail(maker, error)

    def maker(self, slot: int) -> OpenedSegment:
        """The segment that fills ``slot``."""
        return self._makers[slot]

    def _copy_failed(self, reader: OpenedSegment, slot: int, failed: CopyError) -> NoReturn:
        """Blame the one whose device it is: errors of asynchronous work come up in later copies."""
        error, blamed = failed.original, reader
        if failed.makers:
            fail(self._makers[slot], error)
        if isinstance(reader.failure(error), DeviceLost):
            blamed = self._makers.get(slot, reader)
            if blamed.device.torch_device == "cpu":
                blamed = reader
            if blamed.device.torch_device == "cpu":  # the caller's own tensor is on a lost device
                raise reader.failure(error) from error
        fail(blamed, error)

    def _direct(self) -> Callable[[Sequence[object]], tuple[torch.Tensor, ...]] | None:
        """The short way for one segment that takes the inputs and gives the results, unchanged."""
        schedule = self._schedule
        writes_back = schedule.state_writes or schedule.input_writes
        if len(self._steps) != 1 or writes_back or self.elsewhere:
            return None
        call, reads, writes, _, segment = self._steps[0]
        if reads != tuple(range(schedule.inputs)) or writes != schedule.results:
            return None

        def direct(inputs: Sequence[object]) -> tuple[torch.Tensor, ...]:
            try:
                return call(*inputs)
            except Exception as error:
                fail(segment, error)

        return direct


def fail(segment: OpenedSegment, error: Exception) -> NoReturn:
    """Raise what ``error`` of ``segment`` is for its reader, or for a fallback."""
    if isinstance(error, CopyError):
        error = error.original
    failure = segment.failure(error)
    if isinstance(failure, RuntimeFault):
        raise FaultedError(segment, failure, error)
    if failure is error:
        raise error
    raise failure from error


def wrong_result(segment: OpenedSegment, cause: str) -> ContractViolation:
    """The segment gave something else than the program says."""
    return ContractViolation(
        f"segment {segment.id} gave a wrong kind of result on {segment.target}",
        provider=segment.provider,
        origin=segment.origin,
        cause=cause,
        remedy="report it to the plugin's author; `hardpoint check` shows the whole contract",
    )


def _places(
    schedule: Schedule,
    signature: Signature,
    held: Mapping[str, torch.Tensor],
    by_id: Mapping[str, OpenedSegment],
) -> tuple[set[str], dict[int, str]]:
    """Segments that read what lives on another device than theirs; and where each slot lives."""
    place = {i: spec.device for i, spec in enumerate(signature.inputs)}
    place |= {slot: str(held[name].device) for name, slot in schedule.held.items()}
    moving = set()
    for step in schedule.steps:
        device = by_id[step.segment].device.torch_device
        if any(place[slot] != device for slot in step.inputs):
            moving.add(step.segment)
        place |= dict.fromkeys(step.outputs, device)
    return moving, place
