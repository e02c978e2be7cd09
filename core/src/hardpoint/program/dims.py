"""Sizes of dynamic dimensions, as small data: an integer, a symbol, or an expression of them.

``torch.export`` writes sizes as sympy expressions. A package must not need sympy to check a call,
and must not evaluate strings from a file, so an expression is a tuple ``(operator, left, right)``.
A condition on sizes is an expression too: 0 means that it does not hold.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, Union

from hardpoint.errors import HardpointError

if TYPE_CHECKING:
    import sympy

Dim: TypeAlias = Union[int, str, tuple["str | Dim", ...]]  # noqa: UP007 - recursive
MAX_DEPTH = 32
# No tensor is larger; expressions from a file must not make numbers that fill the memory.
MAX_SIZE = 2**63

_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b if 0 <= b <= 8 else _refuse(f"exponent {b}"),
    "min": min,
    "max": max,
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "<": lambda a, b: int(a < b),
    "<=": lambda a, b: int(a <= b),
    "and": lambda _, b: int(bool(b)),
    "or": lambda _, b: int(bool(b)),
}
_CALLS = ("min", "max")
_WORDS = ("==", "!=", "<", "<=", "and", "or")
_SYMPY = {
    "Add": "+", "Mul": "*", "FloorDiv": "//", "CleanDiv": "//", "Mod": "%", "PythonMod": "%",
    "Pow": "**", "Min": "min", "Max": "max",
}  # fmt: skip


class DimError(HardpointError):
    """A size expression that cannot be described or evaluated."""


def _refuse(what: str) -> int:
    raise DimError(f"a size expression holds {what}")


def from_sympy(expr: sympy.Expr, names: Mapping[str, Dim]) -> Dim:
    """Describe a sympy size; ``names`` maps sympy's symbols to ours.

    :raises DimError: an operator outside ``+ * // % ** min max``.
    """
    if expr.is_Integer:
        return int(expr)
    if expr.is_Symbol:
        return names.get(str(expr), str(expr))
    operator = _SYMPY.get(type(expr).__name__)
    if operator is None or len(expr.args) < 2:
        raise DimError(f"a size is {expr}, which hardpoint cannot describe")
    result = from_sympy(expr.args[0], names)
    for argument in expr.args[1:]:
        result = (operator, result, from_sympy(argument, names))
    return result


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The size, given its symbols' sizes.

    :raises KeyError: an unknown symbol. :raises DimError: a division by zero or a huge number.
    """
    if isinstance(dim, int):
        return dim
    if isinstance(dim, str):
        return sizes[dim]
    operator, left, right = dim
    a = evaluate(left, sizes)
    if operator in ("and", "or") and bool(a) is (operator == "or"):
        return int(bool(a))  # as in Python, the right side may make sense only otherwise
    b = evaluate(right, sizes)
    if operator in ("//", "%") and b == 0:
        raise DimError(f"{render(dim)} divides by zero")
    result = _OPERATORS[str(operator)](a, b)
    return result if -MAX_SIZE < result < MAX_SIZE else _refuse("a number that is no size")


def symbols(dim: Dim) -> frozenset[str]:
    """The symbols that stand in it."""
    if isinstance(dim, tuple):
        _, left, right = dim
        return symbols(left) | symbols(right)
    return frozenset([dim] if isinstance(dim, str) else ())


def render(dim: Dim) -> str:
    """For people: ``batch``, ``2*seq``."""
    if not isinstance(dim, tuple):
        return str(dim)
    operator, left, right = dim
    if operator in _CALLS:
        return f"{operator}({render(left)}, {render(right)})"
    sides = [f"({render(s)})" if isinstance(s, tuple) else render(s) for s in (left, right)]
    return f" {operator} ".join(sides) if operator in _WORDS else str(operator).join(sides)


def from_json(data: object, depth: int = 0) -> Dim:
    """Read a size from a file that nobody vouches for.

    :raises DimError: it is not what ``json`` makes of a :data:`Dim`.
    """
    if type(data) is int and -MAX_SIZE < data < MAX_SIZE:
        return data
    if isinstance(data, str) and data.isidentifier():
        return data
    if isinstance(data, list) and len(data) == 3 and depth < MAX_DEPTH:
        operator, left, right = data
        if isinstance(operator, str) and operator in _OPERATORS:
            return (operator, from_json(left, depth + 1), from_json(right, depth + 1))
    raise DimError(f"a size is malformed: {reprlib.repr(data)}")
