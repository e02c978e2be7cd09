"""Pieces of tensors: whether they fill the whole, and what of each an index takes."""

import itertools
import re

import pytest
import torch
from hypothesis import given, strategies as st

from hardpoint.storage.boxes import MAX_CUT, Box, fills, part_of, ranges_of

shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@st.composite
def grids(draw):
    """A shape and boxes that fill it."""
    shape = draw(shapes)
    cuts = [sorted(draw(st.lists(st.integers(0, size), max_size=2))) for size in shape]
    edges = [[0, *cut, size] for cut, size in zip(cuts, shape, strict=True)]
    spans = [list(itertools.pairwise(each)) for each in edges]
    boxes = [
        Box(tuple(a for a, _ in each), tuple(b - a for a, b in each))
        for each in itertools.product(*spans)
    ]
    return shape, draw(st.permutations(boxes))


@st.composite
def scattered(draw):
    shape = draw(shapes)
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        offsets = tuple(draw(st.integers(0, size)) for size in shape)
        sizes = tuple(
            draw(st.integers(0, size - at)) for size, at in zip(shape, offsets, strict=True)
        )
        boxes.append(Box(offsets, sizes))
    return shape, boxes


def of(box):
    return tuple(slice(at, at + size) for at, size in zip(*box, strict=True))


@given(grids())
def test_a_grid_fills_its_shape(case):
    assert fills(*case) is None


@given(scattered())
def test_boxes_fill_a_shape_if_each_element_is_in_one(case):
    shape, boxes = case
    count = torch.zeros(shape, dtype=torch.int32)
    for box in boxes:
        count[of(box)] += 1
    assert (fills(shape, boxes) is None) == bool((count == 1).all())


parts = st.one_of(
    st.integers(-6, 6),
    st.builds(
        slice,
        st.none() | st.integers(-7, 7),
        st.none() | st.integers(-7, 7),
        st.none() | st.integers(1, 4),
    ),
)


@given(grids(), st.lists(parts, max_size=3).map(tuple))
def test_parts_put_together_are_the_slice_of_the_whole(case, index):
    shape, boxes = case
    index = index[: len(shape)]
    whole = torch.arange(torch.Size(shape).numel()).reshape(shape)
    try:
        expected = whole[index]
    except IndexError:
        with pytest.raises(IndexError):
            ranges_of(shape, index)
        return
    ranges = ranges_of(shape, index)
    made = torch.full([len(each) for each in ranges], -1)
    for box in boxes:
        part = part_of(box, ranges)
        if part is not None:
            made[part.to] = whole[of(box)][part.inside]
    kept = tuple(0 if isinstance(each, int) else slice(None) for each in index)
    assert torch.equal(made[kept], expected)


@pytest.mark.parametrize(
    ("shape", "boxes", "wrong"),
    [
        ((4,), [Box((0,), (3,))], "overlap or leave a gap near [3] of dimensions [0]"),
        ((4,), [Box((0,), (3,)), Box((2,), (2,))], "overlap or leave a gap near [2]"),
        ((4,), [Box((0,), (5,))], "the chunk at [0] lies outside the shape"),
        ((4,), [Box((-1,), (5,))], "the chunk at [-1] lies outside the shape"),
        ((4,), [Box((0, 0), (4, 1))], "the chunk at [0, 0] has another number of dimensions"),
        ((2,) * 7, [Box((0,) * 7, (1,) * 7)], f"at most {MAX_CUT} are read"),
        ((), [Box((), ())] * 2, "overlap or leave a gap near [] of dimensions []"),
    ],
)
def test_what_is_wrong_is_said(shape, boxes, wrong):
    assert re.search(re.escape(wrong), fills(shape, boxes))


def test_a_hundred_thousand_boxes_are_no_matter():
    boxes = [Box((i,), (1,)) for i in range(100_000)]
    assert fills((100_000,), boxes) is None
    assert fills((100_000,), boxes[1:]) is not None
