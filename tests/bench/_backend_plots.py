"""Bars for one model: the fastest right candidate of each target and precision."""

from __future__ import annotations

from pathlib import Path

from hardpoint.benching.benchmark import Benchmark
from hardpoint.benching.row import BenchRow

COLOURS = ("#1f6f54", "#0b6bcb", "#b4530a", "#9c2f8a", "#8a6d00", "#007c89")


def plot(name: str, bench: Benchmark, folder: Path | None) -> str:
    """A picture beside the page; the Markdown that shows it."""
    if folder is None:
        return ""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    best: dict[tuple[str, str], BenchRow] = {}
    for row in bench.rows:
        key = row.target, row.precision
        if (
            row.timing
            and not row.failure
            and (
                key not in best or row.timing.p50 < best[key].timing.p50  # type: ignore[union-attr]
            )
        ):
            best[key] = row
    rows = sorted(best.values(), key=lambda r: -(r.timing.p50 if r.timing else 0.0))
    targets = sorted({r.target for r in rows if not r.eager})
    labels = [r.label + ("" if r.within else ", beyond the usual error") for r in rows]
    times = [r.timing.p50 * 1e3 if r.timing else 0.0 for r in rows]
    colours = ["#b9bec6" if r.eager else COLOURS[targets.index(r.target) % len(COLOURS)] for r in rows]  # fmt: skip
    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.34 * len(rows)))
    bars = axes.barh(labels, times, color=colours)
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=9)
    axes.set_xlabel("p50, milliseconds; shorter is better")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    axes.set_title(name, loc="left", fontsize=11)
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"backends-{name}.png"
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
    return f"![{name}]({file.name})"
