"""The page of tests/bench/backends.py, from what its parts measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from _backend_claims import MAX_ERRORS, claim_row, claims_of
from _backend_cold import TORCH
from _backend_models import Model
from _backend_plots import plot
from _report import Page, table, verdict

from hardpoint.benching.benchmark import Benchmark, benchmark_from_json, machine_in_words
from hardpoint.benching.columns import columns, figure, merged

if TYPE_CHECKING:
    from backends import Run

REDUCED = (
    "**Reduced (`--quick`)**: each target's default variant (for decoding, all but those of cpu's "
    "compilers), the precisions that are claimed, `auto` on two models with one error and four "
    "minutes, cold start of MiniLM in one round, accuracy of each precision on the first target "
    "that has it, and a decoder trained for a tenth of the steps."
)


def write(page: Page, run: Run, folder: Path | None) -> None:
    """Add everything that is known."""
    benches = {}
    for model in run.models:
        kept = run.known("table", model.name)
        if kept is not None:
            benches[model.name] = (benchmark_from_json(kept["data"]["bench"]), kept)
    if benches:
        first = next(iter(benches.values()))[0]
        page.add(f"{machine_in_words(first.machine)}. Targets: {', '.join(run.targets)}.")
    if run.options.quick:
        page.add(REDUCED)
    busy = [name for name, (bench, _) in benches.items() if bench.noisy]
    if busy:
        page.add(f"**The machine was busy** while these were timed: {', '.join(busy)}.")
    _claims(page, run, benches)
    _auto(page, run, benches)
    _cold(page, run)
    _calls(page, run)
    _accuracy(page, run)
    for model in run.models:
        _table(page, run, model, benches.get(model.name), folder)


def _claims(page: Page, run: Run, benches: dict[str, Any]) -> None:
    limits = run.known("limits", "machine")
    rows = [
        claim_row(model, claim, benches[model.name][0], benches[model.name][1]["data"]["work"],
                  limits["data"])
        for model in run.models if model.name in benches and limits is not None
        for claim in claims_of(model)
    ]  # fmt: skip
    if not rows:
        return
    known = limits["data"]
    reached = sum(str(row[-1]) == "*reached*" for row in rows)
    page.add(
        f"## Published claims\n\nBest runtime here ÷ eager PyTorch in fp32, both in the same "
        f"rounds. {reached} of {len(rows)} are reached. The floor is what this machine needs at "
        f"least: {known['fp32'] / 1e9:.0f} GFLOP/s in fp32, {known['bf16'] / 1e9:.0f} in bf16 "
        f"(large products in PyTorch), four times fp32 in int8, {known['bytes'] / 1e9:.1f} GB/s "
        "from memory."
    )
    head = ["model", "claim", "asked", "best", "ratio", "error", "agreement", "weights saved", "verdict"]  # fmt: skip
    page.add(table(head, rows))


def _auto(page: Page, run: Run, benches: dict[str, Any]) -> None:
    rows = []
    for model in run.models:
        for error in MAX_ERRORS:
            kept = run.known(f"auto-{error:g}", model.name)
            why = run.failed(f"auto-{error:g}", model.name) if kept is None else ""
            if why:
                rows.append([model.name, f"{error:g}", f"failed: {why[:200]}", "", "", "", "FAIL"])
            if kept is not None and model.name in benches:
                rows.append(_auto_row(model, error, kept["data"], benches[model.name][0]))
    if rows:
        page.add(
            "## What `auto` chooses\n\nHeld against the table below, which was measured apart: "
            "how much slower the choice is there than the fastest candidate within the error."
        )
        head = ["model", "error asked", "choice", "its error", "fastest in the table", "slower by", "≤ 2 %"]  # fmt: skip
        page.add(table(head, rows))


def _auto_row(model: Model, error: float, choice: dict[str, Any], bench: Benchmark) -> list[object]:
    won = choice["rows"][0]
    own = float(won["errors"]["max"]) if won["errors"] else 0.0
    right = [r for r in bench.rows if r.timing and not r.failure and not r.eager
             and r.errors and r.errors.max <= error]  # fmt: skip
    best = min(right, key=lambda r: r.timing.p50 if r.timing else 0.0, default=None)
    mine = next((r for r in bench.rows if r.label == choice["winner"] and r.timing), None)
    cells: list[object] = [model.name, f"{error:g}", choice["winner"], figure(own),
                           best.label if best else "none"]  # fmt: skip
    if best is None or mine is None or best.timing is None or mine.timing is None:
        return [*cells, "its choice is not in the table", ""]
    slower = mine.timing.p50 / best.timing.p50 - 1
    near = mine.timing.low <= best.timing.high and slower > 0
    said = verdict(slower, 0.02) if own <= error else "FAIL: beyond the error"
    return [*cells, f"{slower:.1%}" + (" (intervals overlap)" if near else ""), said]


def _cold(page: Page, run: Run) -> None:
    for model in run.models:
        kept = run.known("cold", model.name)
        if kept is None:
            _say_failed(page, run, "cold", model.name, f"Cold start: {model.name}")
            continue
        seconds, notes = kept["data"]["seconds"], kept["data"]["notes"]
        compiled = seconds[TORCH]
        rows: list[list[object]] = []
        for name, value in seconds.items():
            hand = seconds.get(name.replace("hardpoint", "by hand"))
            ours = name.startswith("hardpoint") and hand is not None
            rows.append([
                name, figure(value), f"1/{compiled / value:.0f}",
                verdict(value / compiled, 1 / 20) if ours else "",
                f"{value / hand:.2f}x" if ours else "", verdict(value / hand, 1.2) if ours else "",
            ])  # fmt: skip
        page.add(
            f"## Cold start: {model.name}\n\nNew processes, PyTorch imported; from there to the "
            "first result, the runtime's own import included. By hand: the runtime on a file of "
            "its own kind."
        )
        head = ["", "s", "of torch.compile", "≤ 1/20", "to by hand", "≤ 1.2x"]
        page.add(table(head, rows))
        for target, why in notes.items():
            page.add(f"- {target}: {why}")


def _calls(page: Page, run: Run) -> None:
    kept = run.known("calls", "all")
    if kept is None:
        _say_failed(page, run, "calls", "all", "Calls and boundaries")
        return
    data = kept["data"]
    rows = []
    for target, times in data["calls"].items():
        over = times["hardpoint"] - times["executable"]
        boundary = data["boundaries"].get(target)
        rows.append([
            target, *(f"{times[n] * 1e6:.1f}" for n in ("by hand", "executable", "hardpoint")),
            f"{over * 1e6:.1f}", verdict(over, 10e-6),
            "" if boundary is None else f"{boundary * 1e6:.1f}",
            "" if boundary is None else verdict(boundary, 15e-6),
        ])  # fmt: skip
    page.add(
        "## Calls and boundaries\n\nOne addition on (4, 8), one thread, microseconds. By hand: the "
        "runtime's own call that gives a result that stays valid. Overhead: hardpoint above the "
        "backend's executable. Boundary: an alternating chain with cpu, above calling the same "
        "executables in a loop."
    )
    page.add(table(["target", "by hand", "executable", "hardpoint", "overhead", "< 10 µs", "boundary", "< 15 µs"], rows))  # fmt: skip
    for target, why in data["notes"].items():
        page.add(f"- {target}: {why}")


def _accuracy(page: Page, run: Run) -> None:
    from _backend_accuracy import TASKS

    for name in TASKS:
        kept = run.known("accuracy", name)
        if kept is None:
            _say_failed(page, run, "accuracy", name, f"Accuracy on real data: {name}")
            continue
        data = kept["data"]
        rows: list[list[object]] = []
        for row in data["rows"]:
            figures = [f"{value:.4f}" for value in row.get("figures", ())]
            figures += [""] * (len(data["figures"]) - len(figures))
            said = f"failed: {row['failed']}" if "failed" in row else ""
            rows.append([row["label"], *figures, figure(float(row["error"])) if "error" in row else "", said])  # fmt: skip
        page.add(f"## Accuracy on real data: {name}")
        page.add(table(["", *data["figures"], "max error", ""], rows))


def _say_failed(page: Page, run: Run, part: str, name: str, title: str) -> None:
    why = run.failed(part, name)
    if why:
        page.add(f"## {title}\n\nIt failed: {why}")


def _table(page: Page, run: Run, model: Model, found: Any, folder: Path | None) -> None:
    page.add(f"## {model.name}\n\n{model.shown}.")
    if found is None:
        why = run.failed("table", model.name)
        page.add(f"It failed: {why}" if why else "Not measured.")
        return
    bench, kept = found
    rows = merged(bench.rows)
    shown = [c for c in columns(rows) if c.name != "batch"]
    page.add(table([c.name for c in shown], [[c.cell(r) for c in shown] for r in rows]))
    page.add(
        f"{kept['when']}, {kept['seconds']:.0f} s in all, load {kept['load']:.1f}; eager's own "
        f"rounds differ by {bench.noise:.2f}x."
    )
    picture = plot(model.name, bench, folder)
    if picture:
        page.add(picture)
