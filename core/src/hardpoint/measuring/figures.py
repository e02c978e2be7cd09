"""From rounds to figures.

The rounds are the units of observation, not the calls: calls of one round share whatever the
machine was doing then. The interval of the median is that of order statistics, which assumes no
distribution: W. J. Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hardpoint.measuring.results import Round, Timing

CONFIDENCE = 0.95
# Eager PyTorch's own rounds differ by more than this: the machine is too busy for conclusions.
NOISY = 1.3


def median(values: Sequence[float]) -> float:
    """The middle, or the mean of the two."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def quantile(values: Sequence[float], share: float) -> float:
    """Linear between the neighbours, as NumPy's default."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(low, high, confidence): the narrowest pair of order statistics of at least 95 %.

    Five values or fewer hold no such pair: least and greatest, with the confidence that they have.
    """
    ordered, n = sorted(values), len(values)
    # P(the median lies outside the r-th least and r-th greatest) = 2 P(Binomial(n, 1/2) < r).
    tail, rank = 0.0, 0
    while rank < n // 2:
        more = tail + math.comb(n, rank) / 2**n
        if 1 - 2 * more < CONFIDENCE and rank > 0:
            break
        tail, rank = more, rank + 1
    if rank == 0:  # a single value
        return ordered[0], ordered[0], 0.0
    return ordered[rank - 1], ordered[n - rank], 1 - 2 * tail


def timing(
    rounds: Sequence[Round],
    baseline: Sequence[Round] | None,
    *,
    samples: int,
    callers: int = 1,
    by_rate: bool | None = None,
) -> Timing:
    """The figures of a worker's rounds.

    :param baseline: eager's rounds, the first of each beside the first and so on.
    :param samples: in one call. :param by_rate: the ratio is that of the throughputs; ``None``:
        where there are several callers. Where only eager has, latencies are not comparable.
    """
    medians = [median(r.calls) for r in rounds]
    calls = [call for r in rounds for call in r.calls]
    low, high, confidence = median_interval(medians)
    ratio = None
    if baseline is not None:
        rate = _rate if (callers > 1 if by_rate is None else by_rate) else _speed
        pairs = list(zip(rounds, baseline, strict=False))
        ratio = median([rate(mine) / rate(eager) for mine, eager in pairs]) if pairs else None
    count = sum(r.count for r in rounds)
    return Timing(
        p50=median(medians),
        p95=quantile(calls, 0.95),
        p99=quantile(calls, 0.99),
        best=min(medians),
        low=low,
        high=high,
        confidence=confidence,
        rounds=len(rounds),
        calls=count,
        throughput=samples * count / sum(r.seconds for r in rounds),
        callers=callers,
        ratio=ratio,
        peak_bytes=max(r.peak_bytes for r in rounds),
    )


def spread(rounds: Sequence[Round]) -> float:
    """The 90th percentile of the rounds' medians ÷ the least of them."""
    medians = [median(r.calls) for r in rounds]
    return quantile(medians, 0.9) / min(medians)


def _speed(measured: Round) -> float:
    return 1 / median(measured.calls)


def _rate(measured: Round) -> float:
    return measured.count / measured.seconds
