"""The state of one lowering: which value each node has, and how rules read and write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from hardpoint_contrib_simnpu.chip import ALIGNMENT, SCRATCHPAD
from hardpoint_contrib_simnpu.emitter import Emitter, Value, blocks, reshaped, window
from hardpoint_contrib_simnpu.isa import Region, dense
from hardpoint_contrib_simnpu.memory import Array
from hardpoint_contrib_simnpu.origin import RefusedError
from hardpoint_contrib_simnpu.quantize import per_channel


class Lowering:
    """Rules turn one node after the other into instructions, with this at hand.

    :param scales: node -> scale of the activation that it multiplies with a weight in int8;
        ``None``: everything in fp16.
    """

    def __init__(self, emitter: Emitter, scales: Mapping[str, float] | None = None) -> None:
        self.emitter = emitter
        self.values: dict[Node, Value] = {}
        # Nodes that could compute in int8 -> the activation that must be calibrated for it.
        self.quantizable: dict[str, Node] = {}
        self._scales = scales
        self._quantized: dict[int, tuple[Array, Region, Region]] = {}

    def region(self, node: Node) -> Region:
        """Where ``node``'s value lies."""
        return self.emitter.region(self.values[node])

    def scale(self, call: Call, activation: Node, weight: Node) -> float | None:
        """The activation's scale if ``call`` is to be computed in int8.

        Only a constant weight can be: its scales are known when compiling.
        """
        if self.values[weight].constant is None:
            return None
        self.quantizable[call.node.name] = activation
        return None if self._scales is None else self._scales[call.node.name]

    def quantized_weight(self, array: Array) -> tuple[Region, Region]:
        """A constant as int8, output channels first, and the scale of each."""
        if id(array) not in self._quantized:
            try:
                steps, scales = per_channel(array)
            except ValueError as error:
                raise RefusedError(str(error)) from error
            stored = self.emitter.weight(steps, "i8", ".i8")
            self._quantized[id(array)] = (
                array, stored, self.emitter.weight(scales, "f32", ".scale")
            )  # fmt: skip
        return self._quantized[id(array)][1:]

    def quantized(self, node: Node, scale: float) -> Region:
        """An activation as int8, in memory that the caller gives back: ``release``."""
        view, emitter = self.region(node), self.emitter
        flat = reshaped(view, (view.elements,))
        out = dense("dram", emitter.dram.take(view.elements), "i8", flat.shape)
        for starts, sizes in blocks(flat.shape, (SCRATCHPAD - 2 * ALIGNMENT) // 3):
            mark = emitter.mark()
            tile = emitter.load(window(flat, starts, sizes))
            result = emitter.emit("QUANT", emitter.tile(sizes, "i8"), tile, numbers=(scale,))
            emitter.emit("STORE", window(out, starts, sizes), result)
            emitter.release(mark)
        return reshaped(out, view.shape)

    def release(self, region: Region) -> None:
        """Give back the memory of :meth:`quantized`."""
        self.emitter.dram.give_back(region.address)

    def copy(self, view: Region) -> Value:
        """A value of its own with the elements of ``view``, which may have any strides."""
        emitter, made = self.emitter, self.emitter.new(view.shape)
        out = emitter.region(made)
        for starts, sizes in blocks(view.shape, (SCRATCHPAD - ALIGNMENT) // 2):
            mark = emitter.mark()
            emitter.emit(
                "STORE", window(out, starts, sizes), emitter.load(window(view, starts, sizes))
            )
            emitter.release(mark)
        return made


@dataclass(frozen=True, slots=True)
class Call:
    """One node with its arguments by name, defaults filled in.

    :param shape: of its result.
    """

    node: Node
    arguments: Mapping[str, Any]
    shape: tuple[int, ...]

    def tensor(self, name: str) -> Node:
        """Argument ``name``, which is a tensor.

        :raises RefusedError: it is something else.
        """
        value = self.arguments[name]
        if not isinstance(value, Node):
            raise RefusedError(f"its argument {name} is {value!r}, not a tensor")
        return value


Rule = Callable[[Lowering, Call], Value]


def call_of(node: Node) -> Call:
    """``node`` as its rule sees it.

    :raises RefusedError: an argument is a size known only when the program runs.
    """
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    found: dict[str, Any] = {}
    for i, argument in enumerate(target._schema.arguments):
        default = argument.default_value
        value = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name, default)
        found[argument.name] = value
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, Node) and not isinstance(part.meta["val"], torch.Tensor):
                raise RefusedError(
                    f"its argument {argument.name} is known only when it runs; the chip's "
                    "programs are static"
                )
    return Call(node, found, tuple(int(size) for size in node.meta["val"].shape))
