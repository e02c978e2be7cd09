"""Runs cases of collectives on the transport, and says which came out wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist

from hardpoint.interfaces.transport import TransportInfo
from hardpoint.testing.transport.names import collectives_of
from hardpoint.testing.transport.ranks.moves import MOVING, REDUCING, Held, Turn
from hardpoint.testing.transport.ranks.scene import PATIENCE, Scene
from hardpoint.testing.transport.ranks.values import DTYPES, REDUCTIONS, difference, dtype_named

SHORT = timedelta(seconds=8)  # of groups in which a rank may wait in vain
_MOST_ERRORS = 5
_LATE = 4  # as how many errors one counts that came by the group's timeout
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
    has = collectives_of(scene.request.info)
    return [name for name in among if name in has]


def dtypes_of(info: TransportInfo) -> list[str]:
    """The dtypes to try: those that it declares, all where it declares none."""
    named = {str(dtype_named(name))[6:] for name in info.dtypes}  # "half" is float16
    return [name for name in DTYPES if not named or name in named]


def reductions_of(info: TransportInfo) -> list[str]:
    """The reductions to try: those that it declares, all where it declares none."""
    return [op for op in REDUCTIONS if not info.reductions or op in info.reductions]


def usual(scene: Scene) -> str:
    """The dtype of checks that are not about dtypes."""
    dtypes = dtypes_of(scene.request.info)
    return "float32" if "float32" in dtypes else dtypes[0]


def _first_op(scene: Scene) -> str:
    return reductions_of(scene.request.info)[0]


def every_move(scene: Scene, count: int) -> list[Case]:
    """Each declared collective once."""
    dtype = usual(scene)
    reducing = [Case(n, dtype, count, _first_op(scene)) for n in declared(scene, REDUCING)]
    return reducing + [Case(name, dtype, count) for name in declared(scene, MOVING)]


def asked_of(scene: Scene, cases: list[Case], gloo: dist.ProcessGroup) -> list[Case]:
    """The cases that the transport must do.

    Those that it names itself; where it names no dtypes or reductions, those that gloo, asked here
    and now, does rightly.
    """
    done = torch.zeros(len(cases), dtype=torch.int32)
    for index, case in enumerate(cases):
        scene.at(f"gloo's {case}")
        done[index] = _names(scene.request.info, case) or _gloo_does(scene, case, gloo)
    if cases:
        # What one rank of gloo refuses, another may not.
        dist.all_reduce(done, dist.ReduceOp.MIN, group=gloo)
    return [case for case, does in zip(cases, done.tolist(), strict=True) if does]


def _names(info: TransportInfo, case: Case) -> bool:
    named = bool(info.dtypes) and case.dtype in dtypes_of(info)
    return named and (not case.op or case.op in info.reductions)


def _gloo_does(scene: Scene, case: Case, gloo: dist.ProcessGroup) -> bool:
    try:
        return not case.wrong(case.run(scene.rank, scene.size, gloo, torch.device("cpu")))
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return False


def judge(scene: Scene, cases: list[Case], patience: timedelta = PATIENCE) -> None:
    """Run the cases that the transport must do, and report what is wrong.

    :param patience: the timeout of each case.
    """
    with scene.group():
        group = _another(scene, None, patience)
        gloo = _aside()
        cases = asked_of(scene, cases, gloo)
        errors = 0
        for case in cases:
            trouble, seconds = _attempt(scene, case, group)
            if trouble:
                scene.wrong(f"{case}: {trouble}")
            weight = _LATE if seconds > patience.total_seconds() / 2 else 1
            weight = _agreed(gloo, weight if trouble else 0, dist.ReduceOp.MAX)
            errors += weight
            if errors >= _MOST_ERRORS:
                break
            if weight:
                group = _another(scene, case, patience)
        scene.note(cases=len(cases))


def judge_refusals(scene: Scene, cases: list[Case]) -> None:
    """Run cases that a transport need not do: right, or refused by every rank at once."""
    scene.join()
    gloo, refused = _aside(), []
    group = _another(scene, None, SHORT)
    for case in cases:
        trouble, seconds = _attempt(scene, case, group)
        # Who only finds that nothing comes has refused nothing.
        late = seconds > SHORT.total_seconds() / 2
        if _agreed(gloo, int(bool(trouble) and not late), dist.ReduceOp.MIN):
            refused.append(f"{case}: {trouble}")
        elif trouble:
            how = f", after {seconds:.0f} s: another rank went ahead" if late else ""
            scene.wrong(f"{case}: {trouble}{how}; not every rank refuses it")
        if _agreed(gloo, int(bool(trouble)), dist.ReduceOp.MAX):
            group = _another(scene, case, SHORT)
    scene.note(cases=len(cases), refused=refused)
    scene.leave()


def _aside() -> dist.ProcessGroup:
    """Gloo's own group: to ask it, and to agree on what the transport did."""
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=3 * PATIENCE)
    return group


def _agreed(gloo: dist.ProcessGroup, mine: int, op: dist.ReduceOp.RedOpType) -> int:
    """What one rank found must not put it out of step with the others."""
    answer = torch.tensor([mine])
    dist.all_reduce(answer, op, group=gloo)
    return int(answer.item())


def _another(scene: Scene, after: Case | None, timeout: timedelta) -> dist.ProcessGroup:
    """A new group of all: an error may have left the one before unusable."""
    scene.at(f"torch.distributed.new_group, after {after}" if after else "new_group")
    group: dist.ProcessGroup = dist.new_group(timeout=timeout)
    return group


def _attempt(scene: Scene, case: Case, group: dist.ProcessGroup) -> tuple[str, float]:
    """The error, if any, and the seconds that it took; wrong results are reported here."""
    scene.at(str(case))
    began = time.monotonic()
    try:
        held = case.run(scene.rank, scene.size, group, scene.device)
    except Exception as error:  # whatever a transport raises is its answer
        text = str(error).strip().partition("\n")[0][:300]
        return f"{type(error).__name__}: {text}", time.monotonic() - began
    for message in case.wrong(held):
        scene.wrong(message)
    return "", time.monotonic() - began


def both(cases: Iterable[Case], vary: Callable[[Case], Case]) -> list[Case]:
    """The cases, and each again varied."""
    return [one for case in cases for one in (case, vary(case))]


def asynchronous(case: Case) -> Case:
    """The same, waited for by its work."""
    return replace(case, later=True)
