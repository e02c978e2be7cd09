"""The file ``graph.json``: complete for every kind of argument, and safe to read from anywhere."""

from __future__ import annotations

import json
import math

import pytest
import sympy
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch.fx import Graph

from hardpoint import ArtifactError, CompileError
from hardpoint_cpu import emit, recipe, shapes, wire, wire_read
from hardpoint_cpu.operators import Operators
from hardpoint_cpu.segment import Segment

OPERATORS = Operators()
ADD = {"inputs": 1, "ops": ["aten.add.Tensor"], "nodes": [[0, [{"v": 0}, 1]]],
       "outputs": [{"v": 1}], "graphs": [], "format": 1, "weights": []}  # fmt: skip


def read(data: object) -> recipe.Recipe:
    return wire_read.decode(json.dumps(data).encode(), OPERATORS)


def carried(argument: object) -> object:
    """``argument`` after writing and reading, as the one argument of a node."""
    graph = Graph()
    graph.output((graph.call_function(torch.ops.aten.add.Tensor, (argument,)),))
    return wire_read.decode(wire.encode(Segment(graph), OPERATORS), OPERATORS).steps[0].args[0]


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(),
    st.complex_numbers(allow_nan=False),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64]),
    st.sampled_from([torch.strided, torch.contiguous_format, torch.channels_last]),
    st.just(torch.device("cpu")),
)  # fmt: skip
ARGUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    max_leaves=12,
)


def _plain(argument: object) -> object:
    """fx keeps lists and dicts in classes of its own; they compare equal to the plain ones."""
    if isinstance(argument, tuple):
        return tuple(_plain(a) for a in argument)
    if isinstance(argument, list):
        return [_plain(a) for a in argument]
    if isinstance(argument, dict):
        return {k: _plain(v) for k, v in argument.items()}
    return argument


@given(ARGUMENTS)
@settings(max_examples=200, deadline=None)
def test_every_kind_of_argument_comes_back_equal_and_of_its_own_type(argument):
    found = carried(argument)
    assert _plain(found) == argument
    assert type(_plain(found)) is type(argument)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 5e-324])
def test_odd_floats_come_back_as_they_were(value):
    found = carried(value)
    assert math.isnan(found) if math.isnan(value) else found == value
    assert math.copysign(1, found) == math.copysign(1, value) or math.isnan(value)


def test_a_file_that_was_written_by_hand_runs():
    run = emit.function(read(ADD), {})
    assert run(torch.tensor(2))[0] == 3


def test_an_argument_named_like_a_keyword_is_passed():
    data = {**ADD, "ops": ["aten.random.from"], "nodes": [[0, [{"v": 0}], {"from": 3, "to": 4}]]}
    assert emit.function(read(data), {})(torch.zeros(2))[0].tolist() == [3, 3]


