"""Which nodes of a program run here, and why the others do not."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves

from hardpoint import Support
from hardpoint.planning import compute_nodes
from hardpoint_onnxruntime.measure import Open, verdict
from hardpoint_onnxruntime.refuse import refusal
from hardpoint_onnxruntime.trial import Piece, cut, decomposed
from hardpoint_onnxruntime.weights import held_weights

REMEMBERED = 4096


class Judge:
    """Answers for one device; remembers what it tried.

    :param open_model: bytes of an ONNX model -> a session on the device.
    """

    def __init__(self, open_model: Open) -> None:
        self._open = open_model
        self._known: OrderedDict[object, str | None] = OrderedDict()
        self._lock = threading.Lock()

    def support(self, program: ExportedProgram) -> Support:
        """Every compute node of ``program``, tried alone, each sort of them once."""
        weights = held_weights(program)
        reasons: dict[str, str] = {}
        names: list[str] = []
        keys: dict[str, object] = {}
        pieces: dict[object, Piece] = {}
        answers: dict[object, str | None] = {}
        for node in compute_nodes(program):
            names.append(node.name)
            reason = refusal(node)
            if reason is None:
                key = keys[node.name] = self._key(node, program, weights)
                if key in answers or key in pieces:
                    continue
                with self._lock:
                    if key in self._known:
                        self._known.move_to_end(key)
                        answers[key] = self._known[key]
                        continue
                try:
                    pieces[key] = cut(node)
                except ValueError as error:
                    reason = str(error)
                    del keys[node.name]
            if reason is not None:
                reasons[node.name] = reason
        answers |= self._try(pieces, program, weights)
        for name, key in keys.items():
            found = answers[key]
            if found is not None:
                reasons[name] = found
        return Support(frozenset(names) - reasons.keys(), reasons)

    def _try(
        self,
        pieces: Mapping[object, Piece],
        program: ExportedProgram,
        weights: Mapping[Node, torch.Tensor],
    ) -> dict[object, str | None]:
        by_piece = {id(piece): key for key, piece in pieces.items()}
        found: dict[object, str | None] = {}

        def failed(piece: Piece, why: str) -> None:
            found[by_piece[id(piece)]] = f"PyTorch's ONNX exporter cannot decompose it ({why})"

        for trial in decomposed(list(pieces.values()), program, failed):
            found[by_piece[id(trial.piece)]] = verdict(trial, weights, self._open)
        with self._lock:
            self._known.update(found)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _key(
        self, node: Node, program: ExportedProgram, weights: Mapping[Node, torch.Tensor]
    ) -> object:
        """Equal for two nodes that one trial answers for."""
        symbols: set[Any] = set()

        def told(used: Node) -> object:
            value = used.meta.get("val")
            for leaf in tree_leaves(value):
                for size in leaf.shape if isinstance(leaf, torch.Tensor) else (leaf,):
                    if hasattr(size, "node") and hasattr(size.node, "expr"):
                        symbols.update(size.node.expr.free_symbols)
            return _Told(_described(value), _known(weights.get(used)))

        arguments = map_arg((node.args, dict(node.kwargs)), told)  # type: ignore[arg-type]
        used = sorted({str(u.args[1]) for u in node.users if len(u.args) > 1 and _picks(u)})
        told(node)
        ranges = sorted((str(s), str(program.range_constraints.get(s))) for s in symbols)
        return (str(node.target), repr(arguments), tuple(used), tuple(ranges))


def _known(weight: torch.Tensor | None) -> str:
    """What of a weight makes a trial another: small integers, which may be places, are exact."""
    if weight is None or weight.is_floating_point() or weight.numel() >= 2**16:
        return str(weight is not None)
    return str(weight.tolist())


class _Told:
    """How a tensor or number stands in a key."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __repr__(self) -> str:
        return f"<{self.parts}>"


def _picks(user: Node) -> bool:
    return getattr(user.target, "__name__", "") == "getitem" and isinstance(user.args[1], int)


def _described(value: object) -> str:
    if isinstance(value, torch.Tensor):
        from torch.fx.experimental.symbolic_shapes import has_free_symbols

        hint = ""
        if has_free_symbols(value):
            from hardpoint_onnxruntime.values import shape_of

            hint = str(shape_of(value))
        return f"{value.dtype}{list(value.shape)}{hint}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_described, value))}]"
    return str(value)
