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
        if _ratio(row) and (key not in best or _ratio(row) > _ratio(best[key])):
            best[key] = row
    rows = sorted(best.values(), key=_ratio)
    targets = sorted({r.target for r in rows if not r.eager})
    labels = [r.label + ("" if r.within else ", beyond the usual error") for r in rows]
    times = [_ratio(r) for r in rows]
    colours = ["#b9bec6" if r.eager else COLOURS[targets.index(r.target) % len(COLOURS)] for r in rows]  # fmt: skip
    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.34 * len(rows)))
    bars = axes.barh(labels, times, color=colours)
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=9)
    # Under the whole picture: long labels leave the bars less room than this text takes.
    figure.supxlabel("times as fast as eager PyTorch in the same rounds", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    axes.set_title(name, loc="left", fontsize=11)
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"backends-{name}.png"
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
    return f"![{name}]({file.name})"


def _ratio(row: BenchRow) -> float:
    """0: it has none."""
    return 0.0 if row.failure or row.timing is None else row.timing.ratio or 0.0
