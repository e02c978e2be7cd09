"""The page of tests/bench/backends.py, from what its parts measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from _backend_claims import MAX_ERRORS, claim_row, claims_of
from _backend_cold import ROUNDS, TORCH
from _backend_first import HEAD as FIRST_HEAD, first_rows
from _backend_models import Model
from _backend_plots import plot
from _backend_tables import correct, read_candidate, speed
from _report import Page, table, verdict

from hardpoint.benching.benchmark import Benchmark, machine_in_words
from hardpoint.benching.columns import columns, figure, merged
from hardpoint.benching.row import BenchRow
from hardpoint.units import size

if TYPE_CHECKING:
    from backends import Run

REDUCED = (
    "**Reduced (`--quick`)**: each target's default variant and the most promising other one (for "
    "decoding, all but those of cpu's compilers), the precisions that are claimed, and `auto` with four "
    "minutes (for decoding and ViT, which four did not do for, ten: what it usually has)."
)


def write(page: Page, run: Run, folder: Path | None) -> None:
    """Add everything that is known."""
    found = {model.name: run.bench(model) for model in run.models}
    benches = {name: bench for name, bench in found.items() if bench is not None}
    if benches:
        first = next(iter(benches.values()))
        page.add(f"{machine_in_words(first.machine)}. Targets: {', '.join(run.targets)}.")
    if run.quick:
        page.add(REDUCED)
    missing = [f"slices of {m.name}" for m in run.models if run.waiting(m)] + run.lacking()
    if missing:
        page.add(f"**Not complete**: not measured yet are {', '.join(missing)}.")
    _busy(page, run, benches)
    _claims(page, run, benches)
    _first(page, run, benches)
    _auto(page, run)
    _memory(page, run)
    _cold(page, run)
    _calls(page, run)
    _accuracy(page, run)
    for model in run.models:
        _table(page, run, model, benches.get(model.name), folder)


def _busy(page: Page, run: Run, benches: dict[str, Benchmark]) -> None:
    finals = {m.name: found for m in run.models if (found := run.finals(m)) is not None}
    for what, them in (("a final", finals), ("a slice", benches)):
        busy = [name for name, bench in them.items() if bench.noisy]
        if busy:
            page.add(f"**The machine was busy** in {what} of {', '.join(busy)}.")


def _claims(page: Page, run: Run, benches: dict[str, Benchmark]) -> None:
    limits = run.kept.known("limits", "machine")
    rows = [
        claim_row(model, claim, benches[model.name], run.finals(model), run.work(model),
                  limits["data"], _resident(run, model))
        for model in run.models if model.name in benches and limits is not None
        for claim in claims_of(model)
    ]  # fmt: skip
    if not rows or limits is None:
        return
    known = limits["data"]
    reached = sum(str(row[-1]).startswith("*reached*") for row in rows)
    page.add(
        f"## Published claims\n\nBest runtime here ÷ eager PyTorch in fp32, both in the same "
        f"rounds. {reached} of {len(rows)} are reached. Weights saved: what is compiled, beside "
        "all weights in fp32, to half a percent; of such a claim, the fastest that saves enough. In "
        "brackets what a process saves, which has more in memory than weights (below). The floor is what this "
        f"machine needs at least: {known['fp32'] / 1e9:.0f} GFLOP/s in fp32, "
        f"{known['bf16'] / 1e9:.0f} in bf16 (large products in PyTorch or oneDNN), "
        f"{known['int8'] / 1e9:.0f} in int8 (by its instructions), {known['bytes'] / 1e9:.1f} GB/s "
        "from memory. Weights in int8 and int4 count whatever their error on random weights is: "
        "see the perplexity below for trained ones."
    )
    head = ["model", "claim", "asked", "best", "ratio", "error", "agreement", "weights saved", "verdict"]  # fmt: skip
    page.add(table(head, rows))


def _first(page: Page, run: Run, benches: dict[str, Benchmark]) -> None:
    rows = [
        line for model in run.models if model.name in benches
        for line in first_rows(model, run.finals(model) or benches[model.name])
    ]  # fmt: skip
    if rows:
        page.add(
            "## First measurements\n\nThe best of the recipes that were tried by hand before there "
            "was anything here, on a processor of the same kind (eager took 57.7 ms for resnet50, "
            "23.7 for minilm, 65.7 for a token of a decoder of the same size), beside the best "
            "here. The best round of each, and its ratio to eager in the same rounds."
        )
        page.add(table(FIRST_HEAD, rows))


def _auto(page: Page, run: Run) -> None:
    rows = []
    for model in run.models:
        choices, finals = run.choices(model), run.finals(model)
        for error in MAX_ERRORS:
            why = run.kept.failed(f"auto-{error:g}", model.name, budget=run.auto_budget(model))
            if why:
                rows.append(
                    [model.name, f"{error:g}", f"failed: {why[:200]}", "", "", "", "FAIL", ""]
                )
            if error in choices:
                budget = f"{run.auto_budget(model):g} s"
                rows.append([*_auto_row(model, error, choices[error], finals), budget])
    if rows:
        page.add(
            "## What `auto` chooses\n\nHeld against the final: the best of every slice below, and "
            "the choice, timed again in the same rounds. Fastest and slower are by the ratios to eager "
            "of each round, as those of the claims are: a median of times also has what the machine "
            "did from round to round."
        )
        head = ["model", "error asked", "choice", "its error", "fastest within the error", "slower by", "≤ 2 %", "budget"]  # fmt: skip
        page.add(table(head, rows))


def _auto_row(
    model: Model, error: float, choice: dict[str, Any], finals: Benchmark | None
) -> list[object]:
    won = choice["rows"][0]
    own = float(won["errors"]["max"]) if won["errors"] else 0.0
    rows = finals.rows if finals else ()
    best = max((r for r in rows if speed(r) and correct(r, error)), key=speed, default=None)
    label = BenchRow.of(read_candidate(won["candidate"]), 1).label
    mine = next((r for r in rows if r.label == label), None)
    if mine is not None and mine.errors is not None:
        own = max(own, mine.errors.max)
    skipped = sum(row["state"] == "not tried" for row in choice["rows"])
    chosen = choice["winner"] + (f" ({skipped} not tried)" if skipped else "")
    cells: list[object] = [model.name, f"{error:g}", chosen, figure(own),
                           best.label if best else "none"]  # fmt: skip
    if own > error:
        return [*cells, "", "FAIL: beyond the error"]
    if finals is None:
        return [*cells, "the final was not run", ""]
    if best is None or best.timing is None or mine is None or mine.timing is None or mine.failure:
        why = "" if mine is None else str(mine.failure or "")
        return [*cells, f"its choice has no figures in the final {why}".strip(), "FAIL"]
    slower = speed(best) / speed(mine) - 1
    said = f"{slower:.1%}"
    if mine is not best:
        near = " (intervals overlap)" if mine.timing.low <= best.timing.high else ""
        said += f", by medians {mine.timing.p50 / best.timing.p50 - 1:.1%}{near}"
    return [*cells, said, verdict(slower, 0.02)]


def _resident(run: Run, model: Model) -> dict[str, float]:
    """Label -> share of a process's memory that is saved, as far as known."""
    kept = run.known_memory(model)
    if kept is None:
        return {}
    data = kept["data"]
    return {r["label"]: 1 - (r["private"] + r["mapped"]) / data["weights"] for r in data["rows"]}


