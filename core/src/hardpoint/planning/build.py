"""A segment of a plan from the nodes that it consists of; once more, for a plan that is data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch.fx import Node

from hardpoint.errors import PlanError
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import Costs
from hardpoint.interfaces.probe import Device
from hardpoint.planning import costs
from hardpoint.planning.data import Cost, Segment
from hardpoint.planning.extract import Piece, extract, pieces
from hardpoint.program.program import Program, held_tensors


def build_segment(
    name: str,
    target: Target,
    device: Device,
    program: Program,
    nodes: Sequence[Node],
    piece: Piece,
    *,
    contiguous: bool,
    given: Costs,
) -> Segment:
    """``piece`` as a segment for ``target``.

    :param nodes: its compute nodes. :param contiguous: see :func:`extract`.
    """
    return Segment(
        id=name,
        target=target,
        device=device,
        nodes=tuple(n.name for n in nodes),
        inputs=tuple(n.name for n in piece.inputs),
        outputs=tuple(n.name for n in piece.outputs),
        program=extract(program.exported, piece, contiguous=contiguous),
        operators=dict(Counter(_operator(n) for n in nodes).most_common()),
        cost=_cost(program, piece, nodes, target, given),
    )


def segment_again(
    program: Program, plan: Mapping[str, Any], name: str, target: Target, device: Device,
    *, contiguous: bool,
) -> Segment:  # fmt: skip
    """Segment ``name`` of ``plan``, for another target; it takes and gives what it did before.

    :param plan: as :meth:`hardpoint.Plan.to_json` gives it, and as packages carry it.
    :raises PlanError: the plan is not one of this program.
    """
    try:
        rows = {str(row["id"]): row for row in plan["segments"]}
        known = {n.name: n for n in program.exported.graph.nodes}
        groups = [[known[node] for node in row["nodes"]] for row in rows.values()]
        wanted, at = rows[name], list(rows).index(name)
        made = pieces(program.exported, groups)[at]
        segment = build_segment(
            name, target, device, program, groups[at], made, contiguous=contiguous, given=Costs()
        )
        fits = [*segment.inputs] == wanted["inputs"] and [*segment.outputs] == wanted["outputs"]
    except (KeyError, TypeError) as error:
        raise _unfit(program, name, f"{type(error).__name__}: {error}") from error
    if not fits:
        raise _unfit(program, name, "it would take or give other values than the plan says")
    return segment


def _unfit(program: Program, name: str, cause: str) -> PlanError:
    return PlanError(
        f"segment {name} cannot be cut out of {program.name} again", cause=cause,
        remedy="plan and compile the program again",
    )  # fmt: skip


def _operator(node: Node) -> str:
    packet = getattr(node.target, "overloadpacket", None)
    return str(packet) if packet is not None else getattr(node.target, "__name__", str(node.target))


def _cost(
    program: Program, piece: Piece, nodes: Sequence[Node], target: Target, given: Costs
) -> Cost:
    held = held_tensors(program.exported)
    # By address: tied weights are one, while weights of one mapped file share a storage.
    weights = {held[n.name].data_ptr(): held[n.name].nbytes for n in piece.lifted}
    seconds = given.node_seconds
    return Cost(
        flops=costs.total_flops(nodes),
        weight_bytes=sum(weights.values()),
        input_bytes=sum(map(costs.value_bytes, piece.inputs)),
        output_bytes=sum(map(costs.value_bytes, piece.outputs)),
        seconds=None if seconds is None else sum(seconds(n, target) for n in nodes),
    )
