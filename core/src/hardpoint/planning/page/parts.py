"""A segment's details: figures, operators, what it takes and gives, and why each node is there."""

from __future__ import annotations

from collections.abc import Sequence

from hardpoint.page.markup import Markup, el
from hardpoint.planning.costs import flops
from hardpoint.planning.data import Segment
from hardpoint.planning.explain import short
from hardpoint.planning.page.flow import Link
from hardpoint.planning.page.words import Shown, head_cells, operators, plural, seconds, times
from hardpoint.units import count, size

# Rows of operations in the whole page; a page of more is slow to open and to search.
ROWS = 6000
CHIPS = 40

# (why here, why not elsewhere)
Why = tuple[str, tuple[tuple[str, str], ...]]


def segments(shown: Shown) -> Markup:
    """Every segment, folded; and the filter over their operations."""
    taken: dict[str, list[Link]] = {}
    given: dict[str, list[Link]] = {}
    for link in shown.flow.links:
        taken.setdefault(link.target, []).append(link)
        given.setdefault(link.source, []).append(link)
    labels = {p.id: f"{p.kind} {p.label}" for p in shown.flow.sources + shown.flow.sinks}
    left, parts = ROWS, []
    for segment in shown.plan.segments:
        ends = taken.get(segment.id, []), given.get(segment.id, [])
        parts.append(_segment(shown, segment, *ends, labels, left))
        left = max(0, left - len(segment.nodes))
    note = None
    if shown.operations > ROWS:
        note = el("p", f"The first {ROWS:,} of {shown.operations:,} operations are listed; "
                  "plan.to_json() has all.", cls="note")  # fmt: skip
    return el("section", el("h2", "Segments"), note, _filter(), el("div", parts, id="segments"),
              aria_label="Segments")  # fmt: skip


def _filter() -> Markup:
    """Shown by the script only: without it nothing would happen."""
    return el(
        "form",
        el("input", id="filter", type="search", autocomplete="off", spellcheck="false",
           placeholder="filter operations: a name, an operator, a module, a reason",
           aria_label="filter operations"),
        el("button", "open all", type="button", id="open"),
        el("button", "close all", type="button", id="close"),
        el("output", "", id="found", cls="found"),
        id="tools", cls="tools", hidden=True, role="search",
    )  # fmt: skip


def _segment(
    shown: Shown,
    segment: Segment,
    taken: Sequence[Link],
    given: Sequence[Link],
    labels: dict[str, str],
    rows: int,
) -> Markup:
    covers = shown.covers(segment)
    summary = el(
        "summary",
        shown.swatch(segment.target), el("b", segment.id, cls="id"),
        el("span", str(segment.target), cls="where"),
        el("span", plural(len(segment.nodes), "operation")),
        el("span", operators(segment, 3), cls="dim grow"),
        el("code", covers) if covers else None,
    )  # fmt: skip
    body = el(
        "div",
        _figures(segment, shown.plan.basis),
        el("h3", "Operators"),
        _operators(segment),
        _tensors("Takes", "from", [(k.source, k) for k in taken], labels),
        _tensors("Gives", "to", [(k.target, k) for k in given], labels),
        el("h3", "Operations, and why they run here"),
        _groups(shown, segment, rows),
        id=segment.id, cls="body",
    )  # fmt: skip
    return el("details", summary, body, cls="segment")


def _figures(segment: Segment, basis: str) -> Markup:
    cost = segment.cost
    figures = [
        ("device", segment.device.name),
        ("FLOPs", count(cost.flops)),
        ("weights", size(cost.weight_bytes)),
        ("in", size(cost.input_bytes)),
        ("out", size(cost.output_bytes)),
        ("predicted", "not predicted" if cost.seconds is None else seconds(cost.seconds)),
        ("basis", basis),
    ]
    return el("dl", [el("div", el("dt", k), el("dd", v)) for k, v in figures], cls="figures")


def _operators(segment: Segment) -> Markup:
    items = [el("li", el("code", op), times("", n)) for op, n in segment.operators.items()]
    rest = len(items) - CHIPS
    return el("ul", items[:CHIPS], el("li", f"and {rest} more") if rest > 0 else None, cls="chips")


def _tensors(
    title: str, way: str, links: Sequence[tuple[str, Link]], labels: dict[str, str]
) -> Markup | None:
    if not links:
        return None
    rows = [
        el("tr", el("td", el("code", v.name)), el("td", el("code", str(v))),
           el("td", size(v.nbytes), cls="num"), el("td", _place(end, labels)))
        for end, link in links
        for v in link.values
    ]  # fmt: skip
    heads = el("tr", head_cells("tensor", "type", "bytes", way, figures={"bytes"}))
    whole = el("table", el("thead", heads), el("tbody", rows))
    return el("div", el("h3", title), el("div", whole, cls="scroll"), cls="tensors")


def _place(end: str, labels: dict[str, str]) -> object:
    return labels[end] if end in labels else el("a", end, href=f"#{end}")


def _groups(shown: Shown, segment: Segment, rows: int) -> list[Markup]:
    """The segment's operations, those with the same words together, so that words stand once."""
    groups: dict[Why, list[str]] = {}
    for name in segment.nodes[:rows]:
        groups.setdefault(_why(shown, segment, name), []).append(name)
    parts = [_group(shown, why, names) for why, names in groups.items()]
    if len(segment.nodes) > rows:
        parts.append(el("p", f"{plural(len(segment.nodes) - rows, 'operation')} not listed here.",
                        cls="note"))  # fmt: skip
    return parts


def _why(shown: Shown, segment: Segment, name: str) -> Why:
    """The partitioner's reason, and the other targets' refusals that it does not say already."""
    reason = shown.plan.reasons.get(name, "")
    refusals = []
    for candidate in shown.plan.candidates:
        refusal = candidate.support.unsupported.get(name)
        if refusal and candidate.target != segment.target and refusal not in reason:
            refusals.append((str(candidate.target), refusal))
    return reason, tuple(refusals)


def _group(shown: Shown, why: Why, names: Sequence[str]) -> Markup:
    reason, refusals = why
    said = reason or "The partitioner gave no reason of its own for these."
    rows = [_node(shown, name) for name in names]
    whole = el("table", el("tbody", rows), cls="nodes")
    return el(
        "div",
        el("p", said, cls="why" if reason else "why dim"),
        [el("p", el("b", f"not on {t}: "), r, cls="why") for t, r in refusals],
        el("div", whole, cls="scroll"),
        cls="group",
    )


def _node(shown: Shown, name: str) -> Markup:
    node = shown.nodes[name]
    packet = getattr(node.target, "overloadpacket", node.target)
    work = flops(node)
    return el(
        "tr",
        el("td", el("code", name)),
        el("td", short(str(getattr(packet, "__name__", packet)))),
        el("td", el("code", str(shown.flow.values[name])) if name in shown.flow.values else None),
        el("td", f"{count(work)}FLOP" if work else "", cls="num"),
        el("td", shown.module(name), cls="dim"),
    )
