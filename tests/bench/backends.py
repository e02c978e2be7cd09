"""Every installed backend on nine models: tables, auto's choice, published claims, cold start,
overheads, accuracy on real data.

The whole takes hours, so each part of each model is kept as JSON in ``--cache``: a run that was
stopped goes on where it was, and ``--parts`` and ``--models`` do it piece by piece. ``--quick`` is
about twenty minutes on two cores; the page says what it leaves out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _backend_pages as pages
import torch
from _backend_claims import MAX_ERRORS
from _backend_limits import machine_limits, work
from _backend_models import Model, made, named
from _report import Page

import hardpoint as hp

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("table", "auto", "cold", "calls", "accuracy")
# Backends for real hardware; a simulated one says nothing about speed.
TARGETS = ("openvino", "onnxruntime", "cuda", "rocm", "metal", "cpu")
QUICK_PRECISIONS = {
    "cnn": ("fp32", "bf16", "int8"), "transformer": ("fp32", "bf16", "int8"),
    "recurrent": ("fp32", "bf16", "int8"), "prefill": ("fp32", "bf16", "int8w"),
    "decode": ("fp32", "bf16", "int8w", "int4w"),
}  # fmt: skip
# Whose cold start is measured, and by whom auto is tried under --quick.
COLD = ("resnet50", "minilm")
QUICK_COLD = ("minilm",)
QUICK_AUTO = ("mobilenet-v2", "minilm")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the page to this Markdown file")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each measurement")
    parser.add_argument("--models", default="", help="only these: a,b")
    parser.add_argument("--targets", default="", help="only these backends: a,b")
    parser.add_argument("--parts", default=",".join(PARTS), help="of %(default)s: a,b")
    parser.add_argument("--quick", action="store_true", help="about twenty minutes: see the page")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--budget", type=float, help="seconds of each table and each choice")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "bench-backends")
    parser.add_argument("--fresh", action="store_true", help="use nothing of the cache")
    return parser.parse_args()


class Run:
    """One run of this script: what is asked, and what is known."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.models = named(options.models)
        self.targets = options.targets.split(",") if options.targets else self._available()
        self.parts = options.parts.split(",")
        unknown = set(self.parts) - set(PARTS)
        if unknown:
            raise SystemExit(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
        options.cache.mkdir(parents=True, exist_ok=True)
        os.environ["HARDPOINT_CACHE"] = str(options.cache / "choices")
        os.environ["HF_HUB_OFFLINE"] = "1"
        torch.set_num_threads(options.threads)

    def measure(self) -> None:
        """Every part that is asked for and not known yet."""
        self.part("limits", "machine", lambda: machine_limits(self.options.threads))
        for model in self.models:
            if "table" in self.parts:
                self.part("table", model.name, lambda m=model: self.table(m))  # type: ignore[misc]
            if "auto" in self.parts and (not self.options.quick or model.name in QUICK_AUTO):
                for error in MAX_ERRORS[: 1 if self.options.quick else None]:
                    self.part(
                        f"auto-{error:g}", model.name, lambda m=model, e=error: self.auto(m, e)
                    )  # type: ignore[misc]
            if "cold" in self.parts and model.name in (QUICK_COLD if self.options.quick else COLD):
                self.part("cold", model.name, lambda m=model: self.cold(m))  # type: ignore[misc]
        if "calls" in self.parts:
            import _backend_calls

            self.part("calls", "all", lambda: _backend_calls.measure(self.targets, 7))
        if "accuracy" in self.parts:
            import _backend_accuracy

            for name in _backend_accuracy.TASKS:
                self.part("accuracy", name, lambda n=name: self.accuracy(n))  # type: ignore[misc]

    def table(self, model: Model) -> dict[str, Any]:
        """All candidates of one model."""
        module, args, kwargs = made(model)
        needed = work(module, args, dict(kwargs))
        program = hp.capture(module, args, kwargs, name=model.name)
        quick = self.options.quick
        bench = hp.bench(
            program,
            targets=self.targets,
            precisions=QUICK_PRECISIONS[model.kind] if quick else None,  # type: ignore[arg-type]
            variants=self._variants(model) if quick else None,
            threads=self.options.threads,
            rounds=self.options.rounds,
            budget=self.options.budget,
            timeout=300.0 if quick else 900.0,
            progress=say,
        )
        return {
            "work": {"flops": needed.flops, "weights": needed.weights},
            "bench": bench.to_json(),
        }

    def auto(self, model: Model, max_error: float) -> dict[str, Any]:
        """What targets="auto" chooses."""
        module, args, kwargs = made(model)
        program = hp.capture(module, args, kwargs, name=model.name)
        budget = self.options.budget or (240.0 if self.options.quick else 3600.0)
        compiled = hp.compile(
            program, targets="auto", precision="auto", max_error=max_error, budget=budget,
            progress=say,
        )  # fmt: skip
        assert compiled.choice is not None
        found: dict[str, Any] = compiled.choice.to_json()
        compiled.close()
        return found

    def cold(self, model: Model) -> dict[str, Any]:
        """New processes, to the first result."""
        import _backend_cold

        rounds = 1 if self.options.quick else 3
        with tempfile.TemporaryDirectory(dir=self.options.cache) as folder:
            return _backend_cold.measure(
                model, self.targets, rounds, self.options.threads, Path(folder)
            )

    def accuracy(self, name: str) -> dict[str, Any]:
        """Figures on held out data, by precision."""
        import _backend_accuracy

        quick = self.options.quick
        task = _backend_accuracy.TASKS[name](150 if quick else 1500)
        registry = hp.default_registry()
        has = {t: list(registry.info("backend", t).precisions) for t in self.targets}
        return _backend_accuracy.measure(task, self.targets, has, every=not quick)

    def part(self, part: str, name: str, measure: Callable[[], Any]) -> None:
        """Measure one part, unless it is known; a failure is told, and the rest goes on."""
        if self.known(part, name) is not None and not self.options.fresh:
            return
        print(f"\n{time.strftime('%H:%M:%S')} {part}: {name}", file=sys.stderr, flush=True)
        started = time.monotonic()
        try:
            data = measure()
        except Exception as error:
            print(f"\n{part} of {name} failed: {error}", file=sys.stderr)
            self._path(part, name).with_suffix(".failed").write_text(
                f"{type(error).__name__}: {error}"
            )
            return
        self._path(part, name).with_suffix(".failed").unlink(missing_ok=True)
        kept = {
            "settings": self._settings(), "seconds": time.monotonic() - started,
            "when": time.strftime("%Y-%m-%d %H:%M"), "load": os.getloadavg()[0], "data": data,
        }  # fmt: skip
        self._path(part, name).write_text(json.dumps(kept, indent=1))

    def known(self, part: str, name: str) -> Any:
        """What was measured with these settings; ``None``: nothing."""
        path = self._path(part, name)
        if not path.is_file():
            return None
        kept = json.loads(path.read_text())
        return kept if kept["settings"] == self._settings() else None

    def failed(self, part: str, name: str) -> str:
        """Why a part has no figures; ``""``: it did not fail."""
        path = self._path(part, name).with_suffix(".failed")
        return path.read_text() if path.is_file() else ""

    def _settings(self) -> dict[str, Any]:
        options = self.options
        return {"quick": options.quick, "targets": self.targets, "threads": options.threads,
                "rounds": options.rounds, "torch": torch.__version__}  # fmt: skip

    def _path(self, part: str, name: str) -> Path:
        path: Path = self.options.cache / f"{part}-{name}.json"
        return path

    def _variants(self, model: Model) -> list[str]:
        """The defaults; for decoding, where they matter most, all but the compilers of cpu."""
        words = ["default"]
        if model.kind == "decode":
            for target in self.targets:
                if target != "cpu":
                    words += hp.default_registry().info("backend", target).variants
        return list(dict.fromkeys(words))

    def _available(self) -> list[str]:
        ready = {name for name, _ in hp.default_registry().available("backend").ready}
        return [t for t in TARGETS if t in ready]


def say(done: int, total: int, what: str) -> None:
    """One line on stderr that is written over and over."""
    print(f"\r\x1b[K  {done}/{total} {what[:110]}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Measure what is not known, and write the page of all that is."""
    options = arguments()
    run = Run(options)
    run.measure()
    page = Page("Backends")
    pages.write(page, run, options.output.parent if options.output else None)
    page.finish(options.output, __file__)


if __name__ == "__main__":
    main()
