"""Where a model cannot be captured, the message names the model's line and what to change."""

from __future__ import annotations

import dataclasses
import re
import textwrap

import pytest
import torch
from torch import nn
from torch.export import Dim

import hardpoint as hp

MOUNTED = hp.Registry(path=[])
X = torch.arange(12.0).view(3, 4)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model of one line, in a file of its own: ``model("return x")``."""
    monkeypatch.syspath_prepend(tmp_path)
    made = iter(range(100))

    def make(body, parameters="x"):
        name = f"broken_model_{tmp_path.name}_{next(made)}".replace("-", "_")
        lines = textwrap.indent(textwrap.dedent(body).strip(), " " * 8)
        (tmp_path / f"{name}.py").write_text(
            "import numpy\nimport torch\n\n\nclass Broken(torch.nn.Module):\n"
            f"    def forward(self, {parameters}):\n{lines}\n"
        )
        return __import__(name).Broken().eval()

    return make


def message(model, args=(X,), kwargs=None, **options):
    with pytest.raises(hp.CaptureError) as error:
        hp.capture(model, args, kwargs, registry=MOUNTED, **options)
    return str(error.value)


def test_a_branch_on_data_names_the_line_and_torch_cond(model):
    text = message(model("if x.sum() > 0:\n    return x\nreturn -x"))
    first, cause, remedy = text.split("\n")
    assert re.fullmatch(
        r"torch\.export cannot capture Broken, at .*broken_model.*\.py:7 in forward: "
        r"if x\.sum\(\) > 0:",
        first,
    )
    assert cause.startswith(
        "  cause: GuardOnDataDependentSymNode: Could not guard on data-dependent expression"
    )
    assert remedy == (
        "  remedy: the line branches on a tensor's values: use torch.where or torch.cond, or tell "
        "the exporter what holds with torch._check(...)"
    )


def test_numpy_names_the_line_and_asks_for_torch_operators(model):
    text = message(model("y = x * 2\nreturn torch.from_numpy(numpy.sin(y.numpy()))"))
    assert ".py:8 in forward: return torch.from_numpy(numpy.sin(y.numpy()))" in text
    assert "cause: RuntimeError: .numpy() is not supported for tensor subclasses." in text
    assert text.endswith(
        "remedy: the line reads values of a tensor outside of PyTorch (numpy, .item(), .tolist()): "
        "keep the computation in torch operators"
    )


def test_an_operator_without_a_shape_function_is_told_to_get_one(model):
    @torch.library.custom_op("hardpoint_tests::shapeless", mutates_args=())
    def shapeless(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    text = message(model("return torch.ops.hardpoint_tests.shapeless(x)"))
    assert ".py:7 in forward: return torch.ops.hardpoint_tests.shapeless(x)" in text
    assert "cause: RuntimeError: There was no fake impl registered" in text
    assert text.endswith(
        "an operator has no shape function: register one with torch.library.register_fake"
    )


def test_a_size_that_the_model_fixes_is_named_as_the_caller_knows_it(model):
    text = message(model("return x.view(3, 2, 2)"), dynamic={"x": {0: "batch"}})
    assert "cause: ConstraintViolationError: Constraints violated (x.size(0))!" in text
    assert "You marked x.size(0) as dynamic but your code specialized it to be a constant" in text
    assert "leave it out of dynamic=" in text
    assert text.endswith("(dynamic here: x[0])")
    assert "L['flat']" not in text
    assert "TORCH_LOGS" not in text


def test_a_size_that_another_argument_fixes_is_named_too(model):
    text = message(model("return x + torch.ones(3, 4)"), dynamic={"x": {0: "batch"}})
    assert "x.size(0)" in text
    assert "leave it out of dynamic=" in text


def test_a_declared_range_wider_than_the_models_shows_the_suggested_one(model):
    body = "return x[:, :2] if x.shape[0] < 10 else x"
    text = message(model(body), dynamic={"x": {0: Dim("n", max=100)}})
    assert "n = Dim('n', max=9)" in text
    assert "or declare it by name alone ({0: 'batch'}), which takes the range" in text


def test_a_model_that_fails_by_itself_is_told_to_be_run_first(model):
    text = message(model("return x + torch.ones(7)"))
    assert ".py:7 in forward: return x + torch.ones(7)" in text
    assert "call the model itself with these examples first" in text


def test_the_line_is_the_innermost_one_of_the_model(model):
    body = """
        def inner(y):
            return y.no_such_method()
        return inner(x)
    """
    assert ".py:8 in inner: return y.no_such_method()" in message(model(body))


def test_buffers_that_share_memory_and_are_written_are_refused():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("whole", torch.zeros(4))
            self.register_buffer("part", self.whole[:2])

        def forward(self, x):
            self.whole.add_(1)
            return x.sum() + self.part

    text = message(Shared().eval())
    assert "two buffers of the model share memory, and a call writes to it" in text


def test_a_buffer_that_grows_is_refused():
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("cache", torch.zeros(1, 4))

        def forward(self, x):
            self.cache = torch.cat([self.cache, x])
            return self.cache.sum()

    assert message(Growing().eval()) == (
        "the model gives its buffer 'cache' another size or type\n"
        "  cause: it is torch.float32[4, 4] after a call, and was torch.float32[1, 4] before the "
        "call\n"
        "  remedy: keep the buffer's size: register it at full size and write into it"
    )


@pytest.mark.parametrize(
    ("result", "what"),
    [
        ("{x}", "the value is a builtins:set"),
        ("{'a': [x, {x}]}", "a.1 is a builtins:set"),
        ("slice(1)", "the value is a builtins:slice"),
        ("x.dtype", "the value is a torch:dtype"),
    ],
)
def test_a_result_that_cannot_be_described_is_named(model, result, what):
    text = message(model(f"return {result}"))
    assert text.startswith("the result of Broken cannot be captured\n")
    assert f"  cause: {what}, which hardpoint cannot take apart\n" in text
    assert "  remedy: use tensors, numbers, None, list, tuple, dict, named tuples" in text


def test_an_argument_that_cannot_be_described_is_named(model):
    text = message(model("return x"), args=({"a": {X}},))
    assert text.startswith(
        "an argument of Broken cannot be captured\n  cause: x.a is a builtins:set, which"
    )


def test_nesting_without_end_is_refused(model):
    endless: list = [X]
    endless.append(endless)
    assert "is nested deeper than 64 levels" in message(model("return x"), args=(endless,))


def test_a_sparse_argument_is_refused(model):
    assert message(model("return x"), args=(X.to_sparse(),)) == (
        "argument x is no dense tensor\n"
        "  cause: its layout is torch.sparse_coo\n"
        "  remedy: pass dense tensors, and make others of them inside the model"
    )


def test_reading_beyond_a_part_of_a_tensor_is_refused(model):
    text = message(model("return x[1:].as_strided((2, 2), (1, 1))"))
    assert "depends on how its tensor lies in memory" in text
    assert "remedy: use unfold, or indexing, in its place" in text


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((X, X, X), None, "Broken.forward takes 2 positional arguments, got 3\n  remedy: its parameters are: x, y"),
        ((X,), {"x": X}, "argument 'x' is given by position and by name"),
        ((X,), {"z": X}, "Broken.forward has no parameter 'z'\n  remedy: its parameters are: x, y"),
        ((), {"y": X}, "Broken.forward needs 'x'\n  remedy: pass an example value for it in args or kwargs"),
    ],
)  # fmt: skip
def test_examples_that_do_not_fit_forward_are_refused(model, args, kwargs, text):
    assert message(model("return x", "x, y=None"), args, kwargs) == text


@pytest.mark.parametrize(
    ("dynamic", "text"),
    [
        ({"z": {0: "n"}}, "dynamic names 'z', which is no argument of this call\n  remedy: the arguments are: x, tree"),
        ({"x": {5: "n"}}, "dynamic['x'] names dimension 5 of a 2-d tensor\n  remedy: write {0: 'batch'}"),
        ({"x": {"0": "n"}}, "dynamic['x'] names dimension '0' of a 2-d tensor\n  remedy: write {0: 'batch'}"),
        ({"x": "n"}, "dynamic['x'] must map dimensions to names, got 'n'\n  remedy: write {0: 'batch'}"),
        ({"x": {0: "batch size"}}, "'batch size' is no name for a size\n  remedy: use letters, digits and underscores"),
        ({"tree": "n"}, "dynamic['tree'] must be nested like the argument, got 'n'\n  remedy: its parts are: a, b"),
        ({"tree": {"c": {}}}, "dynamic['tree'] names 'c', which is not in the argument\n  remedy: its parts are: a, b"),
        ({"tree": {"a": {0: "n"}, "b": {1: "n"}}}, "the examples have two different sizes for 'n': 3 and 4\n  remedy: give examples of one size, or the two dimensions different names"),
    ],
)  # fmt: skip
def test_dynamic_sizes_that_do_not_fit_the_arguments_are_refused(model, dynamic, text):
    args = (X, {"a": X, "b": X})
    assert message(model("return x + tree['a']", "x, tree"), args, dynamic=dynamic) == text


def test_a_training_model_is_captured_with_a_warning(model):
    with pytest.warns(hp.HardpointWarning, match="Broken is in training mode: dropout and batch"):
        hp.capture(model("return x").train(), (X,), registry=MOUNTED)


def test_a_dataclass_that_cannot_be_built_again_comes_back_as_a_record(model):
    @dataclasses.dataclass
    class Local:
        value: torch.Tensor

    program = hp.capture(model("return x"), (Local(X),), registry=MOUNTED)
    assert program.signature.describe_arguments() == "x.value: float32[3, 4]"


def test_torchscript_is_refused():
    text = message(torch.jit.trace(nn.ReLU(), X))
    assert text.endswith(
        "is a TorchScript module, whose Python code is gone\n"
        "  remedy: pass the module that it was made from"
    )


def test_a_model_without_weights_is_refused():
    assert message(nn.Linear(4, 4, device="meta").eval()) == (
        "Linear has 2 weights without data\n"
        "  cause: on the meta device: weight, bias\n"
        "  remedy: load its weights first, e.g. hardpoint.load_weights(path, into=model)"
    )
