"""Real architectures from `transformers`, tiny and with fixed random weights."""

from __future__ import annotations

import torch

from models import Case, size

BOTH = {0: "batch", 1: "seq"}


def build(cls: str, config: str, **fields):
    def make():
        import transformers

        made = getattr(transformers, config)(**fields)
        return getattr(transformers, cls)(made)

    return make


def text(i: int) -> dict:
    ids = torch.randint(3, 50, (size(i), size(i, 4)))
    mask = torch.ones_like(ids)
    mask[0, -1] = 0
    return {"input_ids": ids, "attention_mask": mask}


TEXT = {"input_ids": BOTH, "attention_mask": BOTH}
ENCODER = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20, "max_position_embeddings": 40}  # fmt: skip
DECODER = ENCODER | {"use_cache": False, "num_key_value_heads": 1}


def picture(side: int):
    return lambda i: {"pixel_values": torch.randn(size(i), 3, side, side)}


def pixels() -> dict:
    return {"pixel_values": {0: "batch"}}


def translation(i: int) -> dict:
    ids = torch.randint(3, 50, (size(i), size(i, 4)))
    return {"input_ids": ids, "decoder_input_ids": torch.randint(3, 50, (size(i), size(i, 5)))}


def pictures_and_text(i: int) -> dict:
    return text(i) | picture(16)(i)


TOWER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20, "projection_dim": 8}  # fmt: skip

CASES = [
    Case("bert", build("BertModel", "BertConfig", **ENCODER), text, TEXT),
    Case("distilbert", build("DistilBertForSequenceClassification", "DistilBertConfig", vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=20, max_position_embeddings=40), text, TEXT),
    Case("gpt2", build("GPT2LMHeadModel", "GPT2Config", vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=40, use_cache=False), text, TEXT),
    Case("llama", build("LlamaForCausalLM", "LlamaConfig", **DECODER, tie_word_embeddings=True), text, TEXT),
    Case("mixtral", build("MixtralForCausalLM", "MixtralConfig", **DECODER, num_local_experts=3, num_experts_per_tok=2), text, TEXT),
    Case("t5", build("T5ForConditionalGeneration", "T5Config", vocab_size=50, d_model=16, d_kv=8, d_ff=20, num_layers=1, num_heads=2, use_cache=False), translation, {"input_ids": BOTH, "decoder_input_ids": {0: "batch", 1: "out"}}),
    Case("vit", build("ViTModel", "ViTConfig", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, image_size=16, patch_size=8), picture(16), pixels()),
    Case("swin", build("SwinModel", "SwinConfig", image_size=16, patch_size=2, embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=4), picture(16), pixels()),
    Case("resnet", build("ResNetModel", "ResNetConfig", embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1]), picture(32), pixels()),
    Case("mobilenet", build("MobileNetV1Model", "MobileNetV1Config", image_size=32, depth_multiplier=0.25, min_depth=4), picture(32), pixels()),
    Case("clip", build("CLIPModel", "CLIPConfig", text_config=TOWER | {"vocab_size": 50, "max_position_embeddings": 40, "eos_token_id": 2}, vision_config=TOWER | {"image_size": 16, "patch_size": 8}, projection_dim=8), pictures_and_text, TEXT | pixels()),
    Case("whisper", build("WhisperForConditionalGeneration", "WhisperConfig", vocab_size=50, num_mel_bins=8, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=20, decoder_ffn_dim=20, max_source_positions=10, max_target_positions=20, pad_token_id=0, decoder_start_token_id=1, eos_token_id=2, bos_token_id=1, use_cache=False), lambda i: {"input_features": torch.randn(size(i), 8, 20), "decoder_input_ids": torch.randint(3, 50, (size(i), size(i, 4)))}, {"input_features": {0: "batch"}, "decoder_input_ids": BOTH}),
    Case("wav2vec2", build("Wav2Vec2Model", "Wav2Vec2Config", vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20, conv_dim=(8, 8), conv_stride=(4, 2), conv_kernel=(8, 3), num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, apply_spec_augment=False), lambda i: {"input_values": torch.randn(size(i), 200)}, {"input_values": {0: "batch"}}),
]  # fmt: skip
