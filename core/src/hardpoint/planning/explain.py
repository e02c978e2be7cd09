"""A plan in words and as data."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hardpoint.units import count, size

if TYPE_CHECKING:
    from hardpoint.planning.data import PlanData, Segment


def describe(plan: PlanData) -> dict[str, object]:
    """JSON-serializable facts of a plan."""
    return {
        "program": plan.program.name,
        "objective": plan.objective,
        "partitioner": plan.partitioner,
        "basis": plan.basis,
        "candidates": [
            {
                "target": str(c.target),
                "device": c.device.name,
                "supported": len(c.support.supported),
                "unsupported": dict(c.support.unsupported),
            }
            for c in plan.candidates
        ],
        "skipped": [{"provider": name, "reason": reason} for name, reason in plan.skipped],
        "crossing_bytes": plan.crossing_bytes(),
        "segments": [_segment(s) for s in plan.segments],
        "reasons": dict(plan.reasons),
    }


def _segment(segment: Segment) -> dict[str, object]:
    return {
        "id": segment.id,
        "target": str(segment.target),
        "device": segment.device.name,
        "nodes": list(segment.nodes),
        "operators": dict(segment.operators),
        "inputs": list(segment.inputs),
        "outputs": list(segment.outputs),
        "flops": segment.cost.flops,
        "weight_bytes": segment.cost.weight_bytes,
        "input_bytes": segment.cost.input_bytes,
        "output_bytes": segment.cost.output_bytes,
        "predicted_seconds": segment.cost.seconds,
    }


def render_table(plan: PlanData) -> str:
    """The plan as a text table, with a line of totals."""
    rows = [("segment", "target", "operations", "FLOPs", "weights", "in", "out", "mostly")]
    for s in plan.segments:
        rows.append(
            (
                s.id,
                str(s.target),
                str(len(s.nodes)),
                count(s.cost.flops),
                size(s.cost.weight_bytes),
                size(s.cost.input_bytes),
                size(s.cost.output_bytes),
                ", ".join(f"{short(op)} x{n}" for op, n in list(s.operators.items())[:3]),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    total = sum(len(s.nodes) for s in plan.segments)
    per_target = Counter[str]()
    for s in plan.segments:
        per_target[str(s.target)] += len(s.nodes)
    shares = ", ".join(f"{t}: {n}/{total}" for t, n in per_target.most_common())
    segments = f"{len(plan.segments)} segment{'s' * (len(plan.segments) != 1)}"
    lines += [
        "",
        f"{plan.program.name} for {plan.objective}: {segments}; "
        f"operations by target: {shares or 'none'}; "
        f"{size(plan.crossing_bytes())} cross between segments",
        f"by {plan.partitioner}; {plan.basis}",
    ]
    lines += [f"left out: {name}: {reason}" for name, reason in plan.skipped]
    return "\n".join(lines)


def render_reasons(plan: PlanData) -> str:
    """For each segment: what runs there, and why not on a target that was preferred."""
    lines = []
    for s in plan.segments:
        lines.append(f"{s.id} on {s.target} ({s.device.name}): {len(s.nodes)} operations")
        lines.append("  " + ", ".join(f"{short(op)} x{n}" for op, n in s.operators.items()))
        reasons = Counter(plan.reasons[n] for n in s.nodes if n in plan.reasons)
        for reason, n in reasons.most_common(8):
            example = next(x for x in s.nodes if plan.reasons.get(x) == reason)
            lines.append(f"  {n} x {reason} (e.g. {example})")
    for name, reason in plan.skipped:
        lines.append(f"left out {name}: {reason}")
    return "\n".join(lines)


def short(operator: str) -> str:
    """``aten.linear`` -> ``linear``."""
    return operator.rpartition(".")[2]
