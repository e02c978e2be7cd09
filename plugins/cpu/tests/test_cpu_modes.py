"""Every mode and precision gives the model's own numbers, shapes and dtypes."""

from __future__ import annotations

import threading

import pytest
import torch

CASES = (
    "attention", "bert", "cond", "conv", "flattened", "item", "lstm", "mlp", "no dimensions", "no elements",
    "passes through", "several results", "tied", "whole numbers",
)  # fmt: skip
STATIC = tuple(name for name in CASES if name not in ("bert", "conv", "mlp"))
# Whose sizes vary, whose numbers choose what is done, where nothing is: one at a time.
ALONE = (
    "bert", "cond", "conv", "flattened", "item", "no elements", "passes through", "tied",
)  # fmt: skip
FP32 = 1e-5
BF16 = 3e-2  # of the largest result: eight bits of mantissa, some layers deep


def check(case, executable, tolerance: float) -> None:
    """The executable's answers are the model's, on the example and on all other sizes."""
    for inputs in case.all_inputs():
        before = [x.clone() for x in inputs]
        expected, found = case.expected(inputs), executable(*inputs)
        assert isinstance(found, tuple)
        assert len(found) == len(expected)
        for wanted, got in zip(expected, found, strict=True):
            assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
            assert not got.requires_grad
            if wanted.numel() == 0:
                continue
            assert torch.equal(got.isnan(), wanted.isnan())
            scale = max(1.0, wanted.double().abs().max().item())
            error = (got.double() - wanted.double()).abs().max().item()
            assert error <= tolerance * scale
        assert all(torch.equal(x, y) for x, y in zip(before, inputs, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_eager_is_bit_equal_to_the_model(name, case, build):
    made = case(name)
    check(made, build(made.program()), 0)


@pytest.mark.parametrize("name", CASES)
def test_eager_in_bf16_is_close_to_the_model(name, case, build):
    made = case(name)
    check(made, build(made.program(), "bf16"), BF16)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_inductor_agrees_with_the_model(name, case, build):
    made = case(name)
    check(made, build(made.program(), mode="inductor"), FP32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "conv", "bert"])
def test_inductor_in_bf16_is_close_to_the_model(name, case, build):
    made = case(name)
    check(made, build(made.program(), "bf16", mode="inductor"), BF16)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", FP32), ("bf16", BF16)])
def test_inductor_takes_every_kind_of_graph(precision, tolerance, case, build):
    made = case(*STATIC)
    check(made, build(made.program(), precision, mode="inductor"), tolerance)


@pytest.mark.slow
def test_aot_agrees_with_the_model_at_every_size(case, build):
    made = case("conv")  # test_cpu_artifacts has bert
    check(made, build(made.program(), mode="aot"), FP32)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["inductor", "aot"])
def test_sizes_may_vary(mode, mlp):
    check(*mlp(mode), FP32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv", "bert"])
def test_aot_in_bf16_is_close_to_the_model(name, case, build):
    made = case(name)
    check(made, build(made.program(), "bf16", mode="aot"), BF16)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", FP32), ("bf16", BF16)])
def test_aot_takes_every_kind_of_graph(precision, tolerance, case, build):
    made = case(*STATIC)
    check(made, build(made.program(), precision, mode="aot"), tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "precision", "tolerance"), [("inductor", "bf16", BF16), ("aot", "fp32", FP32)]
)
def test_frozen_weights_give_the_same_numbers(mode, precision, tolerance, case, backend, compiled):
    made = case("mlp")
    artifact = compiled(made.program(), precision, mode=mode, freezing=True)
    repacked = any(name.startswith("@constant-") for name in artifact.weights)
    assert repacked == (mode == "aot")  # inductor: when it is loaded
    check(made, backend.load(artifact, backend.devices()[0]), tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eager", "inductor", "aot"])
def test_inputs_may_lie_in_memory_as_they_like(mode, mlp):
    made, executable = mlp(mode)
    transposed = torch.randn(8, 6).t()
    offset = torch.randn(6, 20)[:, 3:11]
    for x in (transposed, offset):
        assert not x.is_contiguous()
        torch.testing.assert_close(executable(x)[0], made.expected((x,))[0])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eager", "inductor", "aot"])
def test_four_threads_get_equal_results_from_one_executable(mode, mlp):
    _, executable = mlp(mode)
    inputs = [torch.randn(5, 8) for _ in range(4)]
    wanted = [executable(x)[0].clone() for x in inputs]
    wrong: list[int] = []
    barrier = threading.Barrier(4)

    def work(i: int) -> None:
        barrier.wait()
        for _ in range(50):
            if not torch.equal(executable(inputs[i])[0], wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eager", "inductor", "aot"])
def test_nothing_is_left_behind(mode, case, build, tmp_path, monkeypatch):
    import torch._inductor.config as inductor

    monkeypatch.chdir(tmp_path)
    made = case("mlp")
    program = made.program()
    example = program.graph_signature
    before = (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        inductor.freezing,
        str(program.graph),
        torch._guards.TracingContext.try_get(),
    )
    build(program, mode=mode)(*made.inputs)
    after = (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        inductor.freezing,
        str(program.graph),
        torch._guards.TracingContext.try_get(),
    )
    assert before == after
    assert program.graph_signature is example
    assert list(tmp_path.iterdir()) == []


def test_the_callers_autocast_does_not_change_the_numbers(case, build):
    made = case("mlp")
    executable = build(made.program())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = executable(*made.inputs)[0]
    assert torch.equal(found, made.expected(made.inputs)[0])


def test_results_stay_valid_after_the_next_call(case, build):
    made = case("mlp")
    executable = build(made.program())
    first = executable(*made.inputs)[0]
    kept = first.clone()
    executable(torch.randn(4, 8))
    assert torch.equal(first, kept)


def test_an_executable_may_be_closed_twice_and_others_go_on(case, build):
    made = case("mlp")
    executable, other = build(made.program()), build(made.program())
    executable.close()
    executable.close()
    check(made, other, FP32)


def test_tied_weights_are_stored_once(case, compiled):
    program = case("tied").program()
    assert len(compiled(program).weights) == 1
    assert len(compiled(program, "bf16").weights) == 1


def test_the_weights_of_an_artifact_are_the_models_own_memory(case, backend):
    from hardpoint import CompileOptions

    made = case("mlp")
    artifact = backend.compile(made.program(), backend.devices()[0], CompileOptions())
    assert artifact.weights["first.weight"].data_ptr() == made.model.first.weight.data_ptr()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["inductor", "aot"])
def test_compiling_works_inside_torch_compile(mode, case, compiled):
    """Dynamo calls a backend within a tracing context, which has fake tensors of its own."""
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode

    program = case("no dimensions").program()
    with tracing(TracingContext(FakeTensorMode())):
        assert compiled(program, mode=mode).files