def test_a_value_is_let_go_after_its_last_use():
    data = {**ADD, "nodes": [[0, [{"v": 0}, 1]], [0, [{"v": 1}, 1]]],
            "outputs": [{"v": 2}]}  # fmt: skip
    assert emit._last_uses(read(data)) == {1: [0], 2: [1]}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"ops": ["os.system"]}, "'os.system' names no operator"),
        ({"ops": ["builtins.eval"]}, "'builtins.eval' names no operator"),
        ({"ops": ["builtins.eval.default"]}, "is a custom operator of 'builtins'"),
        ({"ops": ["aten.from_file.default"]}, "aten.from_file.default reads files"),
        ({"ops": ["aten.__class__.mro"]}, "names no operator"),
        ({"ops": ["aten.no_such_thing.default"]}, "has no operator 'aten.no_such_thing.default'"),
        ({"ops": ["higher_order.out_dtype"]}, "'higher_order.out_dtype' names no operator"),
        ({"ops": ["torchvision.nms.default"]}, "operators=['torchvision']"),
        ({"format": 2}, "it is of format 2, this version reads 1"),
        ({"nodes": [[0, [{"v": 1}, 1]]]}, "it uses value 1 of 1"),
        ({"nodes": [[0, [{"v": True}, 1]]]}, "it uses value True of 1"),
        ({"nodes": [[0, [{"w": 0}, 1]]]}, "it uses weight 0 of 0"),
        ({"nodes": [[0, [{"g": 0}, 1]]]}, "it uses sub-graph 0 of 0"),
        ({"nodes": [[7, [{"v": 0}, 1]]]}, "node 0 names operator 7 of 1"),
        ({"nodes": [[0, [{"device": "cuda:0"}]]]}, "the argument device='cuda:0' is unknown"),
        ({"nodes": [[0, [{"dtype": "load"}]]]}, "the argument dtype='load' is unknown"),
        ({"nodes": [[0, [], {"a b": 1}]]}, "'a b' is not the name of an argument"),
        ({"nodes": [[0]]}, "node 0 is not [op, args, kwargs]"),
        ({"inputs": -1}, "a graph has -1 inputs"),
        ({"inputs": 10**9}, "a graph has 1000000000 inputs"),
        ({"outputs": 1}, "a graph lacks 'outputs'"),
        ({"nodes": [[0, [json.loads("[" * 40 + "]" * 40)]]]}, "nested more than 32 deep"),
        ({"graphs": None}, "a graph lacks 'graphs'"),
        ({"weights": [1]}, "its weights are not a list of names"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(change, cause):
    with pytest.raises(ArtifactError) as caught:
        read({**ADD, **change})
    assert cause in str(caught.value)
    assert "remedy: compile the segment again" in str(caught.value)


def test_text_of_the_file_cannot_become_code():
    hostile = "__import__('os').abort()"
    data = {**ADD, "nodes": [[0, [{"v": 0}, 1], {"alpha": hostile}]]}
    with pytest.raises(RuntimeError, match="alpha"):
        emit.function(read(data), {})(torch.tensor(1))
    with pytest.raises(ArtifactError):
        read({**ADD, "nodes": [[0, [{"v": 0}, 1], {hostile: 1}]]})


def test_a_file_nested_without_end_is_refused():
    with pytest.raises(ArtifactError, match="is damaged"):
        wire_read.decode(b"[" * 200_000, OPERATORS)


GOOD = json.dumps(ADD).encode()


def refused_or_a_graph(data: bytes) -> recipe.Recipe | None:
    """Whatever the bytes are, nothing but :class:`ArtifactError` comes of them."""
    try:
        found = wire_read.decode(data, OPERATORS)
    except ArtifactError:
        return None
    assert isinstance(found, recipe.Recipe)
    return found


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3), st.integers(0, 4))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_file_is_refused_or_still_a_graph(where, put, cut):
    refused_or_a_graph(GOOD[:where] + put + GOOD[where + cut :])


KEYS = st.sampled_from(sorted(ADD))
ANY = st.recursive(
    st.one_of(st.none(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(KEYS, inner)),
)


@given(st.dictionaries(KEYS, ANY))
@settings(max_examples=200, deadline=None)
def test_any_other_json_is_refused_or_a_graph(change):
    found = refused_or_a_graph(json.dumps({**ADD, **change}).encode())
    assert found is not None or change


def test_what_the_format_does_not_hold_is_named_when_compiling():
    graph = Graph()
    node = graph.call_function(torch.ops.aten.add.Tensor, (object(),), name="strange")
    graph.output((node,))
    with pytest.raises(CompileError) as caught:
        wire.encode(Segment(graph), OPERATORS)
    assert "node 'strange' cannot be compiled" in str(caught.value)
    assert "its argument <object object" in str(caught.value)


def test_another_device_is_refused_when_compiling():
    graph = Graph()
    node = graph.call_function(
        torch.ops.aten.zeros.default, ([2],), {"device": torch.device("cuda")}, name="zeros"
    )
    graph.output((node,))
    with pytest.raises(CompileError, match="it asks for the device cuda"):
        wire.encode(Segment(graph), OPERATORS)


def test_an_unbounded_size_is_written_as_a_number():
    """torch's ``int_oo`` says of itself that it is finite."""
    from torch.utils._sympy.numbers import int_oo

    assert int_oo.is_finite
    assert shapes._bounded(int_oo) == shapes._UNBOUNDED
    assert shapes._bounded(sympy.Integer(7)) == 7
