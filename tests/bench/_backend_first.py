"""The first measurements of all, by recipes tried by hand, held against what was measured here."""

from __future__ import annotations

from dataclasses import replace

from _backend_claims import claims_of, fastest
from _backend_models import Model
from _backend_tables import speed

from hardpoint.benching.benchmark import Benchmark

# Model -> claim -> (ms, times as fast as eager): the best runtime of then, whichever it was; a
# processor of the same kind with two cores, whose host was busy (ratios ± 30 %).
FIRST: dict[str, dict[str, tuple[float, float]]] = {
    "resnet50": {"fp32": (39.3, 1.5), "half precision": (24.1, 2.4), "int8": (11.5, 5.0)},
    "minilm": {"fp32": (18.5, 1.3), "half precision": (10.9, 2.2), "int8": (7.9, 3.0)},
    "decoder-decode": {
        "fp32": (17.3, 3.8), "half precision": (15.0, 4.4),
        "weights in int8": (11.6, 5.6), "weights in int4": (7.1, 9.2),
    },
}  # fmt: skip
HEAD = ["model", "precision", "then", "of eager", "here", "of eager", "best", "beaten"]


def first_rows(model: Model, bench: Benchmark) -> list[list[object]]:
    """Lines of the table: the best round of the fastest here, and its ratio."""
    rows: list[list[object]] = []
    for claim in claims_of(model):
        known = FIRST.get(model.name, {}).get(claim.name)
        best = fastest(bench, replace(claim, smaller=0.0), weights=1.0)  # which do not count
        if known is None or best is None or best.timing is None:
            continue
        ms, ratio = best.timing.best * 1e3, speed(best)
        beaten = [word for word, is_so in
                  (("in ms", ms < known[0]), ("by ratio", ratio > known[1])) if is_so]  # fmt: skip
        rows.append([
            model.name, claim.name, f"{known[0]:g} ms", f"{known[1]:g}x", f"{ms:.3g} ms",
            f"{ratio:.2f}x", best.label, " and ".join(beaten) or "no",
        ])  # fmt: skip
    return rows
