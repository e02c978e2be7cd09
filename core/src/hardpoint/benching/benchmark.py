"""The result of a benchmark. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardpoint.benching.columns import as_text
from hardpoint.benching.row import BenchRow, row_from_json
from hardpoint.errors import ConfigError
from hardpoint.files import write_atomically
from hardpoint.interfaces.partitioner import Objective
from hardpoint.measuring.results import CALIBRATED, SAME_DATA


@dataclass(frozen=True, eq=False)
class Benchmark:
    """What :func:`hardpoint.bench` gives; ``print`` shows the table.

    :param program: its name.
    :param objective: what the rows are sorted by.
    :param rows: at each batch the best first; then what is beyond its limit, what failed, and what
        was not tried. Eager PyTorch is one of them.
    :param max_error: as asked for; ``None``: what is usual for each precision.
    :param machine: the machine that the figures come from, described.
    :param rounds: of each row.
    :param round_seconds: how long one lasts.
    :param callers: threads
        that called at the same time.
    :param heats: how many groups were timed one after the other, since not all fit into memory
        together; ratios are to eager PyTorch in the same group.
    :param noise: 90th percentile of eager's round medians ÷ the least of them, the worst of all.
    :param noisy: that is so much that near ones may stand in any order.
    :param seconds: that all of it took.
    :param held_out: errors are also on inputs that nothing was compiled or calibrated with.
    """

    program: str
    objective: Objective
    rows: tuple[BenchRow, ...]
    max_error: float | None
    machine: Mapping[str, Any]
    rounds: int
    round_seconds: float
    callers: int
    heats: int
    noise: float
    noisy: bool
    seconds: float
    held_out: bool = False

    @property
    def best(self) -> BenchRow | None:
        """The first row that is right and has figures: the best at the least batch; or ``None``."""
        return next((r for r in self.rows if r.timing and r.within and not r.failure), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """How the figures were made and what to think of them, in sentences."""
        return tuple(_notes(self))

    def __str__(self) -> str:
        return "\n".join([*as_text(self.rows), "", *self.notes])

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable; :func:`benchmark_from_json` reads it back."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            **plain,
            "machine": dict(self.machine),
            "rows": [row.to_json() for row in self.rows],
            "notes": list(self.notes),
        }

    def save_csv(self, path: str | Path) -> Path:
        """Write a line a row: plain seconds and bytes, every figure.

        :raises ConfigError: it cannot be written.
        """
        from hardpoint.benching.csv_file import render

        return _write(Path(path), render(self))

    def save_html(self, path: str | Path) -> Path:
        """Write one self-contained page: the plots and the table.

        :raises ConfigError: it cannot be written.
        """
        from hardpoint.benching.page import render_page

        return _write(Path(path), render_page(self))


def benchmark_from_json(data: Mapping[str, Any]) -> Benchmark:
    """What :meth:`Benchmark.to_json` wrote.

    :raises KeyError: or TypeError, ValueError: it is something else.
    """
    data = {"held_out": False, **data}  # older files do not tell
    plain = {name: data[name] for name in Benchmark.__dataclass_fields__}
    return Benchmark(**{**plain, "rows": tuple(map(row_from_json, data["rows"]))})


def machine_in_words(machine: Mapping[str, Any]) -> str:
    """Processor, cores, instruction sets and versions, in a sentence or two."""
    cpu = machine["processor"]
    sets = [s for s in cpu["instruction_sets"] if s.startswith(("avx512", "amx", "sve", "i8mm"))]
    versions = {"PyTorch": machine["torch"], "hardpoint": machine["hardpoint"]}
    # A first-party plugin may need another; those come with hardpoint.
    versions |= {n: v for n, v in machine["sdks"].items() if not n.startswith("hardpoint")}
    said = f"{cpu['name']}, {cpu['cores']} cores, {machine['system']}"
    said += f", {machine['threads']} threads" + (f", {' '.join(sets)}" if sets else "")
    return f"{said}; {', '.join(f'{name} {version}' for name, version in versions.items())}"


def _notes(bench: Benchmark) -> list[str]:
    said = [machine_in_words(bench.machine) + "."]
    how = f"{bench.rounds} rounds of {bench.round_seconds * 1e3:g} ms, in turn"
    if bench.callers > 1:
        how += f", {bench.callers} callers at the same time"
    sure = min((r.timing.confidence for r in bench.rows if r.timing), default=0.0)
    fewest = min((r.timing.calls for r in bench.rows if r.timing), default=0)
    said.append(
        f"{how}; each in a process of its own, the others stopped. p50: median of the rounds' "
        f"medians, in the interval with {sure * 100:.3g} % confidence; p95 and p99 of all calls, "
        f"{fewest} of each at the least."
    )
    if bench.heats > 1:
        said.append(
            f"Timed in {bench.heats} groups, as not all fit into memory together; ratios are to "
            "eager PyTorch in the same group."
        )
    if any(r.front for r in bench.rows):
        said.append(
            "* is on the front of latency against error at its batch: nothing that is within its "
            "limit is both faster and nearer to eager PyTorch."
        )
    if not bench.held_out and any(r.precision == CALIBRATED for r in bench.rows if r.timing):
        said.append(SAME_DATA)
    if bench.noisy:
        said.append(
            f"The machine was busy: eager PyTorch's own rounds differ by {bench.noise:.2f}x, so "
            "near ones may stand in any order. Measure again when it is quiet."
        )
    return said


def _write(path: Path, text: str) -> Path:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written",
            cause=f"{type(error).__name__}: {error.strerror or error}",
            remedy="name a file in a folder that exists and that you may write to",
        ) from error
    return path
