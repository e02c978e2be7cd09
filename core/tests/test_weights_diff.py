"""Two files of weights compared: names, dtypes, shapes, values, metadata."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

import hardpoint as hp
from hardpoint import WeightsError
from hardpoint.registry.registry import default_registry
from hardpoint.weights import compare, diff_weights
from hardpoint.weights.compare import coordinates, distance
from own_memory import GROWN

NAN, INF = math.nan, math.inf


@pytest.fixture
def diff(tmp_path):
    """Saves two mappings of tensors, and compares the files."""

    def between(a, b, *, suffixes=(".safetensors", ".safetensors"), metadata=({}, {}), **options):
        files = [tmp_path / f"{name}{suffix}" for name, suffix in zip("ab", suffixes, strict=True)]
        for file, tensors, texts in zip(files, (a, b), metadata, strict=True):
            hp.save_weights(tensors, file, metadata=texts)
        return diff_weights(*files, registry=default_registry(), **options)

    return between


def verdicts(found):
    return {each.name: each.verdict for each in found.tensors}


def test_the_same_tensors_in_two_formats_are_identical(diff):
    tensors = {"w": torch.randn(3, 4), "steps": torch.tensor(3), "none": torch.empty(0, 2)}
    found = diff(tensors, tensors, suffixes=(".safetensors", ".npz"))
    assert found.same
    assert found.formats == ("safetensors", "numpy")
    assert verdicts(found) == dict.fromkeys(tensors, "identical")
    assert (found.only_a, found.only_b, found.metadata) == ((), (), {})


def test_names_that_one_file_only_has_are_told(diff):
    found = diff({"x": torch.ones(1), "w": torch.ones(1)}, {"w": torch.ones(1), "y": torch.ones(1)})
    assert not found.same
    assert (found.only_a, found.only_b) == (("x",), ("y",))


def test_another_shape_is_a_difference_and_its_values_are_not_compared(diff):
    (found,) = diff({"w": torch.ones(2, 3)}, {"w": torch.ones(3, 2)}).tensors
    assert (found.verdict, found.shapes) == ("different", ((2, 3), (3, 2)))
    assert (found.differing, found.max_abs, found.worst) == (None, None, None)


def test_equal_values_of_other_bits_are_equal(diff):
    quiet = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    a = {"nan": quiet, "zero": torch.tensor([0.0, -0.0])}
    b = {"nan": quiet.flip(0).contiguous(), "zero": torch.tensor([-0.0, 0.0])}
    found = diff(a, b)
    assert found.same
    assert verdicts(found) == {"nan": "equal", "zero": "equal"}
    assert [each.differing for each in found.tensors] == [0, 0]


def test_errors_are_counted_and_the_worst_place_is_named(diff):
    a = torch.zeros(3, 4)
    a[2] = 100
    b = a.clone()
    b[0, 1], b[2, 3] = 0.5, 101
    (found,) = diff({"w": a}, {"w": b}).tensors
    assert (found.verdict, found.differing, found.beyond, found.not_finite) == (
        "different",
        2,
        2,
        0,
    )
    assert (found.max_abs, found.max_rel) == (1.0, 1.0)
    assert found.worst == (2, 3)


@pytest.mark.parametrize(
    ("a", "b", "not_finite", "differing"),
    [
        ([NAN, 1], [NAN, 1], 0, 0),
        ([NAN, 1], [2, 1.5], 1, 2),
        ([INF, -INF], [INF, INF], 1, 1),
        ([INF, 0], [0, NAN], 2, 2),
        ([1e308, 0], [-1e308, 0], 0, 1),
    ],
)
def test_what_has_no_error_is_counted_apart_and_comes_first(diff, a, b, not_finite, differing):
    found = diff(
        {"w": torch.tensor(a, dtype=torch.float64), "far": torch.zeros(1)},
        {"w": torch.tensor(b, dtype=torch.float64), "far": torch.ones(1)},
    )
    by_name = {each.name: each for each in found.tensors}
    assert (by_name["w"].not_finite, by_name["w"].differing) == (not_finite, differing)
    assert math.isfinite(by_name["w"].max_abs)
    assert next(each.name for each in found.tensors) == (
        "w" if not_finite or a[0] == 1e308 else "far"
    )


def test_the_worst_come_first(diff):
    a = {name: torch.zeros(2) for name in ("same", "little", "much", "shape")}
    b = {
        "same": torch.zeros(2),
        "little": torch.tensor([0, 1e-3]),
        "much": torch.ones(2),
        "shape": torch.zeros(3),
    }
    assert [each.name for each in diff(a, b).tensors] == ["shape", "much", "little", "same"]


def test_whole_numbers_are_compared_exactly(diff):
    big = 2**62
    (found,) = diff(
        {"n": torch.tensor([big, -(2**63)])}, {"n": torch.tensor([big + 1, 2**63 - 1])}
    ).tensors
    assert found.differing == 2
    assert found.worst == (1,)
    assert found.max_abs == 2.0**64
    assert distance(torch.tensor([big]), torch.tensor([big + 1])).max_abs == 1.0


def test_whole_numbers_with_and_without_a_sign_are_not_mixed_up():
    unsigned = torch.tensor([2**63, 5], dtype=torch.uint64)
    signed = torch.tensor([-(2**63), 5])
    found = distance(unsigned, signed)
    assert (found.differing, found.max_abs, found.worst) == (1, 2.0**64, 0)


def test_a_tolerance_lets_values_decide_whatever_their_dtype(diff):
    a = {"w": torch.randn(1000)}
    b = {"w": a["w"].bfloat16()}
    strict = diff(a, b)
    assert not strict.same
    assert strict.tensors[0].dtypes == ("float32", "bfloat16")
    assert 0 < strict.tensors[0].max_rel < 2**-8
    assert verdicts(diff(a, b, tolerance=2**-8)) == {"w": "within"}
    assert not diff(a, b, tolerance=1e-6).same
    assert verdicts(diff({"w": torch.ones(3)}, {"w": torch.ones(3).half()}, tolerance=0)) == {
        "w": "within"
    }


def test_no_tolerance_is_wide_enough_for_what_is_not_finite(diff):
    found = diff({"w": torch.tensor([1.0, INF])}, {"w": torch.tensor([1.0, 2.0])}, tolerance=1e300)
    assert (found.same, found.tensors[0].beyond) == (False, 1)


@pytest.mark.parametrize("tolerance", [-1.0, NAN, INF])
def test_a_tolerance_that_is_none_is_refused(diff, tolerance):
    with pytest.raises(WeightsError) as caught:
        diff({}, {}, tolerance=tolerance)
    assert str(caught.value) == (
        f"{tolerance} is no tolerance\n"
        "  cause: it is negative, infinite or no number\n"
        "  remedy: give e.g. 1e-3, or 0 for equal values of any dtype"
    )


def test_metadata_are_told_and_do_not_count(diff):
    found = diff(
        {}, {}, metadata=({"by": "me", "n": "1", "x": "y"}, {"by": "you", "m": "2", "x": "y"})
    )
    assert found.metadata == {"by": ("me", "you"), "m": (None, "2"), "n": ("1", None)}
    assert found.same


def test_dtypes_that_cannot_be_computed_with_are_compared_by_bytes():
    a = torch.arange(8, dtype=torch.uint8)
    b = a.clone()
    b[3] = 77
    pair = (a.view(torch.float4_e2m1fn_x2), b.view(torch.float4_e2m1fn_x2))
    found = distance(*pair)
    assert (found.opaque, found.identical, found.differing, found.beyond) == (True, False, 1, 1)
    assert distance(pair[0], pair[0].clone()).identical
    assert distance(pair[0], a.float()).differing == 8


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float8_e8m0fnu, torch.uint16]
)
def test_every_dtype_has_errors(dtype):
    a = torch.ones(6, 1).to(dtype)
    b = a.clone()
    b[4] = 0 if dtype is torch.bool else 2
    found = distance(a, b)
    assert (found.differing, found.max_abs, found.worst) == (1, 1.0, 4)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(width=32, allow_subnormal=True), min_size=1, max_size=40),
    changes=st.dictionaries(st.integers(0, 39), st.floats(width=32), max_size=5),
    sizes=st.tuples(st.integers(1, 64), st.integers(1, 9)),
)
def test_pieces_tell_what_the_whole_would(values, changes, sizes):
    """Against Python's own floats, whatever the size of the pieces."""
    other = [changes.get(at, value) for at, value in enumerate(values)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "_BITS_AT_ONCE", sizes[0])
        patch.setattr(compare, "_VALUES_AT_ONCE", sizes[1])
        found = distance(torch.tensor(values), torch.tensor(other), 0.25)
    pairs = [
        (x, y) for x, y in zip(values, other, strict=True) if x != y and not (x != x and y != y)
    ]
    finite = [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]
    errors = [abs(x - y) for x, y in finite]
    relative = [abs(x - y) / max(abs(x), abs(y)) for x, y in finite]
    assert found.differing == len(pairs)
    assert found.not_finite == len(pairs) - len(finite)
    assert (found.max_abs, found.max_rel) == (max(errors, default=0), max(relative, default=0))
    far = sum(error > 0.25 and part > 0.25 for error, part in zip(errors, relative, strict=True))
    assert found.beyond == far + found.not_finite


@given(shape=st.lists(st.integers(1, 5), max_size=4), data=st.data())
def test_a_place_in_the_flat_tensor_has_coordinates(shape, data):
    whole = torch.arange(math.prod(shape)).view(shape)
    flat = data.draw(st.integers(0, whole.numel() - 1))
    assert int(whole[coordinates(flat, tuple(shape))]) == flat


WATCHED = (
    GROWN
    + """
import sys
from hardpoint.registry.registry import default_registry
from hardpoint.weights import diff_weights

found = []
files = map(Path, sys.argv[1:])
kib = grown(lambda: found.append(diff_weights(*files, registry=default_registry())))
assert found[0].tensors[0].differing == 1 << 25
print(kib)
"""
)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_large_tensors_are_compared_in_little_memory(tmp_path):
    """Two of 128 MiB that differ everywhere; in float64 they would take 512 MiB."""
    files = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for value, file in enumerate(files):
        hp.save_weights({"w": torch.full((1 << 25,), float(value))}, file)
    command = [sys.executable, "-c", WATCHED, *map(str, files)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0 < int(ran.stdout) < 100_000, "kB"
