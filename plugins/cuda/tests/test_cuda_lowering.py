"""Programs compiled for a device that is not here: what they hold, and where they would run.

PyTorch's fake tensors know the rules of devices without having any: an operator that is given
tensors of two devices raises. So the whole way from the artifact to the results is walked with
fake tensors on ``cuda:0``, by the code that walks it on a real one; numbers are compared on the CPU.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch._subclasses import FakeTensorMode

from hardpoint import CompileError, CompileOptions, ProviderUnavailable
from hardpoint_cpu import elsewhere
from hardpoint_cpu.operators import Operators
from hardpoint_cuda.backend import GpuBackend
from hardpoint_cuda.options import Options
from hardpoint_cuda.probing import nvidia
from hardpoint_cuda.vendor import CUDA

PRECISIONS = {
    "fp32": {},
    "bf16": {},
    "fp16": {},
    "int8w": {},
    "int8w in fp16": {"compute": "fp16"},
    "int8w in fp32": {"compute": "fp32"},
    "fp8": {"weights": "fp8"},
}


class Network(torch.nn.Module):
    """Weights, buffers, constants, tensors made on the way, branches, an embedding and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(20, 16)
        self.first = torch.nn.Linear(16, 32)
        self.conv = torch.nn.Conv1d(4, 4, 3, padding=1)
        self.norm = torch.nn.LayerNorm(32)
        self.last = torch.nn.Linear(32, 8, bias=False)
        self.register_buffer("table", torch.arange(16.0) / 16)

    def forward(self, ids):
        x = self.embed(ids) + self.table + torch.arange(4)[:, None] / 7
        x = self.norm(self.first(self.conv(x)))
        x = torch.cond(ids.sum() > 0, lambda y: y + torch.ones(32), lambda y: y - 1, (x,))
        return self.last(x) * torch.tensor(0.5), x.argmax(-1)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network().eval(), torch.randint(0, 20, (3, 4))


