"""Frozen constants of mode ``aot``: repacked by oneDNN, and used where the artifact has them."""

from __future__ import annotations

import dataclasses
import weakref

import pytest
import torch

from hardpoint import ArtifactError, CompileError
from hardpoint_cpu import constants
from hardpoint_cpu.segment import Segment


class Net(torch.nn.Module):
    """One matrix that oneDNN repacks, one table that stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(100, 64)
        self.layer = torch.nn.Linear(64, 128)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.layer(self.table(ids))


IDS = torch.arange(32).reshape(2, 16)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def frozen(net, compiled):
    program = torch.export.export(net, (IDS,), strict=False).run_decompositions({})
    return compiled(program, mode="aot", freezing=True)


@pytest.fixture(scope="module")
def repacked(frozen):
    """Name of the constant that oneDNN reads, and of its weight."""
    [constant] = [c for c, layout in frozen.metadata["layouts"].items() if "onednn" in layout]
    return constant, frozen.metadata["constants"][constant]


@pytest.fixture
def load(backend):
    return lambda artifact: backend.load(artifact, backend.devices()[0])


def message(load, artifact) -> str:
    with pytest.raises(ArtifactError) as raised:
        load(artifact)
    return str(raised.value)


@pytest.mark.slow
def test_what_freezing_leaves_alone_is_the_programs_own_weight(net, frozen):
    assert torch.equal(frozen.weights["table.weight"], net.table.weight)
    assert set(frozen.weights) >= {"table.weight", "layer.bias"}
    assert "layer.weight" not in frozen.weights


@pytest.mark.slow
def test_what_onednn_repacked_is_kept_as_its_bytes(net, frozen, repacked):
    data = frozen.weights[repacked[1]]
    assert (data.dtype, data.ndim) == (torch.uint8, 1)
    assert data.nbytes >= net.layer.weight.nbytes
    inside = bytes(frozen.files["model.so"])
    assert not any(
        tensor.detach().numpy().tobytes() in inside for tensor in frozen.weights.values()
    )


@pytest.mark.slow
def test_the_library_reads_frozen_constants_where_they_lie(net, frozen, repacked, load):
    weights = {name: tensor.detach().clone() for name, tensor in frozen.weights.items()}
    executable = load(dataclasses.replace(frozen, weights=weights))
    torch.testing.assert_close(executable(IDS)[0], net(IDS), atol=1e-5, rtol=1e-5)
    weights[repacked[1]].zero_()
    torch.testing.assert_close(executable(IDS)[0], net.layer.bias.expand(2, 16, 128))


@pytest.mark.slow
def test_a_closed_one_lets_go_of_frozen_constants(frozen, load):
    arrays = {name: tensor.detach().numpy().copy() for name, tensor in frozen.weights.items()}
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    held = [weakref.ref(array) for array in arrays.values()]
    executable = load(dataclasses.replace(frozen, weights=weights))
    executable(IDS)
    del weights, arrays
    assert all(array() is not None for array in held)
    executable.close()
    assert all(array() is None for array in held)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (
            lambda layout: layout | {"shape": [9999, 64]},
            "oneDNN describes one of [128, 64], not of [9999, 64]",
        ),
        (lambda layout: layout | {"dtype": "int64"}, "dtype 'int64' has no layout of oneDNN's"),
        (lambda layout: layout | {"onednn": "00"}, "1 bytes are no description of this oneDNN's"),
        (lambda layout: layout | {"onednn": "no"}, "non-hexadecimal number found"),
        (lambda layout: {}, "'shape'"),
        (lambda layout: 3, "its layout is 3"),
        (lambda layout: {"shape": [2], "strides": [1 << 40], "offset": 0}, "out of bounds"),
    ],
    ids=range(7),
)
def test_a_layout_that_does_not_fit_is_refused(change, cause, frozen, repacked, load):
    layouts = frozen.metadata["layouts"]
    changed = {**layouts, repacked[0]: change(layouts[repacked[0]])}
    metadata = {**frozen.metadata, "layouts": changed}
    text = message(load, dataclasses.replace(frozen, metadata=metadata))
    assert f"the constant {repacked[0]!r} does not fit its layout" in text
    assert cause in text
    assert "remedy: compile the segment again" in text


@pytest.mark.slow
def test_fewer_bytes_than_onednn_reads_are_refused(frozen, repacked, load):
    weights = {**frozen.weights, repacked[1]: frozen.weights[repacked[1]][:-64]}
    text = message(load, dataclasses.replace(frozen, weights=weights))
    size = frozen.weights[repacked[1]].nbytes
    assert f"cause: oneDNN needs {size} bytes for it, and it has {size - 64}" in text


@pytest.fixture
def timed():
    """What Inductor timed against each other: names of kernels with their milliseconds."""
    from torch._inductor import select_algorithm

    found: list[dict[str, float]] = []

    def keep(timings: dict, *_: object) -> None:
        found.append({choice.name: time for choice, time in timings.items()})

    select_algorithm.add_feedback_saver(keep)
    yield found
    select_algorithm.clear_feedback_savers()


@pytest.mark.slow
def test_max_autotune_times_several_kernels_for_a_product_and_is_right(compiled, load, timed):
    """Which one is fastest is the machine's business; that there was a choice is the option's."""
    torch.manual_seed(0)
    model, x = torch.nn.Linear(64, 128).eval(), torch.randn(16, 64)
    program = torch.export.export(model, (x,), strict=False).run_decompositions({})
    artifact = compiled(program, mode="aot", freezing=True, max_autotune=True)
    [product] = timed
    assert all(0 < milliseconds < float("inf") for milliseconds in product.values())
    assert any(name.startswith("cpp_CppMicroGemm") for name in product)  # Inductor's own
    assert any("linear" in name for name in product)  # ATen's
    torch.testing.assert_close(load(artifact)(x)[0], model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "tensor",
    [torch.arange(6.0).reshape(2, 3), torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
     torch.arange(12.0)[3:9].reshape(2, 3).t(), torch.ones(3).expand(2, 3), torch.tensor(7)],
    ids=["in order", "permuted", "with an offset", "expanded", "scalar"],
)  # fmt: skip
def test_a_constant_keeps_its_strides(tensor):
    segment = Segment(torch.fx.Graph())
    names, layouts = constants.keep({"c"}, segment, {"c": ("c", tensor)})
    [(name, data)] = segment.weights.values()
    assert (names, data.is_contiguous()) == ({"c": name}, True)
    again = constants.restore("c", data, layouts.get("c"))
    assert again.stride() == tensor.stride()
    assert torch.equal(again, tensor)


def test_two_constants_that_the_program_calls_the_same_stay_two():
    segment = Segment(torch.fx.Graph())
    made = {"x": ("x", torch.tensor(1.0)), "x_0": ("x", torch.tensor(2.0))}
    names, _ = constants.keep({"x", "x_0"}, segment, made)
    held = segment.named_weights()
    assert [held[names[constant]].item() for constant in ("x", "x_0")] == [1.0, 2.0]


def test_constants_of_the_same_bytes_and_other_shapes_or_dtypes_stay_apart():
    base = torch.zeros(2, 4)
    made = {
        "as it is": base, "again": torch.zeros(2, 4), "viewed": base.view(8), "turned": base.t(),
        "another dtype": torch.zeros(2, 4, dtype=torch.int32), "empty": torch.empty(0, 3),
        "empty, too": torch.empty(0, dtype=torch.int64), "bytes": torch.zeros(32, dtype=torch.uint8),
        "of oneDNN's": base.to_mkldnn(),
    }  # fmt: skip
    segment = Segment(torch.fx.Graph())
    names, layouts = constants.keep(set(made), segment, {c: (c, t) for c, t in made.items()})
    held = segment.named_weights()
    for constant, tensor in made.items():
        again = constants.restore(constant, held[names[constant]], layouts.get(constant))
        assert (again.dtype, again.shape) == (tensor.dtype, tensor.shape)
        assert again.is_mkldnn or again.stride() == tensor.stride()
        assert again.is_mkldnn == tensor.is_mkldnn
    assert names["as it is"] == names["again"]


def test_a_dtype_of_onednns_that_cannot_be_restored_is_refused_when_compiling(monkeypatch):
    monkeypatch.setattr(constants, "_DTYPES", ("bfloat16",))
    made = {"c": ("c", torch.zeros(2, 2).to_mkldnn())}
    with pytest.raises(CompileError) as raised:
        constants.keep({"c"}, Segment(torch.fx.Graph()), made)
    assert "oneDNN repacked a constant that the artifact cannot hold" in str(raised.value)
    assert "cause: 'c' is of dtype float32, it holds bfloat16" in str(raised.value)
    assert "remedy: leave the option freezing out" in str(raised.value)


@pytest.mark.slow
def test_a_vector_that_is_folded_once_and_used_in_two_shapes(compiled, load):
    class Biased(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(64, 32))
            self.b, self.g = (torch.nn.Parameter(torch.randn(64)) for _ in range(2))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            bias = self.b * self.g
            turned = self.weight.t()[None].expand(2, 32, 64)
            one = torch.nn.functional.linear(x, self.weight, bias)
            return one, torch.baddbmm(bias.view(1, 1, 64), y, turned)

    torch.manual_seed(0)
    net, inputs = Biased().eval(), (torch.randn(4, 32), torch.randn(2, 3, 32))
    program = torch.export.export(net, inputs, strict=False).run_decompositions({})
    found = load(compiled(program, mode="aot", freezing=True))(*inputs)
    torch.testing.assert_close(found, net(*inputs), atol=1e-4, rtol=1e-4)


def test_a_weight_that_inductor_changed_is_another():
    weight = torch.ones(2, 2)
    segment = Segment(torch.fx.Graph(), {"w0": ("layer.weight", weight)})
    names, _ = constants.keep({"w0", "w0_0"}, segment, {
        "w0": ("w0", weight.clone()), "w0_0": ("w0", weight * 2),
    })  # fmt: skip
    assert names["w0"] == "layer.weight"
    assert torch.equal(segment.named_weights()[names["w0_0"]], weight * 2)


def test_a_constant_that_nobody_knows_of_is_refused():
    with pytest.raises(CompileError) as raised:
        constants.keep({"c"}, Segment(torch.fx.Graph()), {})
    assert "AOTInductor made a constant that the artifact cannot hold" in str(raised.value)
    assert "cause: the library asks for 'c', which is no weight of the segment" in str(raised.value)
    assert "remedy: use mode 'inductor' or 'eager'" in str(raised.value)
