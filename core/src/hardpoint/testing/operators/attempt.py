"""One operator through a backend, the way the core's own compiler takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from hardpoint.compiler.segment import compile_segment
from hardpoint.errors import ContractViolation, HardpointError, PlanError
from hardpoint.interfaces.backend import Precision
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import (
    Assignment,
    Costs,
    Objective,
    Partitioner,
    TargetInfo,
)
from hardpoint.numerics import compare
from hardpoint.planning.data import Segment
from hardpoint.planning.graph import compute_nodes
from hardpoint.planning.planner import plan_program
from hardpoint.planning.validate import check_outputs
from hardpoint.runtime.step import OpenedSegment
from hardpoint.testing.operators import judge
from hardpoint.testing.operators.case import NotTestable, Prepared, prepare, run_again
from hardpoint.testing.operators.database import Case, Sample

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from hardpoint.registry.registry import Registry

# In the order in which reports count them. Claimed are all from "right" to "raised".
CLAIMED = ("right", "wrong", "refused", "crashed", "hung", "raised")
UNTOUCHED = ("not_exportable", "left_out")  # the backend was not asked
STATES = (*CLAIMED, "unclaimed", *UNTOUCHED)
BAD = frozenset(CLAIMED) - {"right"}
# Before this one, nothing of the backend has run: what goes wrong there is PyTorch's.
FIRST_STAGE = "support"


@dataclass(frozen=True, slots=True)
class Result:
    """How a case ended.

    :param state: one of :data:`STATES`.
    :param sample: hash of what went in (:func:`.case.digest`), or ``""``.
    """

    op: str
    variant: str
    dtype: str
    state: str
    reason: str = ""
    sample: str = ""

    @property
    def case(self) -> Case:
        """Which case it was."""
        return Case(self.op, self.variant, self.dtype)

    def to_json(self) -> dict[str, str]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Setting:
    """The backend under test, and how it is asked to compile."""

    registry: Registry
    name: str
    precision: Precision
    options: Mapping[str, object]


def attempt(
    setting: Setting, case: Case, sample: Sample, stage: Callable[[str], None]
) -> tuple[str, str]:
    """Capture, plan, compile, load, call, compare: the state and its reason.

    :param stage: told what begins, so that a crash is laid to the right one.
    """
    try:
        stage("capture")
        prepared = prepare(sample, str(case))
    except NotTestable as why:
        return why.state, str(why)
    stage(FIRST_STAGE)
    everything = _Everything()
    try:
        plan = plan_program(
            prepared.program,
            registry=setting.registry,
            targets=Target(setting.name),
            partitioner=everything,
        )
    except PlanError as error:
        if everything.asked:
            return "not_exportable", _short(f"the core cannot plan it: {error.what}")
        return "unclaimed", _short(error.cause or error.what)
    except HardpointError as error:  # support() raised, or broke its contract
        return "raised", _short(f"{error.what}: {error.cause}")
    (segment,) = plan.segments
    reason = judge.untold(
        setting.precision,
        [prepared.values[name] for name in segment.inputs],
        [prepared.values[name] for name in segment.outputs],
    )
    if reason:
        return "left_out", reason
    stage("compile")
    try:
        opened = compile_segment(
            segment, setting.registry, setting.precision,
            [prepared.values[name] for name in segment.inputs], setting.options,
        )  # fmt: skip
    except HardpointError as error:
        return "refused", _short(
            f"{type(error).__name__}: {error.what}; {error.cause}".rstrip("; ")
        )
    stage("call")
    state, reason = _call(setting, prepared, segment, opened)
    try:
        opened.executable.close()
    except Exception as error:
        if state == "right":
            return "raised", _short(f"close(): {type(error).__name__}: {error}")
    return state, reason


def _call(
    setting: Setting, prepared: Prepared, segment: Segment, opened: OpenedSegment
) -> tuple[str, str]:
    device = segment.device.torch_device
    inputs = [prepared.values[name].to(device) for name in segment.inputs]
    before = [t.clone() for t in inputs]
    called = f"called with {prepared.describe()}"
    try:
        with torch.no_grad():  # as the runtime calls it
            outputs = opened.call(moves=device != "cpu")(*inputs)
    except Exception as error:
        return "raised", _short(f"{type(error).__name__}: {error}; {called}")
    expected = {name: prepared.values[name] for name in segment.outputs}
    try:
        check_outputs(outputs, expected, device, opened.provider, opened.origin)
    except ContractViolation as error:
        return "wrong", _short(f"{error.cause}; {called}")
    for i, (was, now) in enumerate(zip(before, inputs, strict=True)):
        if compare(now, was).error != 0:
            return "wrong", _short(f"it changes its input {i}; {called}")
    limit = judge.tolerance(setting.precision, [*inputs, *expected.values()])
    references = [list(expected.values()), *_rounded(setting.precision, prepared, segment)]
    found = judge.wrong(outputs, references, limit)
    return ("wrong", _short(f"{found}; {called}")) if found else ("right", "")


def _rounded(
    precision: Precision, prepared: Prepared, segment: Segment
) -> list[list[torch.Tensor]]:
    """What eager gives for inputs that were rounded to the precision, so rounded again."""
    inputs = judge.rounded(prepared.inputs, precision)
    values = None if inputs is None else run_again(prepared, inputs)
    if values is None:
        return []
    results = judge.rounded([values[name] for name in segment.outputs], precision)
    return [] if results is None else [results]


class _Everything(Partitioner):
    """Every node to the one target there is.

    :ivar asked: the planner came so far; until then it only asks the backend what it supports.
    """

    def __init__(self) -> None:
        self.asked = False

    def partition(
        self,
        program: ExportedProgram,
        targets: Sequence[TargetInfo],
        objective: Objective,
        costs: Costs,
    ) -> Assignment:
        """All to the first."""
        self.asked = True
        return Assignment({n.name: targets[0].target for n in compute_nodes(program)})


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 400 else words[:399] + "…"


def from_json(data: Any) -> Result:
    """Read a result back.

    :raises ValueError: it is none.
    """
    fields = Result.__slots__
    if not isinstance(data, dict) or set(data) != set(fields):
        raise ValueError(f"a result has the fields {', '.join(fields)}")
    if not all(isinstance(value, str) for value in data.values()) or data["state"] not in STATES:
        raise ValueError(f"no result: {data}")
    return Result(**data)
