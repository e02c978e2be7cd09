"""Fuzz the parsers of weights: ``python tests/fuzz/run.py [TARGET ...] --seconds 600``.

Each target runs in a process of its own, from the corpus in this folder. What it finds new stays in
a temporary folder (``--merge`` takes over what reaches code that the corpus does not); an input
that breaks an invariant is saved to ``findings/``, with the reason beside it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
FINDINGS = HERE / "findings"
# libFuzzer's own: seconds on the clock for one input, MiB for the process.
TIMEOUT = 30
MOST_MEMORY = 3072
_SHM = Path("/dev/shm")
# Inputs are written as files: into memory, where the machine has such a folder.
MEMORY_FOLDER = _SHM if _SHM.is_dir() and os.access(_SHM, os.W_OK) else None
_STATUS = re.compile(r"#(\d+)\s+(INITED|DONE|\S+)\s+cov: (\d+) ft: (\d+) corp: (\d+)/")


@dataclass(slots=True)
class Outcome:
    """What a target's run came to.

    :ivar start: (edges, features) that the corpus covers; ``end``: those that were covered at last.
    :ivar inputs: in the corpus at the end.
    """

    name: str
    executions: int = 0
    seconds: float = 0.0
    start: tuple[int, int] = (0, 0)
    end: tuple[int, int] = (0, 0)
    inputs: int = 0
    findings: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Executions a second."""
        return self.executions / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """When a target's run ends: after so many executions, or seconds."""

    runs: int = 0
    seconds: float = 0.0
    seed: int = 1


def names() -> list[str]:
    """All targets."""
    return sorted(path.stem for path in (HERE / "targets").glob("[!_]*.py"))


def fuzz(name: str, limits: Limits, findings: Path, fresh: Path, corpus: Path) -> Outcome:
    """Fuzz one target; begins anew after a crash, as long as there is time.

    :param fresh: folder for new inputs.
    """
    outcome, began = Outcome(name), time.monotonic()
    seed = limits.seed
    while True:
        left = limits.seconds - (time.monotonic() - began)
        stop = [f"-runs={limits.runs}"] if limits.runs else [f"-max_total_time={max(1, int(left))}"]
        done = _once(outcome, [*stop, f"-seed={seed}"], findings, fresh, corpus)
        outcome.seconds = time.monotonic() - began
        if done or limits.runs or limits.seconds - outcome.seconds < TIMEOUT:
            return outcome
        seed += 1


def _once(
    outcome: Outcome, options: Iterable[str], findings: Path, fresh: Path, corpus: Path
) -> bool:
    """One process; whether it came to its end."""
    name = outcome.name
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=MEMORY_FOLDER) as folder:
        words = Path(folder, "words")
        command = [
            sys.executable, str(HERE / "worker.py"), name, str(findings), folder, f"-dict={words}",
            f"-timeout={TIMEOUT}", f"-rss_limit_mb={MOST_MEMORY}", "-print_pcs=0", *options,
            f"-artifact_prefix={findings / name}-", str(fresh), str(corpus),
        ]  # fmt: skip
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stderr is not None
        lines = []
        executed = 0
        for line in process.stderr:
            text = line.decode("utf-8", "replace").rstrip()
            lines.append(text)
            found = _STATUS.match(text)
            if found:
                executed, reached = int(found[1]), (int(found[3]), int(found[4]))
                if found[2] == "INITED" and outcome.start == (0, 0):
                    outcome.start = reached
                outcome.end, outcome.inputs = max(outcome.end, reached), int(found[5])
            if text.startswith("FINDING "):
                outcome.findings.append(text.removeprefix("FINDING "))
            if "Test unit written to" in text:
                reason = next((x for x in lines if "ERROR: libFuzzer" in x), "it crashed")
                outcome.findings.append(f"{Path(text.split()[-1]).name}: {reason}")
        rc = process.wait()
        outcome.executions += executed
        outcome.log = lines[-40:]
        if rc and not outcome.findings:
            outcome.findings.append(f"{name}: it ended with {rc}: {' / '.join(lines[-3:])}")
    return rc == 0


def table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table."""
    rows = [["target", "executions", "a second", "edges", "features", "corpus", "findings"]]
    for each in outcomes:
        edges, features = zip(each.start, each.end, strict=True)
        rows.append([
            f"`{each.name}`", f"{each.executions:,}", f"{each.speed:,.0f}",
            f"{edges[0]} → {edges[1]}", f"{features[0]} → {features[1]}",
            str(each.inputs), str(len(each.findings)),
        ])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in
             enumerate(zip(row, widths, strict=True))) + " |" for row in rows]  # fmt: skip
    lines.insert(
        1,
        "| "
        + " | ".join("-" * w if not i else "-" * (w - 1) + ":" for i, w in enumerate(widths))
        + " |",
    )
    return "\n".join(lines)


def main() -> int:
    """Parse the command line, run, print; 1 where something was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(names()))
    parser.add_argument("--seconds", type=float, default=0.0, help="in all, shared by the targets")
    parser.add_argument("--runs", type=int, default=0, help="inputs for each target")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations")
    parser.add_argument("--findings", type=Path, default=FINDINGS, help="where inputs are saved")
    parser.add_argument("--corpus", type=Path, default=HERE / "corpus", help="to start from")
    parser.add_argument("--keep", type=Path, help="keep new inputs here, a folder a target")
    parser.add_argument("--output", type=Path, help="write the page to this Markdown file")
    parser.add_argument(
        "--merge", type=Path, help="add to the corpus what is of use in this folder"
    )
    options = parser.parse_args()
    wanted = options.targets or names()
    strange = [name for name in wanted if not (HERE / "targets" / f"{name}.py").is_file()]
    if strange or bool(options.seconds) + bool(options.runs) + bool(options.merge) != 1:
        parser.error(
            f"no target {', '.join(strange)}" if strange else "say --seconds, --runs or --merge"
        )
    if options.merge:
        from corpus_tools import merge

        return merge(wanted, options.merge)
    limits = Limits(options.runs, options.seconds * options.jobs / len(wanted), options.seed)

    def one(name: str) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            fresh = (options.keep or Path(folder)) / name
            fresh.mkdir(parents=True, exist_ok=True)
            found = fuzz(name, limits, options.findings, fresh, options.corpus / name)
        for line in [f"{name}: {found.executions:,} in {found.seconds:.0f} s", *found.findings]:
            print(line, file=sys.stderr, flush=True)
        return found

    began = time.time()
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(one, wanted))
    print(table(outcomes))
    if options.output:
        from page import write

        write(options.output, outcomes, began, limits)
    return int(any(each.findings for each in outcomes))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.path.insert(0, str(HERE))
    sys.exit(main())
