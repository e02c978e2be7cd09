"""The constants of what Inductor compiles ahead of time, by the names that its library gives them.

Inductor gives them back by the program's names, of which two constants may have the same (scales of
quantized activations do), and those in a layout of oneDNN's not at all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._inductor.custom_graph_pass import CustomSchedulerPass
from torch._inductor.virtualized import V


class Lowered(CustomSchedulerPass):
    """Remembers the graph that Inductor makes code of; changes nothing."""

    def __init__(self) -> None:
        self._graph: Any = None

    def __deepcopy__(self, memo: object) -> Lowered:
        """Itself: Inductor copies its configuration, and a copy of a graph corrupts the heap."""
        return self

    def __call__(self, nodes: list[Any]) -> list[Any]:
        """Inductor calls it for the graph, and for each of its sub-graphs."""
        graph: Any = V.graph
        while hasattr(graph, "parent"):
            graph = graph.parent
        self._graph = graph
        return nodes

    def uuid(self) -> Any:
        """None: it is no part of what is compiled. Ahead of time there is no cache to answer."""
        return None

    def constants(self) -> dict[str, tuple[str, torch.Tensor]]:
        """The library's name of each constant -> the program's, and what it is."""
        graph, self._graph = self._graph, None
        return {
            name: (graph.allocated_constant_name[name], graph.get_original_value_of_constant(name))
            for name in graph.constants
            if name not in graph.folded_constants
        }
