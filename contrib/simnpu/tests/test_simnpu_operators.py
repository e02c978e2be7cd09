"""Every operator gives what eager PyTorch gives, within the rounding of fp16 and int8."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hardpoint_contrib_simnpu import plugin
from hardpoint_contrib_simnpu.rules import RULES

r = torch.randn

# name -> (function of inputs and weights, shapes of inputs, shapes of weights)
CASES = {
    "linear of many dimensions": (F.linear, [(2, 3, 5, 16)], [(7, 16), (7,)]),
    "linear of a vector": (F.linear, [(16,)], [(7, 16)]),
    "linear in several tiles": (lambda x, w: F.linear(x, w) / 60, [(4, 2500)], [(2500, 2500)]),
    "linear with a computed weight": (F.linear, [(3, 16), (7, 16)], []),
    "one weight twice": (lambda x, w: F.linear(F.linear(x, w), w), [(2, 4)], [(4, 4)]),
    "mm": (torch.mm, [(5, 16)], [(16, 7)]),
    "mm with a turned weight": (lambda x, w: x @ w.t(), [(5, 16)], [(7, 16)]),
    "addmm": (lambda x, w, c: torch.addmm(c, x, w), [(5, 16)], [(16, 7), (7,)]),
    "bmm": (torch.bmm, [(3, 5, 16), (3, 16, 4)], []),
    "matmul that broadcasts": (torch.matmul, [(2, 1, 5, 16), (3, 16, 4)], []),
    "matmul with a weight": (torch.matmul, [(2, 3, 5, 16)], [(16, 4)]),
    "conv2d": (
        lambda x, w, c: F.conv2d(x, w, c, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        [(2, 4, 9, 11)], [(6, 4, 3, 3), (6,)],
    ),
    "conv2d in groups": (lambda x, w: F.conv2d(x, w, groups=2), [(2, 4, 9, 9)], [(6, 2, 3, 3)]),
    "conv2d by channel": (
        lambda x, w, c: F.conv2d(x, w, c, padding=1, groups=4), [(1, 4, 9, 8)], [(4, 1, 3, 3), (4,)],
    ),
    "conv2d of one image": (F.conv2d, [(4, 9, 11)], [(6, 4, 3, 3)]),
    "conv2d mostly of padding": (lambda x, w: F.conv2d(x, w, padding=4), [(1, 2, 2, 2)], [(3, 2, 3, 3)]),
    "conv2d in several tiles": (
        lambda x, w: F.conv2d(x, w, padding=1) / 10, [(1, 16, 160, 160)], [(70, 16, 3, 3)],
    ),
    "conv2d with a computed weight": (F.conv2d, [(1, 4, 5, 5), (2, 4, 3, 3)], []),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), [(2, 3, 9, 11)], []),
    "max_pool2d of one image": (lambda x: F.max_pool2d(x, (2, 3), dilation=2), [(3, 9, 11)], []),
    "max_pool2d in several tiles": (lambda x: F.max_pool2d(x, 2), [(3, 24, 200, 200)], []),
    "relu": (torch.relu, [(4, 33)], []),
    "gelu": (lambda x: F.gelu(3 * x), [(4, 33)], []),
    "gelu by tanh": (lambda x: F.gelu(3 * x, approximate="tanh"), [(4, 33)], []),
    "softmax": (lambda x: F.softmax(x, -1), [(4, 33)], []),
    "softmax over the middle": (lambda x: F.softmax(x, 1), [(4, 33, 3)], []),
    "softmax of long rows": (lambda x: F.softmax(x, 1) * 1000, [(3, 600_000)], []),
    "softmax by its inner name": (lambda x: torch._softmax(x, 1, False), [(4, 9)], []),
    "add that broadcasts": (torch.add, [(4, 1, 3), (5, 1)], []),
    "add in several tiles": (torch.add, [(3, 800, 900), (900,)], []),
    "sub": (lambda x, y: (x - y) - 1.5, [(4, 3), (3,)], []),
    "mul and div by numbers": (lambda x, y: (2 * x * y) / 4 + 1, [(4, 3), (3,)], []),
    "no dimensions": (lambda x, y: (x * y + 1).permute([]).transpose(0, 0).reshape(1, 1), [(), ()], []),
    "one element": (lambda x: F.softmax(x, 0) + x, [(1,)], []),
    "shape operators": (
        lambda x: x.permute(2, 0, 1).reshape(6, 4).unsqueeze(1).expand(6, 3, 4)
        .transpose(-1, 0).flatten(1).clone(),
        [(2, 4, 3)], [],
    ),
    "squeezing": (
        lambda x: (x.squeeze() + 1, x.squeeze(1) * 2, x.squeeze((1, 3)) - 1, x.unsqueeze(-1)),
        [(2, 1, 3, 1)], [],
    ),
    "shape operators of weights": (
        lambda x, w: x + w.t().reshape(3, 2)[None].expand(2, 3, 2) + w.transpose(0, 1), [(2, 3, 2)], [(2, 3)],
    ),
    "permuting in several tiles": (lambda x: x.permute(2, 1, 0) + 0, [(70, 80, 500)], []),
    "inputs and weights given back": (lambda x, w: (x, w * 1, x, w, x + w), [(2, 3)], [(2, 3)]),
    "an unused input": (lambda x, y: y * 2, [(2, 3), (2,)], []),
    "alias": (lambda x: torch.ops.aten.alias(x) + x.view(2, 3), [(2, 3)], []),
}  # fmt: skip


# name -> (model, program, inputs): exporting is what takes time.
exported = {}


@pytest.fixture
def case(function, export):
    def make(name):
        if name not in exported:
            body, inputs, weights = CASES[name]
            module, tensors = function(body, *(r(s) for s in weights)), [r(s) for s in inputs]
            exported[name] = (module, export(module, *tensors), tensors)
        return exported[name]

    return make


def error(got, want):
    """The largest difference, relative to the largest number where that is above 1."""
    want = want if isinstance(want, tuple) else (want,)
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        assert (g.shape, g.dtype) == (w.shape, w.dtype)
    return max(
        float((g.double() - w.double()).abs().max() / w.abs().max().clamp(min=1))
        for g, w in zip(got, want, strict=True)
    )


@pytest.mark.parametrize("name", CASES)
def test_fp16_agrees_with_eager(name, case, load):
    module, program, inputs = case(name)
    with torch.no_grad():
        assert error(load(program, inputs)(*inputs), module(*inputs)) < 2e-3


@pytest.mark.parametrize("name", [n for n, (_, _, weights) in CASES.items() if weights])
def test_int8_agrees_with_eager(name, case, load):
    module, program, inputs = case(name)
    with torch.no_grad():
        assert error(load(program, inputs, "int8")(*inputs), module(*inputs)) < 3e-2


def test_every_operator_has_a_case(case):
    """The core hands ``view`` over as ``reshape``; all are lowered by the same rule."""
    seen = {torch.ops.aten._unsafe_view.default, torch.ops.aten.reshape.default}
    for name in CASES:
        seen |= {node.target for node in case(name)[1].graph.nodes}
    assert {str(t) for t in RULES} <= {str(t) for t in seen}


@pytest.mark.parametrize("dtypes", [(torch.float16,) * 2, (torch.float16, torch.float32)])
def test_boundary_tensors_keep_their_dtype(build, function, dtypes):
    inputs = [r(3, 4, dtype=d) for d in dtypes]
    module = function(lambda x, y: (torch.relu(x), x + y))
    got, want = build(module, *inputs)(*inputs), module(*inputs)
    assert [t.dtype for t in got] == [t.dtype for t in want]
    assert error(got, want) < 2e-3


def test_fp16_overflows_to_infinity_and_keeps_nan(build, function):
    x = torch.tensor([65504.0, 65536.0, -1e9, float("nan"), float("-inf"), 1e-9])
    doubled, rectified = build(function(lambda x: (x * 2, torch.relu(x))), x)(x)
    inf, nan = float("inf"), float("nan")
    torch.testing.assert_close(
        doubled, torch.tensor([inf, inf, -inf, nan, -inf, 0]), equal_nan=True
    )
    torch.testing.assert_close(
        rectified, torch.tensor([65504.0, inf, 0, nan, 0, 0]), equal_nan=True
    )


def test_pooling_keeps_nan_and_softmax_keeps_infinity_out(build, function):
    x = torch.tensor([[[1.0, float("nan")], [float("-inf"), 2]]])
    assert build(function(lambda x: F.max_pool2d(x, 2)), x)(x)[0].isnan().all()
    row = torch.tensor([[0.0, float("-inf")]])
    assert build(function(lambda x: F.softmax(x, -1)), row)(row)[0].tolist() == [[1, 0]]


# A function, its inputs, and what must be said of its one operation that the chip cannot do.
REFUSED = [
    (torch.sin, [r(3)], "aten.sin.default is not among the chip's operators"),
    (torch.add, [r(3).double(), r(3)], "is float64; the chip computes what is float32 or"),
    (torch.add, [torch.arange(3), torch.arange(3)], "is int64; the chip computes"),
    (torch.relu, [r(3).bfloat16()], "is bfloat16; the chip computes"),
    (torch.relu, [r(2, 0)], "a tensor of it has no elements"),
    (torch.relu, [r((1,) * 9)], "has 9 dimensions, the copy engine walks 8"),
    (torch.div, [r(3), r(3)], "it divides by a tensor; the vector unit cannot divide"),
    (lambda x: x / 0, [r(3)], "it divides by zero"),
    (lambda x: x + float("inf"), [r(3)], "its second operand inf is not a finite number"),
    (lambda x, y: torch.add(x, y, alpha=2), [r(3), r(3)], "alpha is not 1"),
    (torch.matmul, [r(3), r(3, 2)], "an operand is a vector; the matrix unit takes matrices"),
    (
        lambda c, x, y: torch.addmm(c, x, y), [r(2, 4), r(2, 3), r(3, 4)],
        "what it adds has the sizes [2, 4]; the matrix unit adds one number for each column",
    ),
    (lambda c, x, y: torch.addmm(c, x, y, beta=2), [r(4), r(2, 3), r(3, 4)], "alpha or beta"),
    (lambda x: F.max_pool2d(x, 2, ceil_mode=True), [r(1, 3, 3)], "ceil_mode is on"),
    (lambda x: F.max_pool2d(x, 300), [r(1, 300, 300)], "[300, 300] are no two numbers from 0"),
    (lambda x: F.dropout(x, 0.5, True), [r(3)], "native_dropout.default is not among"),
    (lambda x: F.softmax(x, 0), [r(())], "its operand has no dimensions"),
    (lambda x: F.softmax(x, -1, dtype=torch.float64), [r(3)], "is float64"),
    (
        lambda x: F.softmax(x, -1), [r(1, 1_100_000)],
        "a row of 1,100,000 numbers and its result take 4.2 MiB (4,400,000 bytes), the "
        "scratchpad has 4 MiB (4,194,304 bytes)",
    ),
    (torch.mm, [r(1, 140_000), r(140_000, 1)], "it sums 140,000 products, the accumulators"),
    (
        F.conv2d, [r(1, 16, 400, 400), r(1, 16, 1, 1)],
        "a tile of it takes 4.88 MiB (5,120,000 bytes), the scratchpad has 4 MiB (4,194,304 bytes)",
    ),
    (
        lambda x: x.expand(64, 2**20), [r(1, 2**20)],
        "its tensors take 130 MiB (136,314,880 bytes) in fp16, the device has 64 MiB (67,108,864 "
        "bytes) of DRAM",
    ),
    (torch.bmm, [r(5000, 1, 1), r(5000, 1, 1)], "it takes more than 16,384 instructions"),
]  # fmt: skip


def all_refused(*inputs):
    """Every function of the table on its own inputs, in one program."""
    left = iter(inputs)
    return tuple(body(*(next(left) for _ in own)) for body, own, _ in REFUSED)


@pytest.fixture(scope="module")
def refusals(function, export):
    """The reasons, in the table's order."""
    backend = plugin.hardpoint_backend_open({})
    tensors = [t for _, own, _ in REFUSED for t in own]
    program = export(function(all_refused), *tensors)
    found = backend.support(program, backend.devices()[0]).unsupported
    return [found[node.name] for node in program.graph.nodes if node.name in found]


def test_each_function_has_one_operation_that_is_refused(refusals):
    assert len(refusals) == len(REFUSED)


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=lambda n: REFUSED[n][2][:40])
def test_what_the_chip_cannot_do_is_said_in_words(refusals, number):
    assert REFUSED[number][2] in refusals[number]


def test_sizes_that_vary_are_refused_in_words(reasons):
    batch = {"inputs": ({0: torch.export.Dim("batch", max=64)},)}
    found = reasons(
        lambda x: torch.relu(x.reshape(x.shape[0], 6)), r(4, 2, 3), dynamic_shapes=batch
    )
    assert len(found) == 2
    assert all("varies" in reason and "static" in reason for reason in found.values())
