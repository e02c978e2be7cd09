"""Every way in which a runtime was seen to give wrong numbers in silence: none gets through."""

import threading

import ort_programs as shared
import pytest
import torch
import torch.nn.functional as F

import hardpoint as hp
from hardpoint import CompileError, CompileOptions, InputError


def test_state_is_kept_outside_and_counts_on(registry):
    class Counter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(2))

        def forward(self, x):
            self.count.add_(1)
            return x + self.count

    program = hp.capture(Counter().eval(), (torch.zeros(2),), registry=registry)
    model = hp.compile(
        hp.plan(program, targets=["onnxruntime"], registry=registry), registry=registry
    )
    assert [model(torch.zeros(2)).tolist() for _ in range(3)] == [[1, 1], [2, 2], [3, 3]]


def test_an_input_that_the_model_changes_is_changed(registry):
    class Adds(torch.nn.Module):
        def forward(self, x):
            x.add_(1)
            return x * 2

    program = hp.capture(Adds().eval(), (torch.zeros(3),), registry=registry)
    model = hp.compile(
        hp.plan(program, targets=["onnxruntime"], registry=registry), registry=registry
    )
    x = torch.zeros(3)
    assert model(x).tolist() == [2, 2, 2]
    assert x.tolist() == [1, 1, 1]


def test_a_program_that_mutates_is_refused_and_never_frozen(backend, cpu):
    class Counter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(2))

        def forward(self, x):
            self.count.add_(1)
            return x + self.count

    program = shared.exported(Counter(), torch.zeros(2)).run_decompositions({})
    with pytest.raises(CompileError, match="the exporter would freeze it in silence") as refused:
        backend.compile(program, cpu, CompileOptions())
    assert refused.value.what == "output 'add' is a buffer mutation"


LARGE = torch.tensor([2**31 + 5, -(2**33) + 1, -7, 7, 2**53 + 1, 2**31 - 1, -1, 123_456_789_012])
SMALL = torch.tensor([4, 3, 2, -2, 1, 5, -1, 7])


@pytest.mark.parametrize(
    "function",
    [
        torch.add, torch.mul, torch.sub, torch.eq, torch.lt,
        lambda x, y: torch.div(x, y, rounding_mode="floor"),
        lambda x, y: torch.div(x, y, rounding_mode="trunc"),
        torch.remainder, torch.bitwise_and,
    ],
    ids=["add", "mul", "sub", "eq", "lt", "floor-div", "trunc-div", "remainder", "and"],
)  # fmt: skip
def test_integers_are_exact_or_refused(function, opened, reasons):
    program = shared.exported(function, LARGE, SMALL)
    if not reasons(program):
        assert torch.equal(opened(program)(LARGE, SMALL)[0], function(LARGE, SMALL))


def test_minus_seven_divided_by_two_is_minus_four(opened, reasons):
    program = shared.exported(lambda x: x // 2, LARGE)
    assert not reasons(program)
    assert opened(program)(LARGE)[0].tolist() == (LARGE // 2).tolist()


@pytest.mark.parametrize(
    ("name", "function", "inputs", "reason"),
    [
        ("maximum", torch.maximum, (LARGE, SMALL), "computes int64 as float64"),
        ("sum", lambda x: x.sum(), (LARGE,), "computes int64 as float64"),
        ("sum of two", lambda x: x.sum(-1), (LARGE[:2],), "computes int64 as float64"),
        ("prod", lambda x: x.prod(), (LARGE,), "computes int64 as float64"),
        ("fmod", lambda x: torch.fmod(x, 7), (LARGE[:4],), "computes int64 as float64"),
        ("avg_pool3d", lambda x: F.avg_pool3d(x, 3, 2, 1, ceil_mode=True, divisor_override=5), (torch.randn(1, 2, 7, 7, 7),), "."),
        ("scatter_reduce", lambda x: x.scatter_reduce(0, torch.tensor([0, 0, 1]), torch.randn(3), "mean"), (torch.randn(3),), "."),
        ("rand_like", torch.rand_like, (torch.randn(3),), "draws random numbers"),
        ("dropout", lambda x: F.dropout(x, 0.5, True), (torch.randn(3),), "draws random numbers"),
        ("empty_like", torch.empty_like, (torch.randn(3),), "it leaves memory as it finds it"),
        ("as_strided", lambda x: x.as_strided((2, 2), (1, 1)), (torch.randn(4),), "it looks at memory by strides"),
        ("nonzero", torch.nonzero, (torch.randn(4) > 0,), "the size of a tensor of it depends on data"),
        ("inv", torch.linalg.inv, (torch.eye(3),), "it checks its data, and ONNX has no operator that raises"),
        ("cholesky", torch.linalg.cholesky, (torch.eye(3),), "it checks its data"),
        ("solve", torch.linalg.solve, (torch.eye(3), torch.ones(3)), "it checks its data"),
        ("soft_margin_loss", F.soft_margin_loss, (torch.ones(3).half(), torch.ones(3).half()), "is computed in float32"),
        ("complex", torch.fft.fft, (torch.randn(4),), "complex64, which is not computed"),
    ],
)  # fmt: skip
def test_what_it_computes_otherwise_is_refused_in_words(name, function, inputs, reason, reasons):
    told = " ".join(reasons(shared.exported(function, *inputs)).values())
    assert reason in told if reason != "." else told


def test_what_cannot_be_decomposed_takes_no_neighbour_along(reasons):
    program = shared.exported(lambda x: torch.relu(torch.linalg.inv(x + 1).exp()), torch.eye(3))
    assert list(reasons(program)) == ["aten.linalg_inv.default"]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32])
