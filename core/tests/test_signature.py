"""The calling convention: what a call must look like, in words and as data from a file."""

from __future__ import annotations

import copy
import json
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

import hardpoint as hp
from hardpoint.program import signature as signatures
from small_models import CASES
from splitting import bounded, program

MOUNTED = hp.Registry(path=[])
X = torch.zeros(3, 4)
Pair = namedtuple("Pair", "left right")


@dataclass
class Box:
    value: torch.Tensor
    mask: torch.Tensor | None = None


class Takes(nn.Module):
    def forward(self, x, tree, flag=True, scale=1.0, *, mode="sum", limit=float("inf")):
        return x + tree["a"][0].sum()


def bound(args=(X, {"a": [X, None]}), kwargs=None, model=None):
    model = (model or Takes()).eval()
    return hp.capture(model, args, kwargs, dynamic={"x": {0: "rows"}}, registry=MOUNTED).signature


SIGNATURE = bound(kwargs={"mode": "sum"})
TAKES = "x: float32[rows, 4], tree.a.0: float32[3, 4], tree.a.1=None, mode='sum'"


def message(*args, **kwargs):
    with pytest.raises(hp.InputError) as error:
        SIGNATURE.bind(args, kwargs)
    return str(error.value)


def test_a_call_may_look_like_any_call_of_the_model():
    tree = {"a": [X, None]}
    for args, kwargs in [
        ((X, tree), {"mode": "sum"}),
        ((X,), {"tree": tree, "mode": "sum"}),
        ((), {"mode": "sum", "tree": tree, "x": X}),
        ((X, tree, True), {"mode": "sum"}),  # left out at capture, given with its default
        ((X, tree), {"mode": "sum", "limit": float("inf")}),
    ]:
        assert SIGNATURE.bind(args, kwargs) == [X, X]


def test_a_program_says_what_it_takes_and_gives():
    assert SIGNATURE.describe_arguments() == TAKES
    assert str(SIGNATURE.results[0]) == "result0: float32[rows, 4]"


def test_a_missing_argument_is_named():
    assert message(X, mode="sum") == f"missing argument 'tree'\n  remedy: pass: {TAKES}"


def test_an_unknown_argument_is_named():
    assert message(X, {"a": [X, None]}, mode="sum", bias=X) == (
        f"the program has no argument 'bias'\n  remedy: pass: {TAKES}"
    )


def test_an_argument_given_twice_is_named():
    assert message(X, x=X) == "argument 'x' is given twice\n  remedy: pass it once"


def test_too_many_positional_arguments_are_counted():
    assert message(*[X] * 5) == (
        f"the program takes 4 positional arguments, got 5\n  remedy: pass: {TAKES}"
    )


def test_another_value_for_a_constant_is_refused():
    assert message(X, {"a": [X, None]}, mode="mean") == (
        "argument mode was fixed at 'sum' when the model was captured, got 'mean'\n"
        "  remedy: pass that value, or capture again with the new one"
    )
    assert "argument tree.a.1 was fixed at None" in message(X, {"a": [X, X]}, mode="sum")


def test_a_number_of_another_type_is_another_value():
    assert "'flag' was left out when the model was captured" in message(X, {"a": [X, None]}, 1, mode="sum")  # fmt: skip


def test_an_argument_that_was_left_out_and_is_given_now_is_refused():
    assert message(X, {"a": [X, None]}, mode="sum", scale=2.0) == (
        "'scale' was left out when the model was captured\n"
        f"  remedy: pass: {TAKES}; or capture again with it"
    )


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"a": [X]}, "argument tree.a must be a list of 2, got list of 1"),
        ({"a": X}, "argument tree.a must be a list of 2, got Tensor"),
        ({"b": [X, None]}, "argument tree must have the keys ['a'], got ['b']"),
        ({"a": [X, None], "c": 1}, "argument tree must have the keys ['a'], got ['a', 'c']"),
        (3, "argument tree has no 'a'\n  remedy: it needs: ['a']"),
    ],
)
def test_another_nesting_is_refused(tree, text):
    assert message(X, tree, mode="sum") == text


def test_containers_of_a_class_may_be_given_as_mappings_or_look_alikes():
    class Reads(nn.Module):
        def forward(self, box, pair):
            return box.value + pair.left * pair.right

    found = hp.capture(Reads().eval(), (Box(X), Pair(X, X)), registry=MOUNTED).signature
    assert found.bind((Box(X), Pair(X, X)), {}) == [X, X, X]
    assert found.bind(({"value": X}, {"left": X, "right": X}), {}) == [X, X, X]
    with pytest.raises(hp.InputError, match=r"argument pair has no 'right'"):
        found.bind((Box(X), {"left": X}), {})
    with pytest.raises(hp.InputError, match=r"argument box.mask was fixed at None"):
        found.bind((Box(X, X), Pair(X, X)), {})


def test_not_a_number_as_a_default_equals_itself():
    class Fills(nn.Module):
        def forward(self, x, value=float("nan")):
            return x

    found = hp.capture(Fills().eval(), (X,), registry=MOUNTED).signature
    assert found.bind((X, float("nan")), {}) == [X]
    again = signatures.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert again.bind((X, float("nan")), {}) == [X]
    with pytest.raises(hp.InputError):
        again.bind((X, 0.0), {})


@pytest.mark.filterwarnings("ignore:.*is in training mode")
@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_the_signature_of_every_model_survives_strict_json(name):
    signature = program(name).signature
    text = json.dumps(signature.to_json(), allow_nan=False)
    again = signatures.from_json(json.loads(text))
    assert again == signature
    assert list(again.arguments) == list(signature.arguments)


WHOLE = json.loads(json.dumps(SIGNATURE.to_json()))
junk = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({})


def places(data, path=()):
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()  # fmt: skip
    for key, value in items:
        yield from places(value, (*path, key))


@settings(bounded, max_examples=300)
@given(st.sampled_from([p for p in places(WHOLE) if p]), junk, st.booleans())
def test_a_damaged_signature_is_read_or_refused_with_one_error(path, value, delete):
    data = copy.deepcopy(WHOLE)
    at = data
    for key in path[:-1]:
        at = at[key]
    if delete:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    try:
        found = signatures.from_json(data)
    except hp.PackageError as error:
        assert str(error).startswith("the package's signature is malformed\n  cause: ")
        assert error.remedy == "get the file again from its source, or save it again"
    else:
        json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("data", [None, [], 3, "x", {}, {"inputs": []}])
def test_what_is_no_signature_is_refused(data):
    with pytest.raises(hp.PackageError, match="the package's signature is malformed"):
        signatures.from_json(data)
