"""Inputs of which only slices are used are handed over slice by slice: nothing is copied out."""

from dataclasses import replace

import ort_programs as shared
import pytest
import torch

from hardpoint import ArtifactError, CompileOptions

CACHE = torch.randn(3, 4, 32, 64)  # 32 KiB a slice


def layers(cache, x):
    return [torch.relu(x @ cache[i].transpose(-1, -2)) for i in (0, 2)]


X = torch.randn(4, 2, 64)


def sliced(artifact):
    return {name: rest[0] for name, _, *rest in artifact.metadata["inputs"] if rest}


@pytest.fixture(scope="module")
def made(backend, cpu):
    return backend.compile(shared.exported(layers, CACHE, X), cpu, CompileOptions())


def test_each_slice_that_is_used_is_an_input(made, backend, cpu):
    [slices] = sliced(made).values()
    assert [place for place, _ in slices] == [0, 2]
    run = backend.load(made, cpu)
    assert not {"Gather", "Split", "Slice"} & set(run.facts()["operators"])
    for _ in range(2):  # the second call binds results of known sizes
        for got, want in zip(run(CACHE, X), layers(CACHE, X), strict=True):
            torch.testing.assert_close(got, want)


def test_a_call_reads_what_the_tensor_holds_then(made, backend, cpu):
    run, cache = backend.load(made, cpu), CACHE.clone()
    run(cache, X)
    cache.zero_()
    assert not any(result.any() for result in run(cache, X))


FUNCTIONS = {
    "all of them": lambda c, x: sum(x @ t.transpose(-1, -2) for t in c.unbind()),
    "from the end": lambda c, x: x @ c[-1].transpose(-1, -2),
    "one twice": lambda c, x: (c[1] + 1, c[1] * 2),
    "narrow dtype": lambda c, x: c.to(torch.bool)[1].logical_not(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slices_give_pytorchs_results(name, opened):
    function = FUNCTIONS[name]
    want = function(CACHE, X)
    want = list(want) if isinstance(want, tuple) else [want]
    got = opened(shared.exported(function, CACHE, X))(CACHE, X)
    for one, right in zip(got, want, strict=True):
        torch.testing.assert_close(one, right)


WHOLE = {
    "another use": lambda c, x: (c[0] + 1, c.sum(0)),
    "along another dimension": lambda c, x: c[:, 0] + 1,
    "several at once": lambda c, x: c[:2] + 1,
    "as it is": lambda c, x: (c[0] + 1, c),
    "a place from data": lambda c, x: c[x[0, 0, 0].long().clamp(0, 2)] + 1,
}


@pytest.mark.parametrize("name", WHOLE)
def test_an_input_that_is_used_otherwise_stays_whole(name, backend, cpu):
    function = WHOLE[name]
    made = backend.compile(shared.exported(function, CACHE, X), cpu, CompileOptions())
    assert sliced(made) == {}
    want = function(CACHE, X)
    want = list(want) if isinstance(want, tuple) else [want]
    for got, right in zip(backend.load(made, cpu)(CACHE, X), want, strict=True):
        torch.testing.assert_close(got, right)


def test_small_slices_are_copied(backend, cpu):
    program = shared.exported(lambda x: x[1] + 1, torch.randn(3, 16))
    assert sliced(backend.compile(program, cpu, CompileOptions())) == {}


def test_slices_may_have_any_size(backend, cpu):
    rows = torch.export.Dim("rows", min=0, max=500)
    program = shared.exported(
        lambda x: x[1].transpose(0, 1) * 2, torch.randn(3, 40, 8), dynamic={"inputs": ({1: rows},)}
    )
    made = backend.compile(program, cpu, CompileOptions())
    assert sliced(made)
    run = backend.load(made, cpu)
    for count in (40, 1, 0, 500):
        x = torch.randn(3, count, 8)
        torch.testing.assert_close(run(x)[0], x[1].t() * 2)


def test_narrow_weights_leave_slices_alone(opened):
    model = torch.nn.Linear(64, 64).eval()
    held = torch.nn.Module()
    held.layer = model
    held.forward = lambda c: model(c[2])
    run = opened(shared.exported(held, CACHE), "int8w")
    torch.testing.assert_close(run(CACHE)[0], model(CACHE[2]), atol=0.02, rtol=0.02)


def edited(made, slices):
    inputs = [[n, d, slices] if rest else [n, d] for n, d, *rest in made.metadata["inputs"]]
    return replace(made, metadata={**made.metadata, "inputs": inputs})


def test_a_place_past_the_end_is_never_read(made, backend, cpu):
    [[(_, first), (_, last)]] = sliced(made).values()
    run = backend.load(edited(made, [[0, first], [3, last]]), cpu)
    with pytest.raises(IndexError, match="is slice 3 of an input that has 3"):
        run(CACHE, X)


@pytest.mark.parametrize("place", [-1, True, "0", 1.0, None])
def test_a_place_that_is_none_is_refused(place, made, backend, cpu):
    [[(_, first), (_, last)]] = sliced(made).values()
    with pytest.raises(ArtifactError, match="metadata are damaged") as refused:
        backend.load(edited(made, [[place, first], [2, last]]), cpu)
    assert f"ValueError: slice {place!r}" in refused.value.cause


def test_slices_of_another_model_are_refused(made, backend, cpu):
    with pytest.raises(ArtifactError, match="do not belong together"):
        backend.load(edited(made, [[0, "other"]]), cpu)
