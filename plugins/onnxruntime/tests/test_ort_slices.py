"""Inputs of which only parts are used are handed over part by part: nothing is copied out."""

import threading
from dataclasses import replace

import ort_programs as shared
import pytest
import torch

import hardpoint as hp
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
    assert [(start, count) for start, count, _ in slices] == [(0, 0), (2, 0)]
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
    "in a loop": (lambda c, x: sum(x @ t.transpose(-1, -2) for t in c), [(0, 1), (1, 1), (2, 1)]),
    "unbound": (lambda c, x: sum(c.unbind()[1:]) * 2, [(1, 1), (2, 1)]),
    "in chunks": (lambda c, x: c.chunk(2)[0] - 1, [(0, 2), (2, 1)]),
    "several at once": (lambda c, x: (c[1:] + 1, c[:2] * 2), [(0, 2), (1, 2)]),
    "in uneven parts": (lambda c, x: [p + 1 for p in c.split([2, 1])], [(0, 2), (2, 1)]),
    "from the end": (lambda c, x: x @ c[-1].transpose(-1, -2), [(2, 0)]),
    "one twice": (lambda c, x: (c[1] + 1, c[1] * 2), [(1, 0)]),
    "in several ways": (lambda c, x: (c[1] + 1, c[1:2] * 2), [(1, 0), (1, 1)]),
}


def agree(run, function, *inputs):
    want = function(*inputs)
    want = [want] if isinstance(want, torch.Tensor) else want
    got = run(*inputs)
    for one, right in zip([got] if isinstance(got, torch.Tensor) else got, want, strict=True):
        torch.testing.assert_close(one, right)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parts_give_pytorchs_results(name, backend, cpu):
    function, parts = FUNCTIONS[name]
    made = backend.compile(shared.exported(function, CACHE, X), cpu, CompileOptions())
    [found] = sliced(made).values()
    assert [(start, count) for start, count, _ in found] == parts
    agree(backend.load(made, cpu), function, CACHE, X)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.float64]
)
def test_parts_may_have_any_dtype(dtype, backend, cpu):
    cache = (torch.randn(3, 128, 128) * 8).to(dtype)

    def swapped(c):
        return c[2].transpose(0, 1)

    made = backend.compile(shared.exported(swapped, cache), cpu, CompileOptions())
    assert sliced(made)
    agree(backend.load(made, cpu), swapped, cache)


def test_threads_read_their_own_tensors(made, backend, cpu):
    run, wrong = backend.load(made, cpu), []

    def call(seed):
        made_by = torch.Generator().manual_seed(seed)
        for _ in range(50):
            cache = torch.randn(3, 4, 32, 64, generator=made_by)
            want = layers(cache, X)
            if not all(torch.allclose(g, w, atol=1e-4) for g, w in zip(run(cache, X), want)):  # noqa: B905
                wrong.append(seed)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_package_takes_the_whole_tensor(tmp_path):
    program = hp.capture(shared.Calls(layers).eval(), (CACHE, X))
    path = hp.compile(hp.plan(program, targets=["onnxruntime"])).save(tmp_path / "m.pt2")
    model = hp.load(path)
    [segment] = model.segments
    assert len(names(segment.artifact)) == 2
    agree(model, layers, CACHE, X)
    strided = torch.randn(4, 3, 32, 64).transpose(0, 1)  # made contiguous on its way
    agree(model, layers, strided, X)


@pytest.mark.parametrize("quantizer", ["static", "dynamic"])
def test_integers_are_calibrated_on_the_whole_tensor(quantizer, opened):
    model = torch.nn.Linear(64, 64).eval()
    held = torch.nn.Module()
    held.layer, held.forward = model, lambda c: model(c[2]) + c[0]
    run = opened(shared.exported(held, CACHE), "int8", [CACHE], quantizer=quantizer)
    with torch.no_grad():
        want = model(CACHE[2]) + CACHE[0]
    assert float((run(CACHE)[0] - want).abs().max()) < 0.1


WHOLE = {
    "another use": lambda c, x: (c[0] + 1, c.sum(0)),
    "along another dimension": lambda c, x: c[:, 0] + 1,
    "an empty part": lambda c, x: [c.split([1, 0, 2])[i] + 1 for i in (0, 2)],
    "an empty part at the end": lambda c, x: [c.split([3, 0])[i] + 1 for i in (0, 1)],
    "every other": lambda c, x: c[::2] + 1,
    "as it is": lambda c, x: (c[0] + 1, c),
    "a place from data": lambda c, x: c[x[0, 0, 0].long().clamp(0, 2)] + 1,
}


