"""Bars, ours in colour."""

from __future__ import annotations

from pathlib import Path


def plot(name: str, times: dict[str, float], unit: str, folder: Path | None) -> str:
    """A picture of one scenario beside the page; the Markdown that shows it."""
    if folder is None:
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = sorted(times, key=times.__getitem__, reverse=True)
    figure, axes = pyplot.subplots(figsize=(7, 0.7 + 0.38 * len(names)))
    colours = ["#1f6f54" if "hardpoint" in each else "#b9bec6" for each in names]
    bars = axes.barh(names, [times[each] for each in names], color=colours)
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=9)
    axes.set_xlabel(f"{unit}, best of the runs; shorter is better")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    axes.set_title(name, loc="left", fontsize=11)
    figure.tight_layout()
    file = folder / f"weights-{name.replace(', ', '-').replace(' ', '-')}.png"
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
    return f"![{name}]({file.name})"