def _memory(page: Page, run: Run) -> None:
    for model in run.models:
        kept = run.known_memory(model)
        if kept is None:
            continue
        whole, saved = kept["data"]["weights"], _resident(run, model)
        rows = [
            [row["label"], size(row["private"]), size(row["mapped"]),
             f"{saved[row['label']]:.0%}", f"{1 - row['private'] / whole:.0%}"]
            for row in kept["data"]["rows"]
        ]  # fmt: skip
        page.add(
            f"## Memory: {model.name}\n\nResident memory by which a fresh process grows that loads "
            "and calls a package of those that the claims are made with, its runtime being loaded "
            "before. Mapped pages are of the package's file, and the system may drop them. Saved: "
            f"beside the weights in fp32, {size(whole)}, with whatever else the runtime keeps "
            "counted against it."
        )
        page.add(table(["", "private", "mapped", "saved", "saved, of private memory"], rows))


def _cold(page: Page, run: Run) -> None:
    for model in run.models:
        kept = run.kept.known("cold", model.name, targets=run.targets)
        if kept is None:
            _say_failed(page, run, "cold", model.name, f"Cold start: {model.name}")
            continue
        seconds, notes = kept["data"]["seconds"], kept["data"]["notes"]
        compiled = seconds.get(TORCH)
        rows: list[list[object]] = []
        for name, value in seconds.items():
            hand = seconds.get(name.replace("hardpoint", "by hand"))
            ours = name.startswith("hardpoint")
            rows.append([
                name, figure(value), f"1/{compiled / value:.3g}" if compiled else "",
                verdict(value / compiled, 1 / 20) if compiled and ours else "",
                f"{value / hand:.2f}x" if hand and ours else "",
                verdict(value / hand, 1.2) if hand and ours else "",
            ])  # fmt: skip
        page.add(
            f"## Cold start: {model.name}\n\nNew processes, medians of {ROUNDS} rounds taken in turn, "
            "PyTorch imported; from there to the "
            "first result, the runtime's own import included; of torch.compile without the seconds "
            "in which its module is read. By hand: the runtime on a file of its own kind; either's "
            "file is in the page cache. cpu is "
            "AOTInductor, with its own settings and frozen (constants folded and repacked)."
        )
        head = ["", "s", "of torch.compile", "≤ 1/20", "to by hand", "≤ 1.2x"]
        page.add(table(head, rows))
        for target, why in notes.items():
            page.add(f"- {target}: {why}")


