"""``hp.from_pretrained``: the same model as ``transformers`` makes, without a copy of its weights."""

from __future__ import annotations

import json

import pytest
import torch

import hardpoint as hp
from hardpoint import HardpointWarning, WeightsError

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
NARROW = {**SMALL, "num_key_value_heads": 2}
LINEAR_ROPE = {"rope_type": "linear", "factor": 2.0}
AUDIO = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 99,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
MODELS = {
    "llama": ("LlamaForCausalLM", NARROW),
    "llama, tied": ("LlamaForCausalLM", {**NARROW, "tie_word_embeddings": True}),
    "llama, scaled positions": ("LlamaForCausalLM", {**NARROW, "rope_scaling": LINEAR_ROPE}),
    "bert": ("BertModel", SMALL),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2}),
    "mixtral, experts merged": ("MixtralForCausalLM", {**NARROW, "num_local_experts": 4}),
    "t5": ("T5ForConditionalGeneration", {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 99}),
    "vit": ("ViTForImageClassification", {**VISION, "image_size": 32, "patch_size": 8}),
    "resnet": ("ResNetForImageClassification", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    "gemma2": ("Gemma2ForCausalLM", {**NARROW, "head_dim": 8}),
    "whisper": ("WhisperForConditionalGeneration", AUDIO),
    "mamba": ("MambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 99}),
    "clip, buffers beside parameters": ("CLIPModel", {
        "text_config": {**SMALL, "projection_dim": 16},
        "vision_config": {**VISION, "image_size": 32, "patch_size": 8, "projection_dim": 16},
        "projection_dim": 16,
    }),
}  # fmt: skip


def directory(tmp_path, name, dtype=torch.float32):
    cls, settings = MODELS[name]
    kind = getattr(transformers, cls)
    torch.manual_seed(0)
    kind(kind.config_class(**settings)).to(dtype).save_pretrained(tmp_path)
    return kind


def state(model):
    return dict(model.named_parameters()) | dict(model.named_buffers())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_model_that_transformers_makes(tmp_path, name, dtype):
    kind = directory(tmp_path, name, dtype)
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.safetensors")}
    ours, theirs = hp.from_pretrained(tmp_path), kind.from_pretrained(tmp_path, dtype="auto")
    assert type(ours) is type(theirs)
    assert not ours.training
    assert state(ours).keys() == state(theirs).keys()
    for key, expected in state(theirs).items():
        found = state(ours)[key]
        assert (found.dtype, found.requires_grad) == (expected.dtype, expected.requires_grad), key
        assert torch.equal(found, expected), key
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.safetensors")} == before


@pytest.mark.parametrize("name", ["llama", "bert", "clip, buffers beside parameters"])
def test_its_parameters_are_the_mapped_file(tmp_path, name):
    directory(tmp_path, name)
    model = hp.from_pretrained(tmp_path)
    memory = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    assert len(memory) == 1, "all of them are views of one map"


def test_in_own_memory_they_outlive_a_file_that_is_cut_short(tmp_path):
    directory(tmp_path, "llama")
    model = hp.from_pretrained(tmp_path, mode="own")
    expected = {name: tensor.clone() for name, tensor in state(model).items()}
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert all(torch.equal(state(model)[name], tensor) for name, tensor in expected.items())


def test_it_generates_as_the_original(tmp_path):
    kind = directory(tmp_path, "llama")
    ids = torch.tensor([[1, 5, 7]])
    ours = hp.from_pretrained(tmp_path).generate(ids, max_new_tokens=5, do_sample=False)
    theirs = kind.from_pretrained(tmp_path).generate(ids, max_new_tokens=5, do_sample=False)
    assert torch.equal(ours, theirs)


def test_a_sharded_directory_is_read_by_its_index(tmp_path):
    kind = directory(tmp_path, "bert")
    model = kind.from_pretrained(tmp_path)
    shards = tmp_path / "shards"
    model.save_pretrained(shards, max_shard_size="20KB")
    assert len(list(shards.glob("*.safetensors"))) > 1
    loaded = hp.from_pretrained(shards)
    assert all(torch.equal(state(loaded)[k], v) for k, v in state(model).items())


def test_what_a_model_does_not_use_is_told(tmp_path):
    directory(tmp_path, "bert")
    tensors = dict(hp.load_weights(tmp_path, mode="own")) | {"extra": torch.ones(2)}
    hp.save_weights(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(HardpointWarning, match="1 weights of .* are not used by BertModel: extra"):
        hp.from_pretrained(tmp_path)


def spoil(tmp_path, **settings):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def missing_weight(tmp_path):
    tensors = dict(hp.load_weights(tmp_path, mode="own"))
    del tensors["encoder.layer.0.attention.self.query.weight"]
    hp.save_weights(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: (d / "config.json").unlink(), "is no Hugging Face directory"),
        (lambda d: (d / "config.json").write_text("{"), "is not JSON"),
        (lambda d: (d / "config.json").write_text("[]"), "is no configuration"),
        (lambda d: spoil(d, auto_map={"AutoModel": "x.Y"}), "brings model code of its own"),
        (lambda d: (d / "adapter_config.json").write_text("{}"), "would be loaded without it"),
        (lambda d: spoil(d, quantization_config={"bits": 4}), "holds a quantized model"),
        (lambda d: spoil(d, model_type="nothing_such"), "describes no model that transformers"),
        (lambda d: spoil(d, architectures=["NothingSuch"]), "has no NothingSuch"),
        (lambda d: (d / "model.safetensors").unlink(), "has no weights"),
        (missing_weight, "lacks 1 of the weights of BertModel"),
        (lambda d: spoil(d, intermediate_size=65), "lacks .* of the weights of BertModel"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_is_no_whole_model_is_refused(tmp_path, change, says):
    directory(tmp_path, "bert")
    change(tmp_path)
    with pytest.raises(WeightsError, match=says) as caught:
        hp.from_pretrained(tmp_path)
    assert caught.value.remedy


# -- found by a cold review ------------------------------------------------------------------------


def equal_to_transformers(tmp_path, kind):
    ours, theirs = hp.from_pretrained(tmp_path), kind.from_pretrained(tmp_path, dtype="auto")
    return all(
        state(ours)[key].dtype == value.dtype and torch.equal(state(ours)[key], value)
        for key, value in state(theirs).items()
    )


def test_a_tie_that_the_file_does_not_keep_is_no_tie(tmp_path):
    kind = directory(tmp_path, "llama")
    spoil(tmp_path, tie_word_embeddings=True)  # and yet both are in the file, and differ
    assert equal_to_transformers(tmp_path, kind)


def test_the_single_file_is_taken_where_an_index_lies_beside_it(tmp_path):
    kind = directory(tmp_path, "bert")
    model = kind.from_pretrained(tmp_path)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(tmp_path / "other", max_shard_size="20KB")
    for file in (tmp_path / "other").glob("model*"):
        file.rename(tmp_path / file.name)
    assert equal_to_transformers(tmp_path, kind)


def test_a_model_that_keeps_some_in_float32_does_so(tmp_path):
    kind = directory(tmp_path, "t5", torch.float16)
    with pytest.warns(HardpointWarning, match="converted weights of .*: float16 to float32"):
        assert equal_to_transformers(tmp_path, kind)


def test_a_file_of_several_dtypes_is_converted_as_transformers_does_and_that_is_told(tmp_path):
    kind = directory(tmp_path, "llama", torch.bfloat16)
    tensors = dict(hp.load_weights(tmp_path, mode="own"))
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float() + 1e-4
    hp.save_weights(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(HardpointWarning, match="converted weights of .*: float32 to bfloat16"):
        assert equal_to_transformers(tmp_path, kind)


@pytest.mark.parametrize("name", ["Trainer", "pipeline", "logging", "TrainingArguments", 3])
def test_only_classes_of_models_are_called(tmp_path, name):
    directory(tmp_path, "bert")
    spoil(tmp_path, architectures=[name])
    with pytest.raises(WeightsError, match=f"has no {name}"):
        hp.from_pretrained(tmp_path)


def test_a_configuration_without_architectures_means_the_plain_model(tmp_path):
    directory(tmp_path, "bert")
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert type(hp.from_pretrained(tmp_path)) is transformers.BertModel
