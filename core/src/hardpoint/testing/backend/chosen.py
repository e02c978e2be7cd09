"""A model of the kit, captured in the form that the backend claims most of, and its runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from hardpoint.errors import HardpointError
from hardpoint.interfaces.backend import Support
from hardpoint.planning.graph import compute_nodes
from hardpoint.program.program import Program
from hardpoint.runtime.model import CompiledModel
from hardpoint.testing.backend.bench import Bench
from hardpoint.testing.backend.judge import agree
from hardpoint.testing.backend.split import FirstFit
from hardpoint.testing.check import expect, fail, skip_unless
from hardpoint.testing.models import MODELS
from hardpoint.testing.models.case import Case


@dataclass(frozen=True, eq=False)
class Chosen:
    """A captured model and what the backend says of it.

    :param dynamic: captured with its dynamic sizes.
    """

    case: Case
    program: Program
    dynamic: bool
    support: Support

    @property
    def claimed(self) -> list[str]:
        """Names of the claimed nodes, in program order."""
        nodes = compute_nodes(self.program.exported)
        return [n.name for n in nodes if n.name in self.support.supported]

    @cached_property
    def expected(self) -> list[tuple[torch.Tensor, ...]]:
        """What eager PyTorch gives in the calls that tell whether it works."""
        return self.case.expected(self.case.calls, dynamic=self.dynamic)


def choose(bench: Bench, name: str, figures: dict[str, Any]) -> Chosen:
    """The model, with dynamic sizes unless the backend claims more of it without.

    Skips the check, with the reason, where the model cannot be built here.
    """
    if name not in bench.kept:
        case = MODELS[name]
        missing = case.missing()
        skip_unless(not missing, missing)
        forms = [_capture(bench, case, dynamic=bool(case.dynamic))]
        if case.dynamic and forms[0].support.unsupported:
            forms.append(_capture(bench, case, dynamic=False))
        bench.kept[name] = min(forms, key=lambda form: len(form.support.unsupported))
    chosen: Chosen = bench.kept[name]
    figures |= {
        "model": chosen.case.title,
        "sizes": "dynamic" if chosen.dynamic else "fixed",
        "operations": len(compute_nodes(chosen.program.exported)),
        "claimed": len(chosen.claimed),
    }
    return chosen


def _capture(bench: Bench, case: Case, *, dynamic: bool) -> Chosen:
    program = case.program(dynamic=dynamic)
    return Chosen(case, program, dynamic, bench.answer(program).support)


def run(bench: Bench, chosen: Chosen, split: FirstFit | None, figures: dict[str, Any]) -> None:
    """Compile the model, alone on the backend or ``split`` with the host, and judge its calls."""
    case = chosen.case
    try:
        plan = bench.plan(chosen.program, split)
        model = bench.model(plan)
    except HardpointError as error:
        fail(f"{case.title}: {error}")
    try:
        figures["segments"] = len(plan.segments)
        errors = _errors(bench, chosen, model)
    finally:
        model.close()
    figures["max_error"], figures["allowed"] = max(errors), bench.limit


def _errors(bench: Bench, chosen: Chosen, model: CompiledModel) -> list[float]:
    case, found = chosen.case, []
    for i, want in enumerate(chosen.expected):
        inputs = case.call(i, dynamic=chosen.dynamic)
        copies = [t.clone() for t in inputs]
        what = f"{case.title}, call {i} of {case.calls}"
        try:
            got = model.run(inputs)
        except HardpointError as error:
            fail(f"{what}: {error}")
        found.append(agree(got, want, bench.limit, what))
        for now, was in zip(inputs, copies, strict=True):
            expect(torch.equal(now, was), f"{what}: an input was changed")
    return found
