"""A segment whose device is lost or whose memory ran out, compiled for another target.

From the program that the model carries, and held against eager PyTorch as every segment is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from hardpoint.compiler.apart import in_thread_of_its_own
from hardpoint.compiler.examples import make_examples
from hardpoint.compiler.made import Made, make_segment, with_fall_back, with_segment
from hardpoint.compiler.request import CompileRequest
from hardpoint.compiler.verify import reference_values
from hardpoint.errors import CompileError, DeviceLost, HardpointError, PackageError, RuntimeFault
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.probe import Device
from hardpoint.planning.build import segment_again
from hardpoint.planning.devices import find_device
from hardpoint.planning.planner import support_of
from hardpoint.program.program import Program
from hardpoint.runtime.model import CompiledModel, Replacement
from hardpoint.runtime.wiring import FaultedError

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

Place = tuple[str, str]  # backend, device


@dataclass(frozen=True, eq=False)
class Carried:
    """What a segment is made from. :param reference: gives every value in eager PyTorch."""

    program: Program
    plan: Mapping[str, Any]
    reference: Callable[[], Mapping[str, torch.Tensor]]


@dataclass(eq=False)
class Recovery:
    """The fallback of one model: each segment goes along the chain of ``request``, never back.

    :param request: how to compile; a precision that a target does not have becomes ``fp32``.
    """

    registry: Registry
    request: CompileRequest
    _lost: set[Place] = field(default_factory=set)
    _left: dict[str, dict[Place, str]] = field(default_factory=dict)

    def __call__(self, model: CompiledModel, faulted: FaultedError) -> Replacement:
        """What is to stand in the place of the segment that faulted in a call.

        :raises RuntimeFault: see :meth:`instead`.
        """
        failed = faulted.segment
        try:
            program = model.facts.program()
        except PackageError as damaged:
            fault = faulted.fault
            why = f"no fallback can be compiled: {damaged.what}: {damaged.cause}"
            fault.cause = f"{fault.cause}; {why}" if fault.cause else why
            fault.remedy = damaged.remedy
            raise fault from damaged
        examples = model.facts.examples or program.example_inputs
        carried = Carried(
            program,
            model.facts.plan,
            lambda: reference_values(program, examples or make_examples(program.signature)),
        )
        made, fact = self.instead(
            carried, failed.id, (failed.target, failed.device), faulted.fault, faulted.cause
        )
        facts = with_fall_back(with_segment(model.facts, made), fact)
        return Replacement(made.segment, facts, fact)

    def instead(
        self,
        carried: Carried,
        name: str,
        where: tuple[Target, Device],
        fault: RuntimeFault,
        cause: BaseException | None,
    ) -> tuple[Made, Mapping[str, object]]:
        """Segment ``name`` on the next target that can take it, and the facts of the event.

        :param where: it was until now. :param cause: of ``fault``, for the traceback.
        :raises RuntimeFault: no target of the chain can take it; tells the reason of each.
        """
        started = time.perf_counter()
        reason = fault.what + (f": {fault.cause}" if fault.cause else "")
        left, here = self._left.setdefault(name, {}), (where[0].backend, where[1].id)
        left[here] = f"{where[0]}: {reason}"
        if isinstance(fault, DeviceLost):
            self._lost.add(here)
        for target in self.request.chain:
            made = self._try(carried, name, target, left)
            if made is not None:
                return made, {
                    "program": carried.program.name, "segment": name, "from": str(where[0]),
                    "to": [str(target)], "precision": made.precision, "reason": reason,
                    "passed_over": [why for place, why in left.items() if place != here],
                    "seconds": time.perf_counter() - started,
                }  # fmt: skip
        others = [why for place, why in left.items() if place != here]
        ended = (
            f"no fallback is left: {'; '.join(others)}" if others else "fallback= names no other"
        )
        raise type(fault)(
            fault.what, provider=fault.provider, origin=fault.origin,
            cause=f"{fault.cause}; {ended}" if fault.cause else ended,
            remedy="name further targets with fallback=, or make the model again",
        ) from cause  # fmt: skip

    def _try(
        self, carried: Carried, name: str, target: Target, left: dict[Place, str]
    ) -> Made | None:
        """The segment on ``target``; ``None``, and the reason in ``left``, where that fails."""
        place = (target.backend, target.device)
        try:
            device = find_device(self.registry, target)
            place = (target.backend, device.id)
            if place in left:
                return None
            if place in self._lost:
                left[place] = f"{target}: its device was lost before"
                return None
            return in_thread_of_its_own(lambda: self._make(carried, name, target, device))
        except HardpointError as error:
            left[place] = f"{target}: {error.what}" + (f": {error.cause}" if error.cause else "")
            return None

    def _make(self, carried: Carried, name: str, target: Target, device: Device) -> Made:
        info = self.registry.info("backend", target.backend)
        segment = segment_again(
            carried.program, carried.plan, name, target, device, contiguous=not info.strided_inputs
        )
        refused = support_of(segment.program, target, device, self.registry).unsupported
        if refused:
            raise CompileError(
                f"it cannot run {len(refused)} of the segment's operations",
                cause="; ".join(dict.fromkeys(refused.values()))[:400],
            )
        asked = self.request.precisions.of(target.backend)
        if asked not in info.precisions:
            asked = "fp32"
        return make_segment(segment, asked, self.registry, self.request, carried.reference())
