"""What flows in a plan: values with their sizes, the program's ports, who hands what to whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

from hardpoint.planning.costs import value_bytes
from hardpoint.planning.data import PlanData
from hardpoint.planning.extract import mutable_state
from hardpoint.program import dims


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the program.

    :param dtype: as PyTorch names it; for what is no tensor, what it is.
    :param shape: sizes as people name them, e.g. ``"batch, 384"``; ``None`` for what is no tensor.
    :param nbytes: at the sizes of the example inputs.
    """

    name: str
    dtype: str
    shape: str | None
    nbytes: int

    def __str__(self) -> str:
        return self.dtype if self.shape is None else f"{self.dtype}[{self.shape}]"


@dataclass(frozen=True, slots=True)
class Port:
    """Where tensors enter the program (input, state, weight) or leave it (result, writes).

    :param id: unique in the picture.
    :param kind: what it is, in words.
    :param values: names of the values that pass it.
    """

    id: str
    kind: str
    label: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """Tensors that go from one port or segment to another."""

    source: str
    target: str
    values: tuple[Value, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(v.nbytes for v in self.values)


@dataclass(frozen=True, slots=True)
class Flow:
    """Everything that moves.

    :param values: by name of node.
    :param sources: ports where tensors come in, in order.
    :param sinks: ports where tensors go out, in order.
    :param links: by running order of their targets.
    """

    values: Mapping[str, Value]
    sources: tuple[Port, ...]
    sinks: tuple[Port, ...]
    links: tuple[Link, ...]


def trace(plan: PlanData) -> Flow:
    """The flow of ``plan``."""
    values = _values(plan)
    sources, sinks = _sources(plan), _sinks(plan)
    maker = {name: port.id for port in sources for name in port.values}
    maker |= {name: s.id for s in plan.segments for name in s.outputs}
    taken: dict[tuple[str, str], dict[str, None]] = {}
    for taker, names in [
        *((s.id, s.inputs) for s in plan.segments),
        *((port.id, port.values) for port in sinks),
    ]:
        for name in names:
            taken.setdefault((maker[name], taker), {})[name] = None
    links = tuple(Link(a, b, tuple(values[n] for n in names)) for (a, b), names in taken.items())
    return Flow(values, sources, sinks, links)


def _values(plan: PlanData) -> dict[str, Value]:
    symbols = _symbol_names(plan)
    found = {}
    for node in plan.program.exported.graph.nodes:
        if "val" in node.meta and node.op != "output":
            found[node.name] = _value(node, symbols)
    return found


def _value(node: Node, symbols: Mapping[str, str]) -> Value:
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor):
        several = isinstance(value, (tuple, list))
        kind = f"{len(value)} tensors" if several else type(value).__name__
        return Value(node.name, kind, None, value_bytes(node))
    shape = ", ".join(_size(size, symbols) for size in value.shape)
    return Value(node.name, str(value.dtype).removeprefix("torch."), shape, value_bytes(node))


def _size(size: int | torch.SymInt, symbols: Mapping[str, str]) -> str:
    if isinstance(size, int):
        return str(size)
    try:
        return dims.render(dims.from_sympy(size.node.expr, symbols))
    except dims.DimError:
        return str(size.node.expr)


def _symbol_names(plan: PlanData) -> dict[str, str]:
    """The exporter's symbols -> the names that the caller gave them."""
    nodes = {n.name: n for n in plan.program.exported.graph.nodes}
    users = plan.program.exported.graph_signature.user_inputs
    names = {}
    for name, spec in zip(users, plan.program.signature.inputs, strict=True):
        for size, named in zip(nodes[str(name)].meta["val"].shape, spec.shape, strict=True):
            if not isinstance(size, int) and isinstance(named, str):
                names[str(size.node.expr)] = named
    return names


def _sources(plan: PlanData) -> tuple[Port, ...]:
    """Inputs, state that a run changes, and weights that are results themselves."""
    exported = plan.program.exported
    state = mutable_state(exported)
    taken = {name for s in plan.segments for name in s.inputs}
    taken |= {spec.arg.name for spec in exported.graph_signature.output_specs}
    labels = iter(plan.program.signature.inputs)
    ports: list[Port] = []
    for spec in exported.graph_signature.input_specs:
        name, place = spec.arg.name, f"from{len(ports)}"
        if spec.kind is InputKind.USER_INPUT:
            ports.append(Port(place, "input", next(labels).name, (name,)))
        elif name in taken:
            kind = "state" if str(spec.target) in state else "weight"
            ports.append(Port(place, kind, str(spec.target), (name,)))
    return tuple(ports)


def _sinks(plan: PlanData) -> tuple[Port, ...]:
    """Results, and what is written back after the last segment."""
    exported = plan.program.exported
    users = [str(name) for name in exported.graph_signature.user_inputs]
    inputs = [spec.name for spec in plan.program.signature.inputs]
    labels = iter(plan.program.signature.results)
    ports = []
    for i, spec in enumerate(exported.graph_signature.output_specs):
        if spec.kind is OutputKind.USER_OUTPUT:
            kind, label = "result", next(labels).name
        elif spec.kind is OutputKind.USER_INPUT_MUTATION:
            kind, label = "written to input", inputs[users.index(str(spec.target))]
        else:
            kind, label = "written to state", str(spec.target)
        ports.append(Port(f"to{i}", kind, label, (spec.arg.name,)))
    return tuple(ports)


def gathered(flow: Flow, most: int) -> Flow:
    """``flow`` with about ``most`` ports a side at most: the commonest kind becomes one port."""
    renamed: dict[str, str] = {}
    sources = _gather(flow, flow.sources, most, renamed)
    sinks = _gather(flow, flow.sinks, most, renamed)
    merged: dict[tuple[str, str], dict[str, Value]] = {}
    for link in flow.links:
        pair = renamed.get(link.source, link.source), renamed.get(link.target, link.target)
        merged.setdefault(pair, {}).update((v.name, v) for v in link.values)
    links = tuple(Link(a, b, tuple(values.values())) for (a, b), values in merged.items())
    return Flow(flow.values, sources, sinks, links)


def _gather(
    flow: Flow, ports: tuple[Port, ...], most: int, renamed: dict[str, str]
) -> tuple[Port, ...]:
    while len(ports) > most:
        kinds = [p.kind for p in ports]
        kind = max(dict.fromkeys(kinds), key=kinds.count)
        chosen = [p for p in ports if p.kind == kind]
        if len(chosen) == 1:
            break
        names = tuple(name for p in chosen for name in p.values)
        one = Port(f"{chosen[0].id}-all", kind, f"{len(chosen)} tensors", names)
        renamed.update((p.id, one.id) for p in chosen)
        ports = tuple(
            one if p is chosen[0] else p for p in ports if p is chosen[0] or p.kind != kind
        )
    return ports
