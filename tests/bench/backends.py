"""Every installed backend on nine models: tables, auto's choice, published claims, cold start,
overheads, accuracy on real data.

The whole takes hours, so it is made in slices of minutes. Each is kept as JSON in ``--data``, the
figures behind the page, and holds for the machine and the versions that it names. ``--minutes 5``
begins nothing after five minutes, says what is left, and ends with status 3; the next call goes on
there. ``--only MODEL`` and ``--parts`` choose slices; ``--show`` measures nothing. The page is
always that of all that is known. ``--quick`` leaves out what the page says.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _backend_pages as pages
import _backend_tables as tables
import torch
from _backend_claims import MAX_ERRORS, Claim, claims_of, fastest
from _backend_kept import Kept
from _backend_limits import machine_limits, work
from _backend_models import MODELS, Model, made, named, program_of
from _report import Page

import hardpoint as hp
from hardpoint.benching.benchmark import Benchmark, benchmark_from_json
from hardpoint.choosing.budget import SECONDS
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.machine import processor

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("table", "auto", "final", "memory", "cold", "calls", "accuracy")
# Backends for real hardware; a simulated one says nothing about speed.
TARGETS = ("openvino", "onnxruntime", "cuda", "rocm", "metal", "cpu")
QUICK_PRECISIONS = {
    "cnn": ("fp32", "bf16", "int8"), "transformer": ("fp32", "bf16", "int8"),
    "recurrent": ("fp32", "bf16", "int8"), "prefill": ("fp32", "bf16", "int8w"),
    "decode": ("fp32", "bf16", "int8w", "int4w"),
}  # fmt: skip
# (backend, precision, "": any) -> the variant beside the defaults.
QUICK_VARIANTS = {
    ("onnxruntime", ""): "spinning", ("cpu", ""): "aot-frozen",
    ("openvino", "int8"): "bf16 beside integers",
}  # fmt: skip
# Whose cold start is measured.
COLD = ("resnet50", "minilm")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--output", type=Path, help="write the page to this Markdown file")
    add("--only", "--models", default="", help="measure only these models: a,b")
    add("--parts", default=",".join(PARTS), help="of %(default)s: a,b")
    add("--targets", default="", help="only these backends: a,b")
    add("--minutes", type=float, help="begin nothing after that; status 3: something is left")
    add("--show", action="store_true", help="measure nothing; write the page of what is known")
    add("--rounds", type=int, default=15, help="rounds of each measurement")
    add("--quick", action="store_true", help="less, as the page says")
    add("--threads", type=int, default=torch.get_num_threads())
    add(
        "--budget",
        type=float,
        help="seconds of each slice and each choice; default: 900; quick: 240, 600 for auto of "
        "decoding and ViT",
    )
    add("--data", type=Path, default=ROOT / "docs" / "benchmarks" / "backends")
    add(
        "--cache", type=Path, default=ROOT / "build" / "bench-backends", help="for what is compiled"
    )
    add("--again", action="store_true", help="try again what failed")
    add("--fresh", action="store_true", help="use nothing of the data")
    return parser.parse_args()


class Run:
    """One run of this script: what is asked, and what is known."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.models = named(options.only)
        self.targets = options.targets.split(",") if options.targets else _available()
        self.parts = () if options.show else options.parts.split(",")
        unknown = set(self.parts) - set(PARTS)
        if unknown:
            raise SystemExit(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
        self.quick: bool = options.quick
        self.budget: float = options.budget or (240.0 if options.quick else 900.0)
        self.kept = Kept(
            options.data,
            {"quick": options.quick, "threads": options.threads, "rounds": options.rounds,
             "machine": processor()},
            {**{part: {"errors": "on held-out inputs"} for part in ("table", "auto", "final")},
             "accuracy": {"quick": False}},
            minutes=options.minutes, again=options.again, fresh=options.fresh,
        )  # fmt: skip
        options.cache.mkdir(parents=True, exist_ok=True)
        os.environ["HARDPOINT_CACHE"] = str(options.cache / "choices")
        os.environ["HF_HUB_OFFLINE"] = "1"
        torch.set_num_threads(options.threads)

    def measure(self) -> None:
        """Every part that is asked for and not known yet."""
        if not self.parts:
            return
        self.kept.measure("limits", "machine", lambda: machine_limits(self.options.threads))
        for model in self.models:
            self._measure(model)
        if "calls" in self.parts:
            import _backend_calls

            targets = self.targets
            self.kept.measure(
                "calls", "all", lambda: _backend_calls.measure(targets, 7), targets=targets
            )
        if "accuracy" in self.parts:
            import _backend_accuracy

            for name in _backend_accuracy.TASKS:
                winners = self.accurate(name)
                self.kept.measure(
                    "accuracy", name, lambda n=name, w=winners: self.accuracy(n, w),  # type: ignore[misc]
                    targets=self.targets, candidates=[c.key for c in winners],
                )  # fmt: skip

    def _measure(self, model: Model) -> None:
        if "table" in self.parts:
            for target, precision in self.slices(model):
                self.kept.measure(
                    f"table-{target}-{precision}", model.name,
                    lambda t=target, p=precision: self.table(model, t, p),  # type: ignore[misc]
                )  # fmt: skip
        if "auto" in self.parts:
            for error in MAX_ERRORS:
                self.kept.measure(
                    f"auto-{error:g}", model.name,
                    lambda e=error: self.auto(model, e),  # type: ignore[misc]
                    budget=self.auto_budget(model),
                )  # fmt: skip
        if "final" in self.parts and self.bench(model) is not None and not self.waiting(model):
            candidates = self.contenders(model)
            if candidates:
                self.kept.measure(
                    "final", model.name, lambda: self.final(model, candidates),
                    candidates=[c.key for c in candidates],
                )  # fmt: skip
        if "memory" in self.parts and model.kind == "decode" and self.finals(model) is not None:
            winners = self.winners(model)
            self.kept.measure(
                "memory", model.name, lambda: self.memory(model, winners),
                candidates=[c.key for c in winners],
            )  # fmt: skip
        if "cold" in self.parts and model.name in COLD:
            self.kept.measure("cold", model.name, lambda: self.cold(model), targets=self.targets)

    def slices(self, model: Model) -> Iterator[tuple[str, str]]:
        """(backend, precision) of each slice of a model's table."""
        for target in self.targets:
            for precision in hp.default_registry().info("backend", target).precisions:
                if not self.quick or precision in QUICK_PRECISIONS[model.kind]:
                    yield target, precision

    def auto_budget(self, model: Model) -> float:
        """Seconds; no less than it usually has where tables have variants, or compiling is slow."""
        usual = self.options.budget is None and (model.kind == "decode" or model.name == "vit-b")
        return max(self.budget, SECONDS) if usual else self.budget

    def waiting(self, model: Model) -> list[str]:
        """Slices and choices of a model that were neither measured nor failed."""
        parts: list[tuple[str, dict[str, object]]]
        parts = [(f"table-{t}-{p}", {}) for t, p in self.slices(model)]
        budget = self.auto_budget(model)
        parts += [(f"auto-{e:g}", {"budget": budget}) for e in MAX_ERRORS]
        known, failed = self.kept.known, self.kept.failed
        return [
            part for part, more in parts
            if known(part, model.name, **more) is None and not failed(part, model.name, **more)
        ]  # fmt: skip

    def table(self, model: Model, target: str, precision: Any) -> dict[str, Any]:
        """One slice: all variants of a backend in one precision."""
        module, args, kwargs = made(model)
        needed = work(module, args, dict(kwargs))
        program = program_of(model, (module, args, kwargs))
        found: dict[str, Any] = {"work": {"flops": needed.flops, "weights": needed.weights}}
        try:
            bench = hp.bench(
                program, targets=[target], precisions=[precision],
                variants=self._variants(model, target, precision) if self.quick else None,
                threads=self.options.threads, rounds=self.options.rounds, budget=self.budget,
                timeout=self.budget, progress=say,
            )  # fmt: skip
        except hp.PlanError as error:  # it does not run all of it: a row, too
            return {**found, "refused": error.cause}
        return {**found, "bench": bench.to_json()}

    def bench(self, model: Model) -> Benchmark | None:
        """The table of all slices that are known; ``None``: there is none with figures."""
        found, refused = [], []
        for target, precision in self.slices(model):
            kept = self.kept.known(f"table-{target}-{precision}", model.name)
            why = self.kept.failed(f"table-{target}-{precision}", model.name)
            if kept is not None and "bench" in kept["data"]:
                found.append(benchmark_from_json(kept["data"]["bench"]))
            elif kept is not None or why:
                why = why or kept["data"]["refused"]  # type: ignore[index]
                refused.append(tables.refused(target, precision, why))
        return tables.put_together(found, refused) if found else None

    def work(self, model: Model) -> dict[str, float]:
        """What one call of a model takes, from any of its slices."""
        for target, precision in self.slices(model):
            kept = self.kept.known(f"table-{target}-{precision}", model.name)
            if kept is not None:
                return dict(kept["data"]["work"])
        return {}

    def choices(self, model: Model) -> dict[float, dict[str, Any]]:
        """Error asked for -> auto's choice, as far as known."""
        budget = self.auto_budget(model)
        kept = {e: self.kept.known(f"auto-{e:g}", model.name, budget=budget)
                for e in MAX_ERRORS}  # fmt: skip
        return {error: found["data"] for error, found in kept.items() if found is not None}

    def contenders(self, model: Model) -> list[Candidate]:
        """Who comes into the final of a model."""
        bench = self.bench(model)
        wanted: list[tuple[tuple[str, ...], float | None]] = [
            (claim.precisions, None) for claim in claims_of(model)
        ]
        wanted += [((), error) for error in MAX_ERRORS]
        if bench is None:
            return []
        found = tables.contenders(bench, wanted, self.choices(model).values())
        small = self._best(model, bench, [c for c in claims_of(model) if c.smaller])
        return list({c.key: c for c in (*found, *small)}.values())

    def finals(self, model: Model) -> Benchmark | None:
        """The final of a model, if it was run among these candidates."""
        keys = [c.key for c in self.contenders(model)]
        kept = self.kept.known("final", model.name, candidates=keys)
        return None if kept is None else benchmark_from_json(kept["data"])

    def auto(self, model: Model, max_error: float) -> dict[str, Any]:
        """What targets="auto" chooses. What it built is kept, so the next error costs less."""
        program = program_of(model)
        compiled = hp.compile(
            program, targets="auto", precision="auto", max_error=max_error,
            budget=self.auto_budget(model), progress=say,
        )  # fmt: skip
        assert compiled.choice is not None
        found: dict[str, Any] = compiled.choice.to_json()
        compiled.close()
        return found

    def final(self, model: Model, candidates: list[Candidate]) -> dict[str, Any]:
        """The best of all slices, and auto's choices, in the same rounds."""
        return tables.final(
            program_of(model), candidates, threads=self.options.threads, rounds=2 * self.options.rounds,
            timeout=self.budget, say=say,
        ).to_json()  # fmt: skip

    def cold(self, model: Model) -> dict[str, Any]:
        """New processes, to the first result."""
        import _backend_cold

        with tempfile.TemporaryDirectory(dir=self.options.cache) as folder:
            return _backend_cold.measure(model, self.targets, self.options.threads, Path(folder))

    def winners(self, model: Model) -> list[Candidate]:
        """The best of each claim in the final of a model."""
        bench = self.finals(model)
        return [] if bench is None else self._best(model, bench, claims_of(model))

    def _best(self, model: Model, bench: Benchmark, claims: list[Claim]) -> list[Candidate]:
        """The fastest row of each claim, where there is one."""
        weights = self.work(model)["weights"]
        best = (fastest(bench, claim, weights) for claim in claims)
        return [tables.candidate_of(row) for row in best if row is not None]

    def memory(self, model: Model, winners: list[Candidate]) -> dict[str, Any]:
        """Of those that a claim is made with."""
        import _backend_memory

        with tempfile.TemporaryDirectory(dir=self.options.cache) as folder:
            return _backend_memory.measure(model, winners, self.options.threads, Path(folder))

    def known_memory(self, model: Model) -> dict[str, Any] | None:
        """What was measured of the memory of those that a model's claims are made with."""
        keys = [c.key for c in self.winners(model)]
        return self.kept.known("memory", model.name, candidates=keys)

    def known_accuracy(self, task: str) -> dict[str, Any] | None:
        """What was measured on a task, beside each precision's defaults of the claims' winners."""
        keys = [c.key for c in self.accurate(task)]
        return self.kept.known("accuracy", task, targets=self.targets, candidates=keys)

    def lacking(self) -> list[str]:
        """What a whole page has beside slices and choices, and is neither known nor failed."""
        import _backend_accuracy

        models = [m for m in self.models if self.bench(m) is not None]
        found = [f"the final of {m.name}" for m in models if self.finals(m) is None]
        found += [f"the memory of {m.name}" for m in models
                  if m.kind == "decode" and self.known_memory(m) is None]  # fmt: skip
        alone = [("cold", m.name) for m in models if m.name in COLD] + [("calls", "all")]
        known, failed = self.kept.known, self.kept.failed
        found += [
            f"{part} of {name}" for part, name in alone
            if known(part, name, targets=self.targets) is None
            and not failed(part, name, targets=self.targets)
        ]  # fmt: skip
        tasks = [t for t in _backend_accuracy.TASKS if self.known_accuracy(t) is None]
        return found + [f"accuracy on {task}" for task in tasks]

    def accurate(self, task: str) -> list[Candidate]:
        """Whose accuracy is measured on a task, beside each precision's defaults: those that the
        claims of the model of that kind are made with.
        """
        import _backend_accuracy

        [model] = named(_backend_accuracy.LIKE[task])
        return self.winners(model)

    def accuracy(self, name: str, winners: list[Candidate]) -> dict[str, Any]:
        """Figures on held out data, by precision."""
        import _backend_accuracy

        task = _backend_accuracy.TASKS[name](1500)
        registry = hp.default_registry()
        has = {t: list(registry.info("backend", t).precisions) for t in self.targets}
        return _backend_accuracy.measure(task, self.targets, has, winners)

    def _variants(self, model: Model, target: str, precision: str) -> list[str]:
        """The defaults and what promises most; for decoding, where they matter most, all but the
        compilers of cpu.
        """
        every = hp.default_registry().info("backend", target).variants
        if model.kind == "decode":
            return ["default", *(() if target == "cpu" else every)]
        promising = QUICK_VARIANTS.get((target, precision), QUICK_VARIANTS.get((target, ""), ""))
        return ["default", *([promising] if promising in every else [])]


def _available() -> list[str]:
    ready = {name for name, _ in hp.default_registry().available("backend").ready}
    return [t for t in TARGETS if t in ready]


def say(done: int, total: int, what: str) -> None:
    """One line on stderr that is written over and over."""
    print(f"\r\x1b[K  {done}/{total} {what[:110]}", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Measure what is not known, and write the page of all that is."""
    options = arguments()
    run = Run(options)
    run.measure()
    run.models = list(MODELS)  # the page is that of all that is known
    page = Page("Backends")
    pages.write(page, run, options.output.parent if options.output else None)
    page.finish(options.output, __file__)
    if run.kept.left:
        print(f"\nleft, call again: {', '.join(run.kept.left)}", file=sys.stderr)
    return 3 if run.kept.left else 0


if __name__ == "__main__":
    sys.exit(main())
