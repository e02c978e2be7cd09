"""Size expressions are data: evaluated, shown, written to JSON, and read from files with care."""

from __future__ import annotations

import ast
import json

import pytest
import sympy
from hypothesis import given, settings, strategies as st

from hardpoint.program import dims
from splitting import bounded

OPERATORS = ("+", "*", "//", "%", "min", "max", "==", "!=", "<", "<=", "and", "or")
expressions = st.recursive(
    st.integers(-100, 100) | st.sampled_from(["batch", "seq"]),
    lambda inner: st.tuples(st.sampled_from(OPERATORS), inner, inner),
    max_leaves=12,
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@settings(bounded, max_examples=200)
@given(expressions)
def test_an_expression_survives_json(expression):
    assert dims.from_json(json.loads(json.dumps(expression))) == expression


class Truths(ast.NodeTransformer):
    """Python's ``and`` and ``or`` give an operand; ours give true or false."""

    def visit_BoolOp(self, node):
        self.generic_visit(node)
        return ast.Call(ast.Name("bool", ast.Load()), [node], [])


def truths(code):
    return ast.unparse(ast.fix_missing_locations(Truths().visit(ast.parse(code, mode="eval"))))


@settings(bounded, max_examples=200)
@given(expressions, st.integers(1, 50), st.integers(1, 50))
def test_an_expression_evaluates_as_python_shows_it(expression, batch, seq):
    sizes = {"batch": batch, "seq": seq}
    try:
        want = eval(truths(dims.render(expression)), {"min": min, "max": max}, sizes)  # ours
    except ZeroDivisionError:
        with pytest.raises(dims.DimError, match="divides by zero"):
            dims.evaluate(expression, sizes)
        return
    except SyntaxError:
        pytest.fail(dims.render(expression))
    got = dims.evaluate(expression, sizes)
    if isinstance(expression, tuple) and expression[0] in ("and", "or", "==", "!=", "<", "<="):
        assert bool(got) is bool(want)


@settings(bounded, max_examples=300)
@given(anything)
def test_whatever_a_file_holds_is_read_or_refused_with_one_error(data):
    try:
        read = dims.from_json(data)
    except dims.DimError as error:
        assert "malformed" in str(error)
    else:
        assert json.loads(json.dumps(read)) == data


@pytest.mark.parametrize(
    "hostile",
    [True, 1.0, None, "a b", "__import__('os')", [], ["+"], ["^", 1, 2], [[], 1, 2], [{}, 1, 2],
     ["+", 1, 2, 3], 2**70, -(2**70), {"+": [1, 2]}],
)  # fmt: skip
def test_what_is_no_size_is_refused(hostile):
    with pytest.raises(dims.DimError, match="a size is malformed"):
        dims.from_json(hostile)


def test_an_expression_nested_without_end_is_refused():
    deep: object = 1
    for _ in range(1000):
        deep = ["+", deep, 1]
    with pytest.raises(dims.DimError):
        dims.from_json(deep)


def test_an_expression_cannot_fill_the_memory():
    bomb: dims.Dim = 10
    for _ in range(20):
        bomb = ("**", bomb, 8)
    with pytest.raises(dims.DimError, match="a number that is no size"):
        dims.evaluate(bomb, {})
    with pytest.raises(dims.DimError, match="exponent 9"):
        dims.evaluate(("**", 2, 9), {})


def test_both_sides_of_a_condition_are_not_needed_where_one_decides():
    division = ("%", "batch", 0)
    assert dims.evaluate(("or", ("==", "batch", 3), division), {"batch": 3}) == 1
    assert dims.evaluate(("and", ("==", "batch", 4), division), {"batch": 3}) == 0


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (4, "4"), ("batch", "batch"), (("*", 2, "seq"), "2*seq"),
        (("//", ("+", "seq", 1), 2), "(seq+1)//2"), (("min", "seq", 40), "min(seq, 40)"),
        (("==", ("%", "batch", 2), 0), "(batch%2) == 0"),
    ],
)  # fmt: skip
def test_an_expression_reads_like_python(expression, text):
    assert dims.render(expression) == text


def test_sympy_sizes_are_described_in_our_names():
    s0, s1 = sympy.symbols("s0 s1", integer=True, positive=True)
    names = {"s0": "batch", "s1": "seq"}
    assert dims.from_sympy(s0, names) == "batch"
    assert dims.from_sympy(sympy.Integer(3), names) == 3
    for size in (2 * s0 + s1 - 1, s0 * s1, s0**2 + 3):
        described = dims.from_sympy(size, names)
        want = int(size.subs({s0: 5, s1: 7}))
        assert dims.evaluate(described, {"batch": 5, "seq": 7}) == want


def test_a_size_that_cannot_be_described_is_an_error_that_shows_it():
    s0 = sympy.Symbol("s0", positive=True)
    with pytest.raises(dims.DimError, match=r"a size is sqrt\(s0\)|a size expression|1/2"):
        dims.from_sympy(sympy.sqrt(s0), {})
