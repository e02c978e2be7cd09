"""What stands around the picture: the head of the page, its tables, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import TargetInfo
from hardpoint.page.markup import Markup, el
from hardpoint.planning.data import Segment
from hardpoint.planning.page.words import (
    Shown,
    head_cells,
    more,
    operators,
    percent,
    plural,
    seconds,
)
from hardpoint.units import count, size

# As many stand in the head, and in a target's list, with how many more there are.
SPECS = 40
REASONS = 12


def head(shown: Shown) -> Markup:
    """What is planned, for what, by whom; and the totals."""
    plan = shown.plan
    signature = plan.program.signature
    return el(
        "header",
        el("p", "hardpoint · plan", cls="kicker"),
        el("h1", plan.program.name),
        el("p", "for ", el("b", plan.objective), ", by ", el("b", plan.partitioner), cls="by"),
        el("dl",
           el("dt", "takes"), el("dd", _specs(signature.inputs), cls="mono"),
           el("dt", "gives"), el("dd", _specs(signature.results), cls="mono"),
           _sizes(shown), cls="calls"),
        _tiles(shown),
    )  # fmt: skip


def _specs(specs: Sequence[object]) -> list[Markup]:
    said = [str(spec) for spec in specs[:SPECS]] or ["no tensors"]
    said += [f"and {more(specs, SPECS)}"] if len(specs) > SPECS else []
    return [el("span", words) for words in said]


def _sizes(shown: Shown) -> list[Markup]:
    symbols = shown.plan.program.signature.symbols
    if not symbols:
        return []
    ranges = [
        f"{name}: {least} to {greatest}" if greatest is not None else f"{name}: {least} or more"
        for name, (least, greatest) in symbols.items()
    ]
    return [el("dt", "sizes"), el("dd", [el("span", r) for r in ranges], cls="mono")]


def _tiles(shown: Shown) -> Markup:
    segments = shown.plan.segments
    figures = [
        (f"{shown.operations:,}", "operations"),
        (f"{len(segments):,}", "segments" if len(segments) != 1 else "segment"),
        (str(len(shown.plan.targets)), "targets" if len(shown.plan.targets) != 1 else "target"),
        (f"{count(shown.flops)}", "FLOPs"),
        (size(_weight_bytes(shown)), "weights"),
        (size(shown.plan.crossing_bytes()), "cross between segments"),
    ]
    predicted = _predicted(segments)
    if predicted is not None:
        figures.append((seconds(predicted), "predicted"))
    return el(
        "ul", [el("li", el("b", f), " ", el("span", what)) for f, what in figures], cls="tiles"
    )


def _weight_bytes(shown: Shown) -> int:
    """Each weight's storage counts once, however many names it has."""
    exported = shown.plan.program.exported
    tensors = [*exported.state_dict.values(), *exported.constants.values()]
    storages = [t.untyped_storage() for t in tensors if isinstance(t, torch.Tensor)]
    return sum({s._cdata: s.nbytes() for s in storages}.values())


def _predicted(segments: Sequence[Segment]) -> float | None:
    times = [s.cost.seconds for s in segments]
    return sum(t for t in times if t is not None) if times and None not in times else None


def targets(shown: Shown) -> Markup:
    """The legend: each target's colour and pattern, its share, and what it cannot run."""
    plan = shown.plan
    rows = [
        _target(shown, c) for c in sorted(plan.candidates, key=lambda c: shown.number[c.target])
    ]
    return el("section", el("h2", "Targets"), _bar(shown), el("ul", rows, cls="targets"),
              aria_label="Targets")  # fmt: skip


def _bar(shown: Shown) -> Markup:
    """All operations as one bar, in parts by target."""
    parts, left = [], 0.0
    for target in shown.plan.targets:
        width = 1000 * _operations(shown, target) / max(1, shown.operations)
        parts.append(el("rect", el("title", str(target)), x=left, width=width, height=14,
                        fill=f"url(#p{shown.number[target]})"))  # fmt: skip
        left += width
    return el("svg", parts, cls="share", viewBox="0 0 1000 14", preserveAspectRatio="none",
              role="img", aria_label="operations by target")  # fmt: skip


def _operations(shown: Shown, target: Target) -> int:
    return sum(len(s.nodes) for s in shown.plan.segments if s.target == target)


def _target(shown: Shown, candidate: TargetInfo) -> Markup:
    mine = [s for s in shown.plan.segments if s.target == candidate.target]
    runs = _operations(shown, candidate.target)
    device = candidate.device
    memory = f" · {size(device.memory)}" if device.memory else ""
    refused = candidate.support.unsupported
    share = percent(runs / max(1, shown.operations))
    does = f"runs {runs:,} of {plural(shown.operations, 'operation')} ({share})"
    does += f" in {plural(len(mine), 'segment')}" if mine else ""
    return el(
        "li",
        shown.swatch(candidate.target, 20),
        el("div",
           el("b", str(candidate.target)), " ", el("span", f"{device.name}{memory}", cls="dim"),
           el("p", does),
           _refusals(refused) if refused else el("p", "supports every operation", cls="dim")),
    )  # fmt: skip


def _refusals(refused: Mapping[str, str]) -> Markup:
    reasons = Counter(refused.values())
    rows = []
    for reason, n in reasons.most_common(REASONS):
        example = next(name for name, why in refused.items() if why == reason)
        rows.append(el("li", f"{n} of them: ", el("q", reason), " e.g. ", el("code", example)))
    if len(reasons) > REASONS:
        rows.append(el("li", f"and {more(reasons, REASONS)} reasons"))
    summary = el("summary", f"cannot run {plural(len(refused), 'operation')}")
    return el("details", summary, el("ul", rows, cls="plain"))


def table(shown: Shown) -> Markup:
    """A row for each segment."""
    timed = _predicted(shown.plan.segments) is not None
    figures = ["operations", "FLOPs", "share", "weights", "in", "out"]
    figures += ["predicted"] if timed else []
    rows = [_row(shown, s, timed) for s in shown.plan.segments]
    cells = head_cells("segment", "target", *figures, "mostly", "module", figures=set(figures))
    whole = el("table", el("thead", el("tr", cells)), el("tbody", rows))
    return el("section", el("h2", "Costs"), el("p", f"Figures are {shown.plan.basis}.", cls="note"),
              el("div", whole, cls="scroll", tabindex="0"), aria_label="Costs")  # fmt: skip


def _row(shown: Shown, segment: Segment, timed: bool) -> Markup:
    cost = segment.cost
    figures = [
        f"{len(segment.nodes):,}",
        count(cost.flops),
        percent(shown.share([segment])),
        size(cost.weight_bytes),
        size(cost.input_bytes),
        size(cost.output_bytes),
    ]
    if timed and cost.seconds is not None:
        figures.append(seconds(cost.seconds))
    return el(
        "tr",
        el("th", el("a", segment.id, href=f"#{segment.id}"), scope="row"),
        el("td", shown.swatch(segment.target), " ", str(segment.target)),
        [el("td", f, cls="num") for f in figures],
        el("td", operators(segment, 3)),
        el("td", el("code", shown.covers(segment))),
    )


def skipped(shown: Shown) -> Markup | None:
    """Providers that were left out, and why."""
    if not shown.plan.skipped:
        return None
    rows = [
        el("li", el("b", name), el("p", reason, cls="lines")) for name, reason in shown.plan.skipped
    ]
    return el("section", el("h2", "Left out"), el("ul", rows, cls="skipped"), aria_label="Left out")
