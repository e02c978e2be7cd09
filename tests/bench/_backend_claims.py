"""The published claims, each held against what was measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from _backend_limits import floor
from _backend_models import Model
from _backend_tables import correct, speed

from hardpoint.benching.benchmark import Benchmark
from hardpoint.benching.columns import agreement, figure
from hardpoint.benching.row import BenchRow

# What auto is asked for.
MAX_ERRORS = (5e-2, 1e-3)


@dataclass(frozen=True)
class Claim:
    """So many times as fast as eager PyTorch in fp32.

    :param smaller: share of the weights' memory that is saved, too; 0: nothing is claimed.
    :param cosine: results must be as like eager's as this; 0: as is usual for the precision.
    """

    name: str
    precisions: tuple[str, ...]
    ratio: float
    smaller: float = 0.0
    cosine: float = 0.0


def claims_of(model: Model) -> list[Claim]:
    """What is claimed for such a model."""
    found = [Claim("fp32", ("fp32",), 1.8), Claim("half precision", ("bf16", "fp16"), 2.0)]
    if model.kind == "cnn":
        found.append(Claim("int8", ("int8",), 3.5))
    if model.name == "minilm":
        found.append(Claim("int8", ("int8",), 3.0))
        found.append(Claim("int8, cosine ≥ 0.99", ("int8",), 3.0, cosine=0.99))
    if model.kind == "decode":
        found += [Claim("weights in int8", ("int8w",), 5.0, 0.75),
                  Claim("weights in int4", ("int4w",), 8.0, 0.75)]  # fmt: skip
    return found


def fastest(bench: Benchmark, claim: Claim, weights: float) -> BenchRow | None:
    """The fastest right row in the claim's precisions, by its ratio to eager beside it.

    :param weights: elements. Where some rows save as much of them as is claimed, one of those.
    """
    right = [
        r for r in bench.rows if r.precision in claim.precisions and speed(r) and correct(r, None)
        and (not claim.cosine or (r.errors is not None and r.errors.cosine >= claim.cosine))
    ]  # fmt: skip
    small = [r for r in right if _is_small(saved(r, weights), claim)]
    return max(small or right, key=speed, default=None)


def saved(row: BenchRow, weights: float) -> float:
    """Share of the weights' memory in fp32 that what is compiled does not take.

    The package carries the program's own weights as well; they do not count.
    """
    return 0.0 if row.artifact_bytes is None else 1 - row.artifact_bytes / (4 * weights)


def _is_small(share: float, claim: Claim) -> bool:
    return not claim.smaller or share >= claim.smaller - 0.005


def claim_row(
    model: Model,
    claim: Claim,
    bench: Benchmark,
    finals: Benchmark | None,
    work: Mapping[str, float],
    limits: Mapping[str, float],
    resident: Mapping[str, float] | None = None,
) -> list[object]:
    """A line of the table: claim, best, figures, verdict.

    :param bench: all slices. :param finals: where they ran in the same rounds, if that is known.
    :param resident: label -> share of a process's memory that is saved.
    """
    weights = work.get("weights", 0.0)
    best = None if finals is None else fastest(finals, claim, weights)
    source = bench if best is None or finals is None else finals
    best = best or fastest(bench, claim, weights)
    asked = f"≥ {claim.ratio:g}x" + (f", -{claim.smaller:.0%} weights" if claim.smaller else "")
    if best is None or best.timing is None or best.timing.ratio is None:
        why = "; ".join(sorted({str(r.failure) for r in bench.rows
                                if r.failure and r.precision in claim.precisions}))  # fmt: skip
        why = why or "no backend here has that precision, or none that is right"
        return [model.name, claim.name, asked, "none", "", "", "", "", f"*not reached*, because nothing runs it: {why[:300]}"]  # fmt: skip
    ratio, p50 = best.timing.ratio, best.timing.p50
    least = floor(dict(work), best.precision, dict(limits))
    share = saved(best, weights)
    cells: list[object] = [
        model.name, claim.name, asked, best.label, f"{ratio:.2f}x",
        "" if best.errors is None else figure(best.errors.max), agreement(best.errors),
        _share(share, (resident or {}).get(best.label)) if claim.smaller else "",
    ]  # fmt: skip
    busy = " (a busy machine: eager's own rounds differ)" if source.noisy else ""
    if ratio >= claim.ratio and _is_small(share, claim):
        return [*cells, f"*reached*{busy}"]
    return [*cells, f"*not reached*, because {_because(ratio, p50, least, claim, share)}{busy}"]


def _share(share: float, resident: float | None) -> str:
    return f"{share:.0%}" + ("" if resident is None else f" (of a process's memory {resident:.0%})")


def _because(ratio: float, p50: float, least: float, claim: Claim, share: float) -> str:
    said = [] if _is_small(share, claim) else [f"the artifact saves {share:.1%} only"]
    if ratio < claim.ratio:
        eager = p50 * ratio
        if not least:
            said.append(f"it takes {p50 * 1e3:.3g} ms; its floor here is not known")
        elif p50 < least:
            said.append(
                f"it takes {p50 * 1e3:.3g} ms, less than the floor of {least * 1e3:.3g} ms that was "
                "measured: the machine was slower then, and what it can do at most is not known"
            )
        elif eager / least < claim.ratio:
            said.append(
                f"eager's {eager * 1e3:.3g} ms stand {eager / least:.2f}x over this machine's floor "
                f"of {least * 1e3:.3g} ms, which leaves no room for {claim.ratio:g}x"
            )
        else:
            said.append(
                f"it takes {p50 * 1e3:.3g} ms, {p50 / least:.2f}x this machine's floor of "
                f"{least * 1e3:.3g} ms; the floor alone would allow {eager / least:.2f}x"
            )
    return "; ".join(said)
