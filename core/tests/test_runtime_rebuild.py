"""A model's results come back in its own structure, whichever way they are put together."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hardpoint.program.structure import Constant, Fields, Items, Leaf, unflatten
from hardpoint.runtime.rebuild import rebuilder

FLAT = [torch.tensor(float(i)) for i in range(6)]
Pair = namedtuple("Pair", "left right")

LEAVES = st.builds(Leaf, st.integers(0, 5), st.booleans())
CONSTANTS = st.builds(Constant, st.sampled_from([None, 3, "text", True]))


def containers(inner):
    items = st.lists(inner, max_size=4).map(tuple)
    return st.one_of(
        st.builds(Items, st.sampled_from(["list", "tuple"]), items),
        items.map(lambda found: Fields("", tuple(f"k{i}" for i in range(len(found))), found)),
    )


def by_walking(node):
    return unflatten(node, lambda leaf: FLAT[leaf.index].item() if leaf.scalar else FLAT[leaf.index])  # fmt: skip


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and same(list(a.values()), list(b.values()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a is b if isinstance(a, torch.Tensor) else a == b


@settings(max_examples=200, deadline=None)
@given(st.recursive(LEAVES | CONSTANTS, containers, max_leaves=8))
def test_what_is_prepared_gives_what_walking_the_description_gives(node):
    assert same(rebuilder(node)(FLAT), by_walking(node))


@pytest.mark.parametrize("kind", ["list", "tuple"])
def test_one_tensor_in_a_container_stays_in_it(kind):
    got = rebuilder(Items(kind, (Leaf(2),)))(FLAT)
    assert type(got).__name__ == kind
    assert len(got) == 1
    assert got[0] is FLAT[2]


def test_a_class_of_the_model_is_rebuilt():
    node = Fields(f"{__name__}:Pair", ("left", "right"), (Leaf(1), Leaf(0)), sequence=True)
    assert same(rebuilder(node)(FLAT), by_walking(node))
    assert rebuilder(node)(FLAT).left is FLAT[1]
