"""What a user hands over by mistake is named, with what to hand over instead."""

import json

import pytest
import torch

import hardpoint as hp
from eager_backend import Provider

LINEAR = torch.nn.Linear(4, 2).eval()


@pytest.fixture(scope="module")
def registry():
    made = hp.Registry()
    made.add("backend", "eager", Provider())
    return made


@pytest.mark.parametrize("args", [torch.randn(3, 4), "x", {"input": torch.randn(3, 4)}])
def test_args_must_be_a_tuple(args):
    with pytest.raises(hp.CaptureError, match=r"must be a tuple[\s\S]*write \(x,\)"):
        hp.capture(LINEAR, args)


def test_a_model_is_no_program_and_no_plan(registry):
    with pytest.raises(hp.PlanError, match=r"plan\(\) takes a program, got Linear[\s\S]*capture"):
        hp.plan(LINEAR, registry=registry)
    with pytest.raises(
        hp.CompileError, match=r"takes a plan or a program, got Linear[\s\S]*capture"
    ):
        hp.compile(LINEAR, registry=registry)


def test_no_targets_are_not_any_targets(registry):
    program = hp.capture(LINEAR, (torch.randn(3, 4),))
    with pytest.raises(hp.PlanError, match="targets is empty"):
        hp.plan(program, targets=[], registry=registry)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "is no configuration"),
        ("{}", "describes no model that transformers"),
        (json.dumps({"model_type": "no-such-model"}), "describes no model that transformers"),
        (json.dumps({"auto_map": {}}), "brings model code of its own"),
    ],
)
def test_a_broken_hugging_face_config_is_one_error(tmp_path, config, says):
    pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(hp.CaptureError) as caught:
        hp.capture(tmp_path)
    assert says in str(caught.value)
    assert caught.value.remedy


def test_a_variant_whose_word_holds_a_comma_could_not_be_named_on_the_command_line():
    with pytest.raises(ValueError, match="the variant 'wide, fast' holds a comma, write 'and'"):
        hp.BackendInfo(
            requires_api=(1, 0), summary="", precisions=("fp32",), variants={"wide, fast": {}}
        )
