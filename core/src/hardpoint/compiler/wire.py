"""Lay a plan out as a flat schedule of slots."""

from __future__ import annotations

from torch.export.graph_signature import InputKind, OutputKind

from hardpoint.planning.extract import mutable_state
from hardpoint.planning.plan import Plan
from hardpoint.runtime.schedule import Schedule, with_frees


def wire(plan: Plan) -> Schedule:
    """The schedule of ``plan``.

    Results are resolved through the program's output specs, because an input, a weight or a piece
    of state can itself be a result.
    """
    exported = plan.program.exported
    signature = exported.graph_signature
    slot: dict[str, int] = {}
    users = [s.arg.name for s in signature.input_specs if s.kind is InputKind.USER_INPUT]
    for name in users:
        slot[name] = len(slot)
    state = mutable_state(exported)
    direct = {s.arg.name for s in signature.output_specs}
    held: dict[str, int] = {}
    for spec in signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        if spec.target in state or spec.arg.name in direct:
            held[str(spec.target)] = slot[spec.arg.name] = len(slot)
    steps = []
    for segment in plan.segments:
        reads = tuple(slot[name] for name in segment.inputs)
        for name in segment.outputs:
            slot[name] = len(slot)
        steps.append((segment.id, reads, tuple(slot[name] for name in segment.outputs)))
    results, state_writes, input_writes = [], [], []
    for out in signature.output_specs:
        value = slot[out.arg.name]
        if out.kind is OutputKind.USER_OUTPUT:
            results.append(value)
        elif out.kind is OutputKind.USER_INPUT_MUTATION:
            input_writes.append((value, users.index(str(out.target))))
        else:
            state_writes.append((value, str(out.target)))
    kept = {*range(len(users)), *held.values(), *results}
    kept |= {value for value, _ in state_writes} | {value for value, _ in input_writes}
    return Schedule(
        slots=len(slot),
        inputs=len(users),
        held=held,
        steps=with_frees(steps, kept),
        results=tuple(results),
        state_writes=tuple(state_writes),
        input_writes=tuple(input_writes),
    )
