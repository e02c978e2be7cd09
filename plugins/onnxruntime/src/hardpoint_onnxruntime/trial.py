"""Single nodes, each tried once on ONNX Runtime: translated, opened, run, compared with eager.

Translating a node and opening its model takes 2 ms; what costs is decomposing, so that is done for
all nodes of a question at once. What a trial finds cannot go stale with versions, as a table would.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Graph, Node

from hardpoint_onnxruntime import exporter
from hardpoint_onnxruntime.origin import in_words
from hardpoint_onnxruntime.values import zeros


@dataclass(frozen=True, eq=False)
class Piece:
    """One node with the scalars that it uses, as a graph of its own.

    :param node: in the program that was asked about.
    :param graph: placeholders are the tensors that it takes.
    :param sources: of each placeholder, the node of the program.
    """

    node: Node
    graph: Graph
    sources: tuple[Node, ...]

    @property
    def results(self) -> tuple[Node, ...]:
        """What it gives."""
        return tuple(self.graph.output_node().args[0])  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Trial:
    """A piece, ready to be translated.

    :param program: it, decomposed; its placeholders are inputs.
    :param feeds: of each: which of the piece's it is; or a value: a constant that the decomposition
        made, or zeros for a tensor of another piece, of which only the sizes are used.
    """

    piece: Piece
    program: ExportedProgram
    feeds: tuple[int | torch.Tensor, ...]


def is_scalar(node: Node) -> bool:
    """Whether ``node`` gives a number."""
    return not isinstance(node.meta.get("val"), (torch.Tensor, list, tuple, type(None)))


def cut(node: Node) -> Piece:
    """``node`` as a piece.

    :raises ValueError: it gives no tensor.
    """
    graph = Graph()
    copies: dict[Node, Node] = {}
    sources: list[Node] = []
    _placeholders(node, graph, copies, sources, set())
    made = _copied(node, graph, copies)
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        results = [made]
    else:
        results = list(_picked(node, made, graph))
        if not results:
            raise ValueError(f"it gives {type(value).__name__}, not tensors")
    graph.output(tuple(results))
    return Piece(node, graph, tuple(sources))


def _placeholders(
    node: Node, graph: Graph, copies: dict[Node, Node], sources: list[Node], seen: set[Node]
) -> None:
    for used in node.all_input_nodes:
        if used in seen:
            continue
        seen.add(used)
        if used.op == "call_function" and is_scalar(used):
            _placeholders(used, graph, copies, sources, seen)
            continue
        made = graph.placeholder(f"in{len(sources)}_{used.name}")
        made.meta = {"val": used.meta["val"]}
        copies[used] = made
        sources.append(used)


def _copied(node: Node, graph: Graph, copies: dict[Node, Node]) -> Node:
    if node not in copies:
        made = graph.node_copy(node, lambda used: _copied(used, graph, copies))
        made.meta = {"val": node.meta["val"]}
        copies[node] = made
    return copies[node]


def _picked(node: Node, made: Node, graph: Graph) -> Iterator[Node]:
    """The tensors among several results that the program uses; all, where it uses none."""
    value = node.meta.get("val")
    if not isinstance(value, (tuple, list)):
        return
    picks = [u for u in node.users if u.target is operator.getitem and u.users]
    used = {int(u.args[1]) for u in picks}  # type: ignore[arg-type]
    tensors = [i for i, item in enumerate(value) if isinstance(item, torch.Tensor)]
    for i in [i for i in tensors if i in used] or tensors:
        picked = graph.call_function(operator.getitem, (made, i))
        picked.meta = {"val": value[i]}
        yield picked


def decomposed(
    pieces: Sequence[Piece], like: ExportedProgram, failed: Callable[[Piece, str], None]
) -> Iterator[Trial]:
    """Each piece as a decomposed program of its own; those that cannot be are told ``failed``."""
    if not pieces:
        return
    whole = Graph()
    ends: list[Node] = []
    spans: list[slice] = []
    copies: list[dict[Node, Node]] = []
    for i, piece in enumerate(pieces):  # a program's placeholders come first
        copies.append({})
        for node in piece.graph.nodes:
            if node.op == "placeholder":
                made = whole.placeholder(f"p{i}_{node.name}")
                made.meta = dict(node.meta)
                copies[i][node] = made
    for i, piece in enumerate(pieces):
        for node in piece.graph.nodes:
            if node.op == "call_function":
                made = whole.node_copy(node, copies[i].__getitem__)
                made.meta = dict(node.meta)
                copies[i][node] = made
        spans.append(slice(len(ends), len(ends) + len(piece.results)))
        ends += [copies[i][result] for result in piece.results]
    whole.output(tuple(ends))
    try:
        made_program = exporter.decompose(exporter.program_of(whole, like))
        _refuse_effects(made_program)
    except Exception as error:
        if len(pieces) == 1:
            failed(pieces[0], in_words(error, 200))
            return
        half = len(pieces) // 2  # one that cannot be must not take the others along
        yield from decomposed(pieces[:half], like, failed)
        yield from decomposed(pieces[half:], like, failed)
        return
    results = made_program.graph.output_node().args[0]
    owners = _owners(pieces, made_program)
    for piece, span in zip(pieces, spans, strict=True):
        ends = results[span]
        if not all(isinstance(end, Node) for end in ends):
            failed(piece, "its result is no tensor that is computed")
            continue
        yield _slice(piece, made_program, ends, owners)


def _refuse_effects(program: ExportedProgram) -> None:
    """Some decompose into a check that raises where data is unfit (``linalg.inv``)."""
    if any(spec.kind is InputKind.TOKEN for spec in program.graph_signature.input_specs):
        raise ValueError("it checks its data, and ONNX has no operator that raises")


def _owners(
    pieces: Sequence[Piece], program: ExportedProgram
) -> dict[Node, tuple[Piece, int] | torch.Tensor]:
    """Each placeholder of the decomposed whole: whose it is; or the constant that it holds."""
    order = iter([(owner, i) for owner in pieces for i in range(len(owner.sources))])
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    found: dict[Node, tuple[Piece, int] | torch.Tensor] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            spec = specs[node.name]
            own = spec.kind is InputKind.USER_INPUT
            found[node] = next(order) if own else program.constants[str(spec.target)]
    return found


def _slice(
    piece: Piece,
    program: ExportedProgram,
    results: Sequence[Node],
    owners: Mapping[Node, tuple[Piece, int] | torch.Tensor],
) -> Trial:
    """What ``results`` are made of, and nothing else."""
    needed: set[Node] = set()
    todo = list(results)
    while todo:
        node = todo.pop()
        if node not in needed:
            needed.add(node)
            todo.extend(node.all_input_nodes)
    graph = Graph()
    copies: dict[Node, Node] = {}
    given: list[int | torch.Tensor] = []
    for node in program.graph.nodes:
        if node in needed:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].meta = dict(node.meta)
            if node.op == "placeholder":
                owner = owners[node]
                if isinstance(owner, torch.Tensor):
                    given.append(owner)
                else:
                    given.append(owner[1] if owner[0] is piece else zeros(node.meta["val"]))
    graph.output(tuple(copies[r] for r in results))
    return Trial(piece, exporter.program_of(graph, program), tuple(given))