def _calls(page: Page, run: Run) -> None:
    kept = run.kept.known("calls", "all", targets=run.targets)
    if kept is None:
        _say_failed(page, run, "calls", "all", "Calls and boundaries")
        return
    data = kept["data"]
    rows = []
    for target, times in data["calls"].items():
        over = times["hardpoint"] - times["by hand"]
        boundary = data["boundaries"].get(target)
        rows.append([
            target, *(f"{times[n] * 1e6:.1f}" for n in ("by hand", "executable", "hardpoint")),
            f"{(times['hardpoint'] - times['executable']) * 1e6:.1f}",
            f"{over * 1e6:.1f}", verdict(over, 10e-6),
            "" if boundary is None else f"{boundary * 1e6:.1f}",
            "" if boundary is None else verdict(boundary, 15e-6),
        ])  # fmt: skip
    page.add(
        "## Calls and boundaries\n\nOne addition on (4, 8), one thread, microseconds. By hand: the "
        "runtime's own call that gives a result that stays valid. Wrapper: hardpoint above the "
        "backend's executable; overhead: above the call by hand. Boundary: an alternating chain with cpu, above calling the same "
        "executables in a loop."
    )
    page.add(table(["target", "by hand", "executable", "hardpoint", "wrapper", "overhead", "< 10 µs", "boundary", "< 15 µs"], rows))  # fmt: skip
    for target, why in data["notes"].items():
        page.add(f"- {target}: {why}")


def _accuracy(page: Page, run: Run) -> None:
    from _backend_accuracy import TASKS

    for name in TASKS:
        candidates = [c.key for c in run.accurate(name)]
        kept = run.known_accuracy(name)
        if kept is None:
            _say_failed(
                page, run, "accuracy", name, f"Accuracy on real data: {name}", candidates=candidates
            )
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


def _say_failed(page: Page, run: Run, part: str, name: str, title: str, **settings: object) -> None:
    why = run.kept.failed(part, name, targets=run.targets, **settings)
    if why:
        page.add(f"## {title}\n\nIt failed: {why}")


def _table(
    page: Page, run: Run, model: Model, found: Benchmark | None, folder: Path | None
) -> None:
    page.add(f"## {model.name}\n\n{model.shown}.")
    whys = [run.kept.failed(f"table-{t}-{p}", model.name) for t, p in run.slices(model)]
    if found is None:
        said = "; ".join(sorted(set(filter(None, whys))))
        page.add(f"It failed: {said}" if said else "Not measured.")
        return
    rows = merged(found.rows)
    shown = [c for c in columns(rows) if c.name not in ("", "batch")]
    page.add(table([c.name for c in shown], [[c.cell(r) for c in shown] for r in rows]))
    kept = run.kept.known
    parts = [k for t, p in run.slices(model) if (k := kept(f"table-{t}-{p}", model.name))]
    loads = [k["load"] for k in parts]
    commits = ", ".join(sorted({k["commit"] for k in parts if k["commit"]}))
    page.add(
        f"{len(parts)} slices, one backend in one precision each, from {min(k['when'] for k in parts)} "
        f"to {max(k['when'] for k in parts)}, {sum(k['seconds'] for k in parts):.0f} s in all, load "
        f"{min(loads):.1f} to {max(loads):.1f}; eager's own rounds differ by {found.noise:.2f}x at "
        "most. x eager is by the rounds of the same slice; milliseconds of different slices were "
        f"measured at different times. Sources: {commits or 'unknown'}."
    )
    picture = plot(model.name, found, folder)
    if picture:
        page.add(picture)
