"""Nested values are taken apart, described as data, and put together again."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections import OrderedDict, namedtuple
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hardpoint.program import structure
from hardpoint.program.structure import Constant, Fields, Items, Leaf, Record
from splitting import bounded

Pair = namedtuple("Pair", "left right")


class Typed(NamedTuple):
    first: object
    second: object = None


@dataclasses.dataclass
class Report:
    total: object
    note: str = "fine"


@dataclasses.dataclass
class Derived:
    given: object
    made: object = dataclasses.field(init=False, default=None)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
names = st.text(min_size=1, max_size=5)
values = st.recursive(
    scalars | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(names | st.integers(), inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Typed, inner, inner)
        | st.builds(Report, inner, st.text(max_size=3))
    ),
    max_leaves=12,
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["tensor", "scalar", "constant", "float", "list", "tuple", "fields",
                         "items", "class", "mapping", "sequence", "?"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def flatten(value):
    """A description of ``value``, with its opaque objects as leaves."""
    found = []

    def leaf(item, path):
        if type(item) is not object:
            return None
        found.append(item)
        return Leaf(len(found) - 1)

    return structure.flatten(value, leaf), found


def same(a, b):
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and same(vars(a), vars(b))
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(bounded, max_examples=200)
@given(values)
def test_a_value_taken_apart_and_put_together_is_the_same(value):
    node, found = flatten(value)
    assert same(structure.unflatten(node, lambda leaf: found[leaf.index]), value)


@settings(bounded, max_examples=200)
@given(values)
def test_a_description_survives_strict_json(value):
    node, found = flatten(value)
    text = json.dumps(structure.to_json(node), allow_nan=False)
    again = structure.from_json(json.loads(text))
    assert same(structure.unflatten(again, lambda leaf: found[leaf.index]), value)


@settings(bounded, max_examples=300)
@given(anything)
def test_whatever_a_file_holds_is_read_or_refused_with_one_error(data):
    try:
        node = structure.from_json(data)
    except structure.StructureError as error:
        assert "malformed" in str(error)
    else:
        structure.unflatten(node, lambda leaf: leaf.index)


@pytest.mark.parametrize(
    "hostile",
    [
        {"tensor": -1}, {"tensor": True}, {"tensor": 1.0}, {"tensor": 0, "scalar": 0},
        {"constant": []}, {"float": "1e400"}, {"float": 1.0}, {"list": {}}, {"set": []},
        {"fields": ["a"], "items": []}, {"fields": ["a", "a"], "items": [{"tensor": 0}] * 2},
        {"fields": [True], "items": [{"tensor": 0}]}, {"fields": [], "items": [], "class": 1},
        {"fields": [], "items": [], "mapping": 1}, {"fields": [], "items": [], "sequence": None},
        {"fields": [], "items": [], "other": 1}, [], "tensor", None, 1,
    ],
)  # fmt: skip
def test_what_is_no_description_is_refused(hostile):
    with pytest.raises(structure.StructureError, match="a description of inputs or outputs is malformed"):  # fmt: skip
        structure.from_json(hostile)


def test_a_description_nested_without_end_is_refused():
    deep: object = {"tensor": 0}
    for _ in range(structure.MAX_DEPTH + 1):
        deep = {"list": [deep]}
    with pytest.raises(structure.StructureError, match="malformed or too deep"):
        structure.from_json(deep)


def described(value, cls, **changes):
    node, found = flatten(value)
    node = dataclasses.replace(node, cls=cls, **changes)
    return structure.unflatten(node, lambda leaf: found[leaf.index])


def test_a_named_tuple_of_a_class_that_is_not_here_still_unpacks():
    made = described(Pair(1, "b"), "no.such.module:Outer.Pair")
    left, right = made
    assert (left, right, made.left, made[1]) == (1, "b", 1, "b")
    assert type(made).__name__ == "Pair"


def test_a_dataclass_of_a_class_that_is_not_here_is_a_record():
    made = described(Report(3), "no.such.module:Report")
    assert made == {"total": 3, "note": "fine"}
    assert (made.total, made["note"], made[0]) == (3, "fine", 3)
    with pytest.raises(AttributeError, match="no field 'size'; fields: total, note"):
        made.size  # noqa: B018
    with pytest.raises(KeyError):
        made["size"]
    with pytest.raises(IndexError):
        made[2]


def test_a_mapping_of_a_class_that_is_not_here_hides_what_is_none():
    made = described(Report(3, None), "no.such.module:Output", mapping=True)
    assert isinstance(made, Record)
    assert list(made) == ["total"]


@pytest.mark.parametrize("cls", ["os:system", "builtins:eval", "builtins:dict", "subprocess:Popen",
                                 "sys:modules", "hardpoint:Registry", "", ":", "os:", "os:a..b"])  # fmt: skip
@pytest.mark.parametrize("sequence", [False, True])
def test_a_file_cannot_name_a_class_that_is_neither_dataclass_nor_named_tuple(cls, sequence):
    node = Fields(cls, ("command",), (Constant("exit 1"),), sequence=sequence)
    assert structure.find_class(node) is None


def test_a_file_cannot_make_a_module_import_another():
    class Lazy:
        def __getattr__(self, name):
            raise AssertionError("asked for a name")

    sys.modules["lazy_module_of_this_test"] = Lazy()
    try:
        node = Fields("lazy_module_of_this_test:Thing", ("a",), (Constant(1),))
        assert structure.find_class(node) is None
    finally:
        del sys.modules["lazy_module_of_this_test"]


def test_a_class_whose_fields_have_changed_is_not_used():
    node, _ = flatten(Report(1))
    changed = dataclasses.replace(node, names=("total", "renamed"))
    assert structure.find_class(node) is Report
    assert structure.find_class(changed) is None


def test_a_dataclass_comes_back_field_by_field_without_its_init():
    node, _ = flatten(Derived(1))
    node = dataclasses.replace(node, items=(Constant(1), Constant(2)))
    made = structure.unflatten(node, lambda leaf: leaf)
    assert (type(made), made.given, made.made) == (Derived, 1, 2)


def test_what_torch_returns_for_max_is_described():
    pair = torch.max(torch.eye(2), dim=0)

    def leaf(value, path):
        return Leaf(0) if isinstance(value, torch.Tensor) else None

    node = structure.flatten(pair, leaf)
    assert node == Fields("torch.return_types:max", ("values", "indices"), (Leaf(0), Leaf(0)), sequence=True)  # fmt: skip
    made = structure.unflatten(node, lambda leaf: pair.values)
    assert type(made) is torch.return_types.max


def test_an_ordered_dict_is_a_dict_in_its_order():
    node, _ = flatten(OrderedDict(b=1, a=2))
    assert structure.unflatten(node, lambda leaf: leaf) == {"b": 1, "a": 2}
    assert node.names == ("b", "a")


def test_leaves_have_dotted_paths():
    node, _ = flatten({"a": [object(), {"b": object()}], "c": 1})
    assert [path for path, _ in structure.leaves(node, "x")] == ["x.a.0", "x.a.1.b", "x.c"]


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", {True: 1}, {(1, 2): 3}, object, 1j])
def test_what_cannot_be_described_is_refused_with_what_can(value):
    with pytest.raises(
        structure.StructureError, match="which hardpoint cannot take apart"
    ) as error:
        structure.flatten({"deep": [value]}, lambda item, path: None)
    assert "deep.0 is a builtins:" in str(error.value)
    assert "use tensors, numbers, None, list, tuple" in error.value.remedy


def test_items_are_hashable_and_comparable():
    assert {Items("list", (Leaf(0),)), Items("list", (Leaf(0),))} == {Items("list", (Leaf(0),))}