@pytest.mark.parametrize("name", WHOLE)
def test_an_input_that_is_used_otherwise_stays_whole(name, backend, cpu):
    function = WHOLE[name]
    made = backend.compile(shared.exported(function, CACHE, X), cpu, CompileOptions())
    assert sliced(made) == {}
    agree(backend.load(made, cpu), function, CACHE, X)


def test_small_parts_are_copied(backend, cpu):
    program = shared.exported(lambda x: x[1] + 1, torch.randn(3, 16))
    assert sliced(backend.compile(program, cpu, CompileOptions())) == {}


ROWS = {"inputs": ({1: torch.export.Dim("rows", min=0, max=500)},)}


def test_parts_may_have_any_size(backend, cpu):
    example = torch.randn(3, 400, 16)
    program = shared.exported(lambda x: x[1].transpose(0, 1) * 2, example, dynamic=ROWS)
    made = backend.compile(program, cpu, CompileOptions("fp32", (example,)))
    assert sliced(made)
    run = backend.load(made, cpu)
    for count in (400, 1, 0, 500):
        x = torch.randn(3, count, 16)
        torch.testing.assert_close(run(x)[0], x[1].t() * 2)


def test_what_is_small_in_the_example_is_copied_whatever_its_sizes(backend, cpu):
    example = torch.randn(3, 4, 16)
    program = shared.exported(lambda x: x[1] * 2, example, dynamic=ROWS)
    assert sliced(backend.compile(program, cpu, CompileOptions("fp32", (example,)))) == {}


def test_an_accelerator_gets_whole_inputs(backend, cpu):
    from hardpoint_onnxruntime.lower import lower
    from hardpoint_onnxruntime.options import Options

    gpu = replace(cpu, properties={**cpu.properties, "provider": "CUDAExecutionProvider"})
    _, inputs, _ = lower(shared.exported(layers, CACHE, X), gpu, CompileOptions(), Options())
    assert [parts for _, parts in inputs] == [[], []]


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


def names(made):
    [found] = sliced(made).values()
    return [name for _, _, name in found]


@pytest.mark.parametrize("part", [(3, 0), (10**9, 0), (2, 2)])
def test_a_place_past_the_end_is_never_read(part, made, backend, cpu):
    first, last = names(made)
    run = backend.load(edited(made, [[0, 0, first], [*part, last]]), cpu)
    with pytest.raises(ArtifactError, match="the artifact was not made for this program") as caught:
        run(CACHE, X)
    assert f"float32 with {part[0] + max(part[1], 1)} rows or more" in caught.value.cause
    assert "of shape [3, 4, 32, 64]" in caught.value.what
    assert caught.value.remedy


def test_numbers_are_never_read_as_wider_ones(backend, cpu):
    program = shared.exported(lambda x: x + 1, torch.zeros(4, dtype=torch.float64))
    run = backend.load(backend.compile(program, cpu, CompileOptions()), cpu)
    with pytest.raises(ArtifactError, match=r"is torch\.float32 of shape") as caught:
        run(torch.zeros(4))
    assert caught.value.cause == "its metadata say torch.float64"


@pytest.mark.parametrize("start", [-1, True, "0", 1.0, None])
def test_a_place_that_is_none_is_refused(start, made, backend, cpu):
    first, last = names(made)
    for part in ((start, 0), (0, start)):
        with pytest.raises(ArtifactError, match="metadata are damaged") as refused:
            backend.load(edited(made, [[*part, first], [2, 0, last]]), cpu)
        assert f"ValueError: part {part[0]!r}, {part[1]!r}" in refused.value.cause


def test_results_come_whole(made, backend, cpu):
    outputs = [[*made.metadata["outputs"][0], [[0, 0, "x"]]], *made.metadata["outputs"][1:]]
    forged = replace(made, metadata={**made.metadata, "outputs": outputs})
    with pytest.raises(ArtifactError, match="metadata are damaged"):
        backend.load(forged, cpu)


def test_parts_of_another_model_are_refused(made, backend, cpu):
    with pytest.raises(ArtifactError, match="do not belong together"):
        backend.load(edited(made, [[0, 0, "other"]]), cpu)