def test_sums_of_what_is_small_are_taken_and_exact(dtype, opened, reasons):
    x = (torch.arange(12).reshape(3, 4) * 170_000_001).to(dtype)
    program = shared.exported(lambda x: x.sum(-1), x)
    assert not reasons(program)
    assert torch.equal(opened(program)(x)[0], x.sum(-1))


def test_what_cannot_be_tried_is_refused(reasons):
    table = torch.tensor([7])
    program = shared.exported(lambda x: x.index_select(0, table), torch.randn(3, 2))
    told = " ".join(reasons(program).values())
    assert "PyTorch itself takes none of the numbers that it was tried with" in told
    chances = torch.rand(4)  # which must be from 0 to 1: ordinary numbers are not
    assert not reasons(shared.exported(F.binary_cross_entropy, chances, chances))


def test_float64_is_computed_as_such_or_refused(opened, reasons):
    x = torch.randn(64, dtype=torch.float64)
    for function in (lambda x: x * 3 + 1e-13, lambda x: F.mse_loss(x, x.flip(0)), torch.exp):
        program = shared.exported(function, x)
        if not reasons(program):
            assert float((opened(program)(x)[0] - function(x)).abs().max()) < 1e-12


def test_control_flow_is_left_to_others(reasons):
    def choose(x):
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))

    assert "is control flow" in reasons(shared.exported(choose, torch.ones(2)))["cond"]


def test_sizes_dtypes_and_ranges_are_checked_before_it_is_called(registry):
    class Doubles(torch.nn.Module):
        def forward(self, x):
            return x * 2

    program = hp.capture(
        Doubles().eval(),
        (torch.randn(3, 4),),
        dynamic={"x": {0: torch.export.Dim("rows", min=1, max=8)}},
        registry=registry,
    )
    model = hp.compile(
        hp.plan(program, targets=["onnxruntime"], registry=registry), registry=registry
    )
    assert model(torch.ones(8, 4)).shape == (8, 4)
    for wrong in (torch.ones(3, 5), torch.ones(9, 4), torch.ones(3, 4).double(), torch.ones(3)):
        with pytest.raises(InputError):
            model(wrong)
    turned = torch.randn(4, 3).t()
    assert torch.equal(model(turned), turned * 2)


def test_results_outlive_the_next_call_and_hold_their_own_memory(opened):
    run = opened(shared.exported(lambda x: (x, x + 1, x, x.relu()), torch.randn(3)))
    x = torch.tensor([1.0, -2.0, 3.0])
    for _ in range(2):  # with sizes seen before, results go where this side put them
        first = run(x)
        copies = [t.clone() for t in first]
        run(-x)
        assert all(map(torch.equal, first, copies))
        assert len({t.data_ptr() for t in (x, *first)}) == 5


def test_sizes_zero_and_none_at_all(opened):
    run = opened(shared.exported(lambda x: x * 2, torch.randn(0, 4)))
    assert run(torch.empty(0, 4))[0].shape == (0, 4)
    assert run(torch.empty(0, 4))[0].shape == (0, 4)
    assert (
        float(opened(shared.exported(lambda x: x * 2, torch.tensor(2.0)))(torch.tensor(4.0))[0])
        == 8
    )


def test_eight_threads_share_one_executable(opened):
    weight = torch.randn(64, 64)
    run = opened(shared.exported(lambda x: torch.relu(x @ weight), torch.randn(4, 64)))
    wrong = []

    def call(seed):
        x = torch.randn(4, 64, generator=torch.Generator().manual_seed(seed))
        want = torch.relu(x @ weight)
        for _ in range(50):
            if not torch.allclose(run(x)[0], want, atol=1e-5):
                wrong.append(seed)

    workers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize(
    "given",
    [
        torch.randn(8, 4).t(),
        torch.randn(1, 8).expand(4, 8),
        torch.randn(8, 16)[::2, ::2],
        torch.randn(9, 8)[5:],
    ],
    ids=["transposed", "expanded", "every other", "part"],
)
def test_strides_are_honoured(given, registry):
    """ONNX Runtime takes an address, and reads on from there."""
    module = torch.nn.Linear(8, 8).eval()
    program = hp.capture(module, (torch.randn(4, 8),), registry=registry)
    plan = hp.plan(program, targets=["onnxruntime"], registry=registry)
    found = hp.compile(plan, registry=registry)(given)
    torch.testing.assert_close(found, module(given).detach())
