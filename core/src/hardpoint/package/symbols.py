"""Symbolic sizes and guards of a stored program, read without ``eval``.

PyTorch's own reader hands each size expression of a file to ``sympy.sympify``, which evaluates
whatever Python stands there (torch 2.13, ``_export/serde/serialize.py``, ``_parse_sym_expr``), and
a program with example inputs puts each guard into a function that it compiles with ``exec``
(``export/_unlift.py``, ``_convert_guards_code_to_fn``). Here an expression is built from its syntax
tree, node by node, from a closed list of functions; a guard is refused unless it is plain
arithmetic on the sizes of the inputs.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import sympy
from torch.utils._sympy import functions as torch_functions

from hardpoint.package.refusal import MalformedError

MAX_LENGTH = 20_000
_INT_LIMIT = 1 << 63
# Numbers of unbacked symbols are counted up to one by one when a program is read.
_SYMBOL = re.compile(r"[A-Za-z_]{1,16}[0-9]{0,6}")
_PRINTED = re.compile(r"[A-Za-z0-9_+*/%(), .-]{1,1000}")
_MANY_DIGITS = re.compile(r"[A-Za-z_][0-9]{7}")
_KEY = re.compile(r"[A-Za-z0-9_.]{1,200}")
# Their second argument must be a small literal: 9 ** 9 ** 9 would never end.
_GROWING = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift", "RShift"})
_MAX_EXPONENT = 64

_FROM_SYMPY = (
    "Add Mul Pow Max Min Mod floor ceiling Abs And Or Not Equality Unequality LessThan GreaterThan "
    "StrictLessThan StrictGreaterThan"
)
_FROM_TORCH = (
    "FloorDiv ModularIndexing Where PythonMod Mod CleanDiv CeilToInt FloorToInt CeilDiv LShift "
    "RShift PowByNatural FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator "
    "TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat Identity Max Min OpaqueUnaryFn_sqrt "
    "OpaqueUnaryFn_exp OpaqueUnaryFn_log2 BitwiseFn_bitwise_and BitwiseFn_bitwise_or"
)
# The torch functions come second: where both have a name (Mod, Max, Min), PyTorch means its own.
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(sympy, name) for name in _FROM_SYMPY.split()},
    **{name: getattr(torch_functions, name) for name in _FROM_TORCH.split()},
}
_CONSTANTS: Mapping[str, Any] = {
    "true": sympy.true,
    "false": sympy.false,
    "oo": sympy.oo,
    "zoo": sympy.zoo,
    "nan": sympy.nan,
}
_ASSUMPTIONS = frozenset(
    {"positive", "integer", "nonnegative", "real", "zero", "finite", "nonzero"}
)
_GUARD_FUNCTIONS = frozenset(
    {
        *_FUNCTIONS,
        *("Eq", "Ne", "Gt", "Lt", "Ge", "Le", "bool", "int", "float", "max", "min", "abs"),
    }
)
_GUARD_METHODS = frozenset({"size", "stride", "storage_offset", "ndimension"})
_GUARD_MATH = frozenset({"ceil", "floor", "trunc", "sqrt", "pow"})
_GUARD_SYNTAX = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, ast.Add, ast.Sub),
    *(ast.Mult, ast.FloorDiv, ast.Div, ast.Mod, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE),
    *(ast.Gt, ast.GtE, ast.Is, ast.IsNot, ast.Load),
)


def symbol_name(text: str) -> str:
    """``text``, which is the name of a symbolic size.

    :raises MalformedError: it is not.
    """
    if not _SYMBOL.fullmatch(text):
        raise MalformedError(f"{text!r:.100} is not the name of a symbolic size")
    return text


def range_key(text: str) -> str:
    """``text``, which is the printed form of a size that has a range, e.g. ``s65`` or ``2*s65``.

    It is only looked up, never evaluated.

    :raises MalformedError: it is not.
    """
    if not _PRINTED.fullmatch(text) or _MANY_DIGITS.search(text):
        raise MalformedError(f"{text!r:.100} is not the name of a symbolic size")
    return text


@functools.lru_cache(maxsize=4096)
def expression(text: str) -> sympy.Basic:
    """The expression that ``sympy.srepr`` wrote as ``text``.

    :raises MalformedError: anything but calls of known functions on symbols and numbers.
    """
    try:
        built = _build(_syntax(text))
    except MalformedError:
        raise
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise MalformedError(f"the size expression {text!r:.100} is impossible: {error}") from None
    if not isinstance(built, sympy.Basic):
        raise _bad_expression(text)
    return built


def check_guard(text: str) -> str:
    """``text``, which is a condition on the sizes of the inputs.

    :raises MalformedError: it could do anything else.
    """
    tree = _syntax(text)
    if not isinstance(tree, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Call):
        raise _bad_guard(text)
    _check_guard_node(tree, text)
    return text


def _syntax(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise MalformedError(
            f"a size expression has {len(text)} characters, more than {MAX_LENGTH}"
        )
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _bad_expression(text) from None


def _bad_expression(text: str) -> MalformedError:
    return MalformedError(f"{text!r:.100} is not a size expression")


def _bad_guard(text: str) -> MalformedError:
    return MalformedError(
        f"the guard {text!r:.100} is not a plain condition on the sizes of inputs"
    )


def _build(node: ast.expr) -> Any:
    """The sympy object, or the plain literal, that ``node`` stands for."""
    match node:
        case ast.Constant(value=bool() | None):
            return node.value
        case ast.Constant(value=int() as number) if abs(number) < _INT_LIMIT:
            return number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int())):
            return -_build(node.operand)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str() as name)]):
            return sympy.Symbol(symbol_name(name), **_assumptions(node))
        case ast.Call(func=ast.Name(id="Integer"), args=[whole], keywords=[]):
            return sympy.Integer(_literal(whole))
        case ast.Call(func=ast.Name(id="Rational"), args=[over, under], keywords=[]):
            return sympy.Rational(_literal(over), _literal(under))
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str() as digits)]):
            return sympy.Float(float(digits))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            values = [_build(argument) for argument in args]
            if name in _GROWING:
                _check_exponent(values)
            return _FUNCTIONS[name](*values)
    raise _bad_expression(ast.unparse(node))


def _assumptions(node: ast.Call) -> dict[str, bool | None]:
    found = {}
    for keyword in node.keywords:
        value = _build(keyword.value)
        if keyword.arg not in _ASSUMPTIONS or not (value is None or isinstance(value, bool)):
            raise _bad_expression(ast.unparse(node))
        found[keyword.arg] = value
    return found


def _literal(node: ast.expr) -> int:
    value = _build(node)
    if type(value) is not int:
        raise _bad_expression(ast.unparse(node))
    return value


def _check_exponent(values: list[Any]) -> None:
    number = values[1] if len(values) == 2 else None
    if not (isinstance(number, sympy.Rational) and abs(number) <= _MAX_EXPONENT):
        raise MalformedError(
            "a size expression has an exponent or a shift that is not a small number"
        )


def _check_guard_node(node: ast.AST, text: str) -> None:
    """Walk the condition; ``raise`` on everything that is not on the list."""
    children = list(ast.iter_child_nodes(node))
    match node:
        case ast.Constant(value=bool() | int() | float() | None):
            return
        case ast.Name(id="L" | "inf"):
            return
        case ast.Subscript(
            value=ast.Name() | ast.Subscript() | ast.Call(), slice=ast.Constant() as key
        ):
            if not (isinstance(key.value, int) or _KEY.fullmatch(str(key.value))):
                raise _bad_guard(text)
            children = [node.value]
        case ast.Call(func=ast.Attribute(attr=method, value=ast.Subscript() as owner), args=args):
            if method not in _GUARD_METHODS or node.keywords:
                raise _bad_guard(text)
            children = [owner, *args]
        case ast.Call(func=ast.Attribute(attr=method, value=ast.Name(id="math")), args=args):
            if method not in _GUARD_MATH or node.keywords:
                raise _bad_guard(text)
            children = [*args]
        case ast.Call(func=ast.Name(id=name), args=args):
            if name not in _GUARD_FUNCTIONS or node.keywords:
                raise _bad_guard(text)
            children = [*args]
        case _ if not isinstance(node, _GUARD_SYNTAX):
            raise _bad_guard(text)
    for child in children:
        _check_guard_node(child, text)
