"""From a recipe to something callable: one straight-line Python function, or a graph module.

The function holds its operators, weights and constants as globals with numbers for names; no text
of the artifact reaches the source. A value is let go of right after its last use, so that memory
peaks no higher than in eager PyTorch.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from hardpoint_cpu.recipe import Recipe, Sub, Value, Weight

Function = Callable[..., tuple[torch.Tensor, ...]]


def function(recipe: Recipe, weights: Mapping[str, torch.Tensor]) -> Function:
    """``recipe`` as a Python function of its inputs.

    :param weights: by name; every name of ``recipe.weights`` must be there.
    """
    space: dict[str, Any] = {f"w{i}": weights[name] for i, name in enumerate(recipe.weights)}
    space |= {f"g{i}": graph_module(sub, {}) for i, sub in enumerate(recipe.graphs)}
    last = _last_uses(recipe)
    lines = []
    for i, step in enumerate(recipe.steps):
        number = recipe.inputs + i
        space[f"o{i}"] = step.function
        parts = [_expression(a, space) for a in step.args]
        for name, value in step.kwargs.items():
            text = _expression(value, space)
            # `from` is an argument of some operators and a keyword of Python.
            parts.append(f"**{{{name!r}: {text}}}" if keyword.iskeyword(name) else f"{name}={text}")
        free = "".join(f"v{v} = " for v in last.get(number, ()))
        tail = f"; {free}None" if free else ""
        lines.append(f"    v{number} = o{i}({', '.join(parts)}){tail}\n")
    inputs = ", ".join(f"v{i}" for i in range(recipe.inputs))
    result = _expression(recipe.outputs, space)
    source = f"def run({inputs}):\n{''.join(lines)}    return {result}\n"
    exec(compile(source, "<hardpoint-cpu graph>", "exec"), space)  # noqa: S102 - source is ours
    made: Function = space["run"]
    return made


def _last_uses(recipe: Recipe) -> dict[int, list[int]]:
    """Number of a step's value -> the values that nothing uses after that step."""
    last: dict[int, int] = {}
    for i, step in enumerate(recipe.steps):
        number = recipe.inputs + i
        last[number] = number  # unused results go at once
        for value in _values([step.args, dict(step.kwargs)]):
            last[value] = number
    for value in _values(recipe.outputs):
        last.pop(value, None)
    freed: dict[int, list[int]] = {}
    for value, number in last.items():
        freed.setdefault(number, []).append(value)
    return freed


def _values(argument: Any) -> set[int]:
    if isinstance(argument, Value):
        return {argument.index}
    if isinstance(argument, dict):
        argument = argument.values()
    elif not isinstance(argument, (list, tuple)):
        return set()
    return {v for inner in argument for v in _values(inner)}


def _expression(argument: Any, space: dict[str, Any]) -> str:
    """``argument`` as source text; what has no safe literal becomes a numbered global."""
    if isinstance(argument, Value):
        return f"v{argument.index}"
    if isinstance(argument, Weight):
        return f"w{argument.index}"
    if isinstance(argument, Sub):
        return f"g{argument.index}"
    if argument is None or isinstance(argument, (bool, int)):
        return repr(argument)
    if isinstance(argument, list):
        return f"[{', '.join(_expression(a, space) for a in argument)}]"
    if isinstance(argument, tuple):
        return f"({''.join(_expression(a, space) + ', ' for a in argument)})"
    if isinstance(argument, dict):
        return f"{{{', '.join(f'{k!r}: {_expression(v, space)}' for k, v in argument.items())}}}"
    name = f"c{len(space)}"
    space[name] = argument
    return name


def graph_module(recipe: Recipe, weights: Mapping[str, torch.Tensor]) -> GraphModule:
    """``recipe`` as a graph module, for compilers and for the bodies of control flow."""
    root = torch.nn.Module()
    graph = Graph()
    values: list[Node] = [graph.placeholder(f"v{i}") for i in range(recipe.inputs)]
    held: list[Node] = []
    for i, name in enumerate(recipe.weights):
        root.register_buffer(f"w{i}", weights[name])
        held.append(graph.get_attr(f"w{i}"))
    subs: list[Node] = []
    for i, sub in enumerate(recipe.graphs):
        setattr(root, f"g{i}", graph_module(sub, {}))
        subs.append(graph.get_attr(f"g{i}"))

    def resolved(argument: Any) -> Any:
        if isinstance(argument, Value):
            return values[argument.index]
        if isinstance(argument, Weight):
            return held[argument.index]
        if isinstance(argument, Sub):
            return subs[argument.index]
        if isinstance(argument, (list, tuple)):
            return type(argument)(resolved(a) for a in argument)
        if isinstance(argument, dict):
            return {k: resolved(v) for k, v in argument.items()}
        return argument

    for step in recipe.steps:
        kwargs = {name: resolved(value) for name, value in step.kwargs.items()}
        values.append(graph.call_function(step.function, resolved(step.args), kwargs))
    graph.output(resolved(recipe.outputs))
    return GraphModule(root, graph)
