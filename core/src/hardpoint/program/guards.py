"""What a program assumes of its inputs' sizes: the ways its Python code took when it was traced.

``if x.shape[0] % 2 == 0`` is decided once, at capture. ``torch.export`` records the decision as a
line of Python (a *guard*) and checks it in its own ``program.module()``, which we do not use: a
segment has no guards. So they are read here, kept as data, and checked at every call's entry.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from hardpoint.errors import CaptureError
from hardpoint.program import dims
from hardpoint.program.dims import Dim

Ranges = Mapping[str, tuple[int, int | None]]

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=",
}  # fmt: skip
_CALLS = {
    "min": "min", "Min": "min", "max": "max", "Max": "max", "Mod": "%", "PythonMod": "%",
    "FloorDiv": "//", "CleanDiv": "//",
}  # fmt: skip


def read_guards(
    exported: ExportedProgram, shapes: Sequence[Sequence[Dim]], ranges: Ranges
) -> tuple[Dim, ...]:
    """The guards that say more than shapes and ranges do, as conditions on our size names.

    :param shapes: of the user inputs, in order; empty for one that is no tensor.
    :raises CaptureError: a guard on something else than sizes, or that cannot be described.
    """
    names = size_names(exported, shapes)
    found = []
    for line in exported._guards_code:
        try:
            guard = _read(ast.parse(line, mode="eval").body, names)
        except dims.DimError as error:
            raise CaptureError(
                "the model decides by something that cannot be checked at a call",
                cause=f"{line}: {error.what}",
                remedy="leave the size concerned out of dynamic=",
            ) from error
        if not _implied(guard, ranges):
            found.append(guard)
    return tuple(dict.fromkeys(found))


def inherited_guards(
    exported: ExportedProgram, shapes: Sequence[Sequence[Dim]], ranges: Ranges
) -> tuple[Dim, ...]:
    """All that ``exported`` assumes of sizes, for a program that was captured from it anew.

    Tracing a program again finds only what its operators assume, not what its author's Python did.

    :param shapes: of the new program's inputs: the same inputs, empty for one that is no tensor.
    :raises CaptureError: see :func:`read_guards`.
    """
    homes: dict[str, Dim] = {}
    equal: list[tuple[Dim, torch.SymInt | int]] = []
    users = set(exported.graph_signature.user_inputs)
    values = [n.meta.get("val") for n in exported.graph.nodes if n.name in users]
    fakes = [v for v in values if isinstance(v, torch.Tensor) and v.dim()]
    for fake, shape in zip(fakes, (s for s in shapes if s), strict=True):
        for size, new in zip(fake.shape, shape, strict=True):
            expr = None if isinstance(size, int) else size.node.expr
            if expr is not None and expr.is_Symbol and str(expr) not in homes:
                homes[str(expr)] = new
            else:
                equal.append((new, size))
    found: list[Dim] = [
        ("==", new, size if isinstance(size, int) else dims.from_sympy(size.node.expr, homes))
        for new, size in equal
    ]
    for symbol, bounds in exported.range_constraints.items():
        home = homes.get(str(symbol))
        if home is None:
            continue
        if bounds.lower > 2:  # 2 stands for "unknown": torch checks no smaller bound either
            found.append(("<=", int(bounds.lower), home))
        if bounds.upper.is_Integer:
            found.append(("<=", home, int(bounds.upper)))
    kept = [guard for guard in found if not _implied(guard, ranges)]
    return tuple(dict.fromkeys([*kept, *read_guards(exported, shapes, ranges)]))


def size_names(exported: ExportedProgram, shapes: Sequence[Sequence[Dim]]) -> dict[str, Dim]:
    """How a guard's Python spells each input's sizes -> the size.

    The same rules as torch's ``_convert_guards_code_to_fn``: by the forward method's parameter
    and the path in it, or by position (strict mode).
    """
    call = exported.module_call_graph[0].signature
    spec = exported.call_spec.in_spec
    parameters = list((call.forward_arg_names if call else None) or ())
    numbered = pytree.tree_unflatten(list(range(len(shapes))), spec)
    names: dict[str, Dim] = {}
    for path, index in pytree.tree_flatten_with_path(numbered)[0]:
        where, root, inner = path[0], path[1], pytree.keystr(path[2:])
        spellings = [f"L['flat_args'][{index}]"]
        if where == pytree.SequenceKey(1):
            spellings.append(f"L{pytree.keystr(path[1:])}")
        elif isinstance(root, pytree.SequenceKey) and root.idx < len(parameters):
            name = parameters[root.idx]
            spellings.append(f"L['{name}']{inner}")
            stem, _, number = name.rpartition("_")
            if number.isdigit():  # of *stem
                spellings.append(f"L['{stem}'][{number}]{inner}")
        for spelling in spellings:
            for dim, size in enumerate(shapes[index]):
                names[_plain(f"{spelling}.size()[{dim}]")] = size
    return names


def _plain(code: str) -> str:
    return ast.unparse(ast.parse(code, mode="eval"))


def _read(node: ast.expr, names: Mapping[str, Dim]) -> Dim:
    known = names.get(ast.unparse(node))
    if known is not None:
        return known
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return int(node.value)
    if isinstance(node, ast.BinOp):
        left, right = _read(node.left, names), _read(node.right, names)
        if isinstance(node.op, ast.Sub):
            return ("+", left, ("*", -1, right))
        if type(node.op) in _BINARY:
            return (_BINARY[type(node.op)], left, right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        operand = _read(node.operand, names)
        return ("==", operand, 0) if isinstance(node.op, ast.Not) else ("*", -1, operand)
    if isinstance(node, ast.BoolOp):
        operator = "and" if isinstance(node.op, ast.And) else "or"
        return _chain(operator, [_read(v, names) for v in node.values])
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, right = _read(node.left, names), _read(node.comparators[0], names)
        if isinstance(node.ops[0], (ast.Gt, ast.GtE)):
            return ("<" if isinstance(node.ops[0], ast.Gt) else "<=", right, left)
        if type(node.ops[0]) in _COMPARE:
            return (_COMPARE[type(node.ops[0])], left, right)
    if isinstance(node, ast.Call) and ast.unparse(node.func) in _CALLS and len(node.args) > 1:
        return _chain(_CALLS[ast.unparse(node.func)], [_read(a, names) for a in node.args])
    raise dims.DimError(f"{ast.unparse(node)!r} is no expression of sizes")


def _chain(operator: str, operands: Sequence[Dim]) -> Dim:
    result = operands[0]
    for operand in operands[1:]:
        result = (operator, result, operand)
    return result


def tighten(
    guards: Sequence[Dim], ranges: Ranges
) -> tuple[tuple[Dim, ...], dict[str, tuple[int, int | None]]]:
    """Guards that bound one size become part of its range; what the ranges imply then is dropped.

    Ranges are worth more than guards: compilers read them, and people too.
    """
    found = dict(ranges)
    for guard in guards:
        bound = _bound(guard)
        if bound is not None:
            name, low, high = bound
            least, greatest = found.get(name, (0, None))
            ends = [end for end in (greatest, high) if end is not None]
            found[name] = (max(least, low), min(ends, default=None))
    return tuple(g for g in guards if not _implied(g, found)), found


def _bound(guard: Dim) -> tuple[str, int, int | None] | None:
    """(size, least, greatest) that ``guard`` demands, if it bounds one size by numbers."""
    if not isinstance(guard, tuple):
        return None
    operator, left, right = guard
    step = {"<": 1, "<=": 0}.get(str(operator))
    if step is None:
        return None
    if isinstance(left, str) and isinstance(right, int):
        return left, 0, right - step
    if isinstance(left, int) and isinstance(right, str):
        return right, left + step, None
    return None


def _simplify(dim: Dim, ranges: Ranges) -> Dim:
    """``min(512, seq)`` is ``seq`` where ``seq`` is at most 512; likewise ``max``."""
    if not isinstance(dim, tuple):
        return dim
    operator, left, right = dim[0], _simplify(dim[1], ranges), _simplify(dim[2], ranges)
    for number, name in ((left, right), (right, left)):
        if isinstance(number, int) and isinstance(name, str):
            least, greatest = ranges.get(name, (0, None))
            if operator == "min" and greatest is not None and greatest <= number:
                return name
            if operator == "max" and least >= number:
                return name
    return (operator, left, right)


def _implied(guard: Dim, ranges: Ranges) -> bool:
    """Whether sizes within their ranges always satisfy ``guard``; false where that is not plain."""
    guard = _simplify(guard, ranges)
    if not isinstance(guard, tuple):
        return isinstance(guard, int) and guard != 0
    operator, left, right = guard
    if operator in ("or", "and"):
        sides = (_implied(left, ranges), _implied(right, ranges))
        return any(sides) if operator == "or" else all(sides)
    if left == right:
        return operator in ("==", "<=")
    if isinstance(left, int) and isinstance(right, int):
        return bool(dims.evaluate(guard, {}))
    if isinstance(left, int) and isinstance(right, str):
        least = ranges.get(right, (0, None))[0]
        return {"<": left < least, "<=": left <= least, "!=": left < least}.get(
            str(operator), False
        )
    if isinstance(left, str) and isinstance(right, int):
        least, greatest = ranges.get(left, (0, None))
        below = greatest is not None and greatest < right
        at_most = greatest is not None and greatest <= right
        return {"<": below, "<=": at_most, "!=": below or right < least}.get(str(operator), False)
    return False
