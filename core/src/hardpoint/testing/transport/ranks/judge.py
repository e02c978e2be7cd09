"""Runs cases of collectives on the transport, and says which came out wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from hardpoint.testing.transport.ranks.moves import ALIASES, MOVING, REDUCING, Held, Turn
from hardpoint.testing.transport.ranks.scene import PATIENCE, Scene
from hardpoint.testing.transport.ranks.values import difference, dtype_named

_MOST_ERRORS = 4  # each may cost the group's timeout
_ROUNDED = ("SUM", "AVG", "PRODUCT")
_ALL = {**REDUCING, **MOVING}


@dataclass(frozen=True)
class Case:
    """One collective with one dtype, reduction and size; see :class:`Turn` for the rest."""

    name: str
    dtype: str
    count: int
    op: str = ""
    later: bool = False
    strided: bool = False
    shares: str = "even"

    def __str__(self) -> str:
        elements = f"{self.count} element{'' if self.count == 1 else 's'} each"
        parts = [
            self.op, self.dtype, elements, "async" if self.later else "",
            "not contiguous" if self.strided else "", "" if self.shares == "even" else self.shares,
        ]  # fmt: skip
        return f"{self.name}({', '.join(filter(None, parts))})"

    def run(self, rank: int, size: int, group: dist.ProcessGroup, device: torch.device) -> Held:
        """Do it as rank ``rank`` of ``group``."""
        turn = Turn(
            rank, size, group, device, dtype_named(self.dtype), self.count,
            self.op, self.later, self.strided, self.shares,
        )  # fmt: skip
        return _ALL[self.name](turn)

    def wrong(self, held: Held) -> list[str]:
        """What is not as it must be."""
        dtype = dtype_named(self.dtype)
        near = self.op in _ROUNDED and (dtype.is_floating_point or dtype.is_complex)
        found = ((what, difference(got, want, near=near)) for what, got, want in held)
        return [f"{self}: {what}: {how}" for what, how in found if how]


def declared(scene: Scene, among: Iterable[str]) -> list[str]:
    """Those collectives that the transport says it has."""
    has = set(scene.request.info.collectives)
    return [name for name in among if name in has or ALIASES.get(name) in has]


def usual(scene: Scene) -> str:
    """The dtype of checks that are not about dtypes."""
    dtypes = scene.request.info.dtypes
    return dtypes[0] if dtypes and "float32" not in dtypes else "float32"


def first_op(scene: Scene) -> str:
    """The reduction of checks that are not about reductions."""
    ops = scene.request.info.reductions
    return ops[0] if ops and "SUM" not in ops else "SUM"


def every_move(scene: Scene, count: int) -> list[Case]:
    """Each declared collective once."""
    dtype = usual(scene)
    reducing = [Case(n, dtype, count, first_op(scene)) for n in declared(scene, REDUCING)]
    return reducing + [Case(name, dtype, count) for name in declared(scene, MOVING)]


def asked_of(scene: Scene, cases: list[Case], gloo: dist.ProcessGroup) -> list[Case]:
    """The cases that the transport must do.

    Those that it names itself; where it names no dtypes or reductions, those that gloo, asked here
    and now, does rightly.
    """
    info = scene.request.info
    named = [
        bool(case.dtype in info.dtypes and (not case.op or case.op in info.reductions))
        for case in cases
    ]
    wanted = [
        (not info.dtypes or case.dtype in info.dtypes)
        and (not case.op or not info.reductions or case.op in info.reductions)
        for case in cases
    ]
    done = torch.zeros(len(cases), dtype=torch.int32)
    for index, case in enumerate(cases):
        if wanted[index] and not named[index]:
            scene.at(f"gloo's {case}")
            done[index] = _gloo_does(scene, case, gloo)
    if len(cases):
        dist.all_reduce(done, dist.ReduceOp.MIN, group=gloo)
    return [
        case
        for case, does, its, want in zip(cases, done.tolist(), named, wanted, strict=True)
        if want and (does or its)
    ]


def _gloo_does(scene: Scene, case: Case, gloo: dist.ProcessGroup) -> bool:
    try:
        return not case.wrong(case.run(scene.rank, scene.size, gloo, torch.device("cpu")))
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return False


def judge(scene: Scene, cases: list[Case], *, as_gloo: bool = True, refusal: bool = False) -> None:
    """Run the cases that the transport must do, and report what is wrong.

    :param as_gloo: leave out what gloo does not do, unless the transport names it.
    :param refusal: raising on every rank is right, too.
    """
    with scene.group() as group:
        gloo = dist.new_group(backend="gloo", timeout=PATIENCE)
        if as_gloo:
            cases = asked_of(scene, cases, gloo)
        errors, refused = 0, []
        for case in cases:
            scene.at(str(case))
            trouble = _attempt(scene, case, group)
            # All ranks or none: what one did differently must not put the next case out of step.
            raised = torch.tensor([int(bool(trouble)), int(not trouble)])
            dist.all_reduce(raised, group=gloo)
            some, none = bool(raised[0]), not raised[1]
            if some and refusal and none:
                refused.append(f"{case}: {trouble}")
            elif trouble:
                scene.wrong(f"{case}: {trouble}")
            if some:
                errors += not (refusal and none)
                if errors > _MOST_ERRORS:
                    break
                scene.at(f"torch.distributed.new_group, after {case}")
                group = dist.new_group(timeout=PATIENCE)
        scene.note(cases=len(cases), refused=refused)


def _attempt(scene: Scene, case: Case, group: dist.ProcessGroup) -> str:
    try:
        held = case.run(scene.rank, scene.size, group, scene.device)
    except Exception as error:  # whatever a transport raises is its answer
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
    for message in case.wrong(held):
        scene.wrong(message)
    return ""


def both(cases: Iterable[Case], vary: Callable[[Case], Case]) -> list[Case]:
    """The cases, and each again varied."""
    return [one for case in cases for one in (case, vary(case))]


def asynchronous(case: Case) -> Case:
    """The same, waited for by its work."""
    return replace(case, later=True)
