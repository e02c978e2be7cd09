"""What a call and a segment boundary cost above calling the compiled callables directly.

The peer is the executable itself: the same objects, called in the same order without our runtime.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from _report import Page, Timing, arguments, interleaved, ratio, table, verdict

import hardpoint as hp
import hardpoint_cpu.plugin
from hardpoint.planning import compute_nodes

CALL_BUDGET = 10e-6
BOUNDARY_BUDGET = 15e-6
CALLS = 2000
# Segments of the chain; each pair of neighbours is one boundary.
CHAIN = 41


class Chain(torch.nn.Module):
    """So many additions, so that segments do next to nothing."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape in, shape out: (batch, 8)."""
        for _ in range(self.length):
            x = x + 1.0
        return x


class Small(torch.nn.Module):
    """Two inputs, two results: a usual signature."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Two (batch, 8) tensors in, a dict of two out."""
        return {"total": ids + mask, "product": ids * mask}


class Eight(torch.nn.Module):
    """Eight inputs, such as a decoder's layers of cache are."""

    def forward(
        self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor,
        e: torch.Tensor, f: torch.Tensor, g: torch.Tensor, h: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """Eight (batch, 8) tensors in, one out."""
        return torch.cat((a, b, c, d, e, f, g, h), 1)


class Plugin:
    """The cpu backend, described otherwise: ``fields`` of ``BackendInfo``."""

    def __init__(self, **fields: object) -> None:
        info = replace(hardpoint_cpu.plugin.hardpoint_backend_info(), **fields)  # type: ignore[arg-type]
        self.hardpoint_backend_info = hp.hookimpl(lambda: info)
        self.hardpoint_backend_probe = hardpoint_cpu.plugin.hardpoint_backend_probe
        self.hardpoint_backend_open = hardpoint_cpu.plugin.hardpoint_backend_open


@dataclass(frozen=True)
class Case:
    """One call to measure.

    :param grad: the caller left gradients on. :param fallback: as in ``hp.compile``.
    """

    model: torch.nn.Module
    inputs: int
    plugin: Plugin
    grad: bool = False
    fallback: str | None = None


class Alternate(hp.Partitioner):
    """Every node on another target than the one before it: as many boundaries as there can be."""

    def partition(
        self,
        program: torch.export.ExportedProgram,
        targets: Sequence[hp.TargetInfo],
        objective: hp.Objective,
        costs: hp.Costs,
    ) -> hp.Assignment:
        """Round-robin over ``targets``."""
        nodes = compute_nodes(program)
        return hp.Assignment(
            {n.name: targets[i % len(targets)].target for i, n in enumerate(nodes)}
        )


def per_call(call: Callable[[], object], *, grad: bool = False) -> Callable[[], float]:
    """Seconds of one call, averaged over ``CALLS``."""

    def once() -> float:
        with torch.set_grad_enabled(grad):
            started = time.perf_counter()
            for _ in range(CALLS):
                call()
            return (time.perf_counter() - started) / CALLS

    return once


def measure_call(page: Page, rounds: int) -> list[list[object]]:
    """One segment: the whole call against the executable; one row a signature."""
    plain = Plugin()
    cases = {
        "one tensor in, one out": Case(Chain(1), 1, plain),
        "two tensors in, a dict of two out": Case(Small(), 2, plain),
        "the same, called with gradients on": Case(Small(), 2, plain, grad=True),
        "the same, with a fallback": Case(Small(), 2, plain, fallback="cpu"),
        "eight tensors in, one out": Case(Eight(), 8, plain),
        "the same, contiguous inputs only": Case(Eight(), 8, Plugin(strided_inputs=False)),
        "the same, aligned to 64 bytes too": Case(
            Eight(), 8, Plugin(strided_inputs=False, alignment=64)
        ),
    }
    rows, budgets = [], []
    for name, case in cases.items():
        registry = hp.Registry(policy=hp.Policy())
        registry.add("backend", "measured", case.plugin)
        inputs = tuple(torch.randn(3, 8) for _ in range(case.inputs))
        dynamic = tuple({0: "batch"} for _ in inputs)
        program = hp.capture(case.model.eval(), inputs, dynamic=dynamic, registry=registry)
        plan = hp.plan(program, targets="measured", registry=registry)
        compiled = hp.compile(plan, fallback=case.fallback, registry=registry)
        executable = compiled.segments[0].executable

        def direct(e: hp.Executable = executable, i: tuple[torch.Tensor, ...] = inputs) -> object:
            return e(*i)

        def ours(c: hp.CompiledModel = compiled, i: tuple[torch.Tensor, ...] = inputs) -> object:
            return c(*i)

        with torch.no_grad():  # the executable alone is always called so, as we call it
            cases_ = {"executable": per_call(direct)}
            cases_["hardpoint"] = per_call(ours, grad=case.grad)
            times = interleaved(cases_, rounds)
        extra = times["hardpoint"].median - times["executable"].median
        least = times["hardpoint"].low - times["executable"].low
        rows.append([name, *_cells(times), f"{extra * 1e6:.2f}", f"{least * 1e6:.2f}"])
        budgets.append(
            [f"call overhead, {name}", f"< {CALL_BUDGET * 1e6:.0f} µs", f"{extra * 1e6:.2f} µs",
             verdict(extra, CALL_BUDGET)]
        )  # fmt: skip
    page.add(
        f"## One segment\n\n{CALLS} calls a round, {rounds} interleaved rounds. The peer is the "
        "backend's own executable, called directly with the same tensors. The last column is that "
        "of the fastest rounds: what the wrapper costs with the machine to itself."
    )
    heads = ["", "executable µs", "hardpoint µs", "ratio", "overhead µs", "least µs"]
    page.add(table(heads, rows))
    return budgets


def boundary_times(
    compiled: hp.CompiledModel, x: torch.Tensor, rounds: int
) -> tuple[dict[str, Timing], int, float]:
    """A chain of segments, beside its executables in a loop by hand: the times of both; how many
    boundaries there are; seconds for each.
    """
    executables = [segment.executable for segment in compiled.segments]

    def by_hand() -> torch.Tensor:
        value = x
        for executable in executables:
            (value,) = executable(value)
        return value

    with torch.no_grad():
        times = interleaved(
            {"executable": per_call(by_hand), "hardpoint": per_call(lambda: compiled(x))}, rounds
        )
    boundaries = len(executables) - 1
    each = (times["hardpoint"].median - times["executable"].median) / boundaries
    return times, boundaries, each


def measure_boundary(page: Page, rounds: int) -> list[list[object]]:
    """A chain of tiny segments on two backends, against calling their executables in a loop."""
    registry = hp.Registry(policy=hp.Policy())
    registry.add("backend", "other", hardpoint_cpu.plugin)
    x = torch.randn(3, 8)
    program = hp.capture(Chain(CHAIN).eval(), (x,), dynamic={"x": {0: "batch"}}, registry=registry)
    plan = hp.plan(program, targets=["cpu", "other"], partitioner=Alternate(), registry=registry)
    compiled = hp.compile(plan, registry=registry)
    times, boundaries, each = boundary_times(compiled, x, rounds)
    page.add(
        f"## Boundaries\n\n{boundaries + 1} segments of one addition each, alternating between "
        f"two backends: {boundaries} boundaries on one device. The peer calls the same executables "
        "in a loop by hand. Nothing is copied: each tensor is handed on as it is."
    )
    page.add(
        table(
            ["", "by hand µs", "hardpoint µs", "ratio", "per boundary µs"],
            [["the whole chain", *_cells(times), f"{each * 1e6:.2f}"]],
        )
    )
    return [
        ["a boundary", f"< {BOUNDARY_BUDGET * 1e6:.0f} µs", f"{each * 1e6:.2f} µs",
         verdict(each, BOUNDARY_BUDGET)]
    ]  # fmt: skip


def _cells(times: dict[str, Timing]) -> list[str]:
    direct, ours = times["executable"].median, times["hardpoint"].median
    return [f"{direct * 1e6:.2f}", f"{ours * 1e6:.2f}", ratio(ours, direct)]


def main() -> None:
    """Measure, print, and write the page."""
    options = arguments(__doc__, rounds=11)
    torch.set_num_threads(1)
    page = Page("Runtime: call and boundary overhead")
    budgets = measure_call(page, options.rounds) + measure_boundary(page, options.rounds)
    page.add("## Budgets")
    page.add(table(["", "budget", "median", "verdict"], budgets))
    page.finish(options.output, __file__)


if __name__ == "__main__":
    main()