def on_fake_device(artifact, *inputs):
    """Open it as on a device, and call it; the wrapper that needs a real one is left out."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        made = elsewhere.load(artifact, Operators(), torch.device("cuda:0"), "eager")
        return made(*[mode.from_tensor(t).to("cuda:0") for t in inputs])


def on_cpu(artifact, *inputs):
    return elsewhere.load(artifact, Operators(), torch.device("cpu"), "eager")(*inputs)


@pytest.mark.parametrize("asked", PRECISIONS)
def test_nothing_of_a_program_stays_on_the_cpu(asked, network, compiled, tools):
    model, ids = network
    precision = "int8w" if asked == "fp8" else asked.split()[0]
    artifact = compiled(tools.exported(model, ids), precision, **PRECISIONS[asked])
    results = on_fake_device(artifact, ids)
    assert [r.device for r in results] == [torch.device("cuda:0")] * 2
    assert [r.dtype for r in results] == [torch.float32, torch.int64]


@pytest.mark.parametrize(("asked", "bound"), zip(PRECISIONS, [0, 0.02, 0.003, 0.02, 0.01, 0.01, 0.06], strict=True))  # fmt: skip
def test_the_numbers_are_the_model_s_within_the_precision(asked, bound, network, compiled, tools):
    model, ids = network
    precision = "int8w" if asked == "fp8" else asked.split()[0]
    artifact = compiled(tools.exported(model, ids), precision, **PRECISIONS[asked])
    with torch.no_grad():
        expected = model(ids)[0]
    error = (on_cpu(artifact, ids)[0] - expected).abs().max().item()
    assert error <= bound * expected.abs().max().item()
    if asked != "fp32":
        assert error > 0  # it was really computed so


def test_a_program_that_was_captured_on_the_device_is_the_same_artifact(compiled, tools):
    """Devices are not written into it, so that one package opens on whichever device is there."""
    program = tools.exported(lambda x: x + torch.arange(3, device="cpu"), torch.ones(3))
    moved = tools.exported(lambda x: x + torch.arange(3, device="cpu"), torch.ones(3))
    for node in moved.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device("cuda", 1)}
    one, other = compiled(program), compiled(moved)
    assert dict(one.files) == dict(other.files)


def test_weights_in_eight_bits_take_a_quarter_and_keep_a_scale_a_row(network, compiled, tools):
    model, ids = network
    for kind, dtype in (("int8", torch.int8), ("fp8", torch.float8_e4m3fn)):
        weights = compiled(tools.exported(model, ids), "int8w", weights=kind).weights
        assert weights[f"first.weight@bf16@{kind}"].dtype is dtype
        assert weights[f"first.weight@bf16@{kind}-scale"].dtype is torch.float32
        assert weights[f"first.weight@bf16@{kind}-scale"].shape == (32,)
        assert not {"first.weight", "first.weight@bf16"} & set(weights)


def test_eight_bit_weights_are_rounded_once_from_the_model_s_own(compiled, tools):
    """Rounding to bfloat16 before would move numbers that lie between two steps."""
    linear = torch.nn.Linear(1, 1, bias=False)
    linear.weight.data.fill_(1 / 3)
    artifact = compiled(tools.exported(linear, torch.ones(1, 1)), "int8w")
    scale = artifact.weights["weight@bf16@int8-scale"]
    assert scale.item() * 127 == pytest.approx(1 / 3, rel=1e-7)


def test_large_products_of_eight_bit_weights_do_not_overflow_in_float16(compiled, tools):
    linear = torch.nn.Linear(4096, 4, bias=False)
    torch.nn.init.constant_(linear.weight, 0.01)
    x = torch.ones(1, 4096)  # 127 x 4096 is beyond float16; 0.01 x 4096 is not
    artifact = compiled(tools.exported(linear, x), "int8w", compute="fp16")
    assert on_cpu(artifact, x)[0][0, 0].item() == pytest.approx(40.96, rel=1e-3)


def test_a_row_of_zeros_stays_zeros_and_infinities_are_refused(compiled, tools):
    linear = torch.nn.Linear(3, 2, bias=False)
    linear.weight.data.zero_()
    x = torch.ones(1, 3)
    assert on_cpu(compiled(tools.exported(linear, x), "int8w"), x)[0].tolist() == [[0, 0]]
    linear.weight.data[0, 0] = float("inf")
    with pytest.raises(CompileError, match="holds infinities or NaN, which eight bits do not keep"):
        compiled(tools.exported(linear, x), "int8w")


def test_eight_bit_weights_that_change_nothing_are_refused(compiled, tools):
    with pytest.raises(CompileError) as caught:
        compiled(tools.exported(lambda x: x + 1, torch.ones(2)), "int8w")
    assert caught.value.cause == "it has no linear layer whose weights are constants of it"


@pytest.mark.parametrize(
    ("arch", "precision", "options", "cause"),
    [
        ("sm_75", "bf16", {}, "arithmetic in bfloat16 needs compute capability 8.0, and a GPU of sm_75 has 7.5"),
        ("sm_75", "int8w", {}, "arithmetic in bfloat16 needs compute capability 8.0, and a GPU of sm_75 has 7.5"),
        ("sm_52", "fp16", {}, "arithmetic in float16 needs compute capability 5.3, and a GPU of sm_52 has 5.2"),
        ("sm_70", "fp32", {"tf32": True}, "TF32 needs compute capability 8.0, and a GPU of sm_70 has 7.0"),
        ("sm_61", "fp32", {"mode": "inductor"}, "code that Triton compiles (modes inductor and aot) needs compute capability 7.0, and a GPU of sm_61 has 6.1"),
        ("sm_86", "int8w", {"mode": "aot", "weights": "fp8"}, "conversions from float8 in compiled code needs compute capability 8.9, and a GPU of sm_86 has 8.6"),
    ],
)  # fmt: skip
def test_what_the_device_does_not_do_is_refused_before_it_is_tried(
    arch, precision, options, cause, compiled, tools
):
    program = tools.exported(torch.nn.Linear(4, 4), torch.ones(1, 4))
    with pytest.raises(CompileError) as caught:
        compiled(program, precision, tools.gpu(arch), **options)
    assert caught.value.what == "cuda:0 does not do what is asked for"
    assert caught.value.cause == cause
    assert caught.value.provider == "backend:cuda"


@pytest.mark.skipif(importlib.util.find_spec("triton") is not None, reason="Triton is installed")
@pytest.mark.parametrize("mode", ["inductor", "aot"])
def test_without_triton_the_compiled_modes_say_so(mode, compiled, tools):
    with pytest.raises(CompileError) as caught:
        compiled(tools.exported(torch.nn.Linear(4, 4), torch.ones(1, 4)), mode=mode)
    assert caught.value.what == f"mode {mode!r} needs Triton, which is not installed"


def test_an_undeclared_precision_is_refused(backend, tools):
    program = tools.exported(lambda x: x + 1, torch.ones(2))
    with pytest.raises(CompileError, match="the cuda backend does not compute in int4w"):
        backend.compile_for(program, tools.gpu(), "int4w", Options())


@pytest.mark.parametrize(
    ("function", "inputs", "cause"),
    [
        (lambda x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,)), (torch.ones(2),), "cond decides on the host which kernels run"),
        (lambda x: x.nonzero(), (torch.ones(2),), "the size of aten.nonzero.default's result depends on data"),
        (lambda x: x * x.sum().item(), (torch.ones(2),), "it takes a number out of a tensor"),
    ],
    ids=["branch", "size", "number"],
)  # fmt: skip
def test_what_the_host_must_look_at_cannot_be_recorded_in_a_graph(
    function, inputs, cause, compiled, tools
):
    program = tools.exported(function, *inputs)
    with pytest.raises(CompileError) as caught:
        compiled(program, graphs=True)
    assert caught.value.cause == cause
    assert caught.value.remedy == "leave the option graphs out for this segment"
    assert compiled(program).format == "hardpoint-cuda/eager/1"  # without graphs it is fine


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is here")
def test_compile_and_load_refuse_a_device_that_is_not_here(backend, compiled, tools):
    from hardpoint import Device

    program = tools.exported(lambda x: x + 1, torch.ones(2))
    device = Device("0", "NVIDIA H100", "cuda:0")
    with pytest.raises(ProviderUnavailable, match="cuda:0 cannot be used"):
        backend.compile(program, device, CompileOptions())
    with pytest.raises(ProviderUnavailable, match="cuda:0 cannot be used"):
        backend.load(compiled(program), device)
    assert backend.devices() == ()


@pytest.fixture
def kernel_for_cuda_only():
    """A custom operator as a library of kernels (Helion's, Triton's) registers it."""
    with torch.library._scoped_library("hardpoint_cuda_test", "FRAGMENT") as library:
        library.define("double(Tensor x) -> Tensor")
        library.impl("double", lambda x: x * 2, "CUDA")
        library.impl("double", torch.empty_like, "Meta")
        yield torch.ops.hardpoint_cuda_test.double.default


def test_an_operator_with_a_cuda_kernel_of_the_user_s_own_is_run_where_it_is_allowed(
    kernel_for_cuda_only, backend, tools
):
    from hardpoint import Device

    device = Device("0", "NVIDIA H100", "cuda:0")
    program = tools.exported(lambda x: x + 1, torch.ones(2))
    node = next(n for n in program.graph.nodes if n.name == "add")
    node.target, node.args = kernel_for_cuda_only, node.args[:1]
    refused = backend.support(program, device).unsupported["add"]
    assert refused.endswith("backend with the configuration operators=['hardpoint_cuda_test']")
    allowing = GpuBackend({"operators": ["hardpoint_cuda_test"]}, CUDA, nvidia)
    assert allowing.support(program, device).supported == {"add"}
    artifact = allowing.compile_for(program, tools.gpu(), "fp32", Options())
    assert b"hardpoint_cuda_test.double.default" in bytes(artifact.files["graph.json"])


def test_an_operator_without_a_cuda_kernel_is_unsupported(backend, tools):
    from hardpoint import Device

    program = tools.exported(lambda x: x + 1, torch.ones(2))
    node = next(n for n in program.graph.nodes if n.name == "add")
    node.target = torch.ops.aten._weight_int4pack_mm_for_cpu.default
    answer = backend.support(program, Device("0", "NVIDIA H100", "cuda:0"))
    assert (
        "has no CUDA kernel of aten._weight_int4pack_mm_for_cpu.default"
        in answer.unsupported["add"]
    )
