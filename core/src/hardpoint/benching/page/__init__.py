"""A benchmark as one self-contained HTML page: ``scatter`` draws latency against error, ``lines``
latency by batch; ``axes`` is what both stand on, ``colours`` who has which; ``table`` is all.

``page.js`` only sorts the table and points out one candidate everywhere; the page says everything
without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardpoint.benching.page import lines, scatter, table
from hardpoint.benching.page.legend import Legend
from hardpoint.page.document import document
from hardpoint.page.markup import Markup, el, join

if TYPE_CHECKING:
    from hardpoint.benching.benchmark import Benchmark


def render_page(bench: Benchmark) -> str:
    """The page of ``bench``: the same benchmark gives the same text."""
    legend = Legend(bench.rows)
    batches = sorted({r.batch for r in bench.rows if r.timing})
    plots = [scatter.draw(bench.rows, batch, legend) for batch in batches]
    body = join(
        [
            _head(bench),
            el("section", el("h2", "Latency against error"), _how(), plots,
               legend.list(), aria_label="Latency against error"),
            lines.section(bench.rows, legend),
            table.section(bench, legend),
            el("footer", f"Made by hardpoint {bench.machine['hardpoint']}."),
        ]
    )  # fmt: skip
    return document(f"{bench.program}: bench", body, package=__name__)


def _head(bench: Benchmark) -> list[Markup]:
    best = bench.best
    tiles: list[tuple[str, str]] = []
    if best is not None and best.timing is not None:
        tiles.append((best.label, f"the best for {bench.objective} at batch {best.batch}"))
        tiles.append((f"{best.timing.p50 * 1e3:.3g} ms", "its p50"))
        if best.timing.ratio is not None:
            tiles.append((f"{best.timing.ratio:.2f}x", "as fast as eager PyTorch"))
    ran = sum(1 for r in bench.rows if r.timing and not r.eager)
    failed = sum(1 for r in bench.rows if r.failure)
    tiles.append((f"{ran} / {failed}", "rows timed / failed"))
    parts = [
        el("p", "bench", cls="kicker"),
        el("h1", bench.program),
        el("p", f"{bench.seconds:.0f} s in all", cls="by"),
        el("ul", [el("li", el("b", big), el("span", small)) for big, small in tiles], cls="tiles"),
    ]
    if bench.noisy:
        parts.append(el("p", bench.notes[-1], cls="notice"))
    return parts


def _how() -> Markup:
    return el(
        "p",
        "Left is faster, down is nearer to eager PyTorch (largest difference, relative where "
        "values are above 1). The line is the front: nothing that is within its limit is both. "
        "Numbers are those of the table; hollow marks are beyond their limit.",
        cls="note",
    )
