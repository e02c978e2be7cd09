"""The checkpoint that tests/bench/weights.py loads: Llama-like, bf16, about 300 tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

_LAYERS = 32
_VOCABULARY = 32000


def shapes_of(gib: float) -> dict[str, tuple[int, ...]]:
    """Names and shapes of about ``gib`` GiB in bfloat16."""
    hidden = int(2048 * (gib / 4) ** 0.5) // 256 * 256
    inner, narrow = hidden * 17 // 4, hidden // 4
    layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_VOCABULARY, hidden)}
    for number in range(_LAYERS):
        for name, shape in layer.items():
            shapes[f"model.layers.{number}.{name}.weight"] = shape
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (_VOCABULARY, hidden)}


def make(folder: Path, gib: float, shards: int) -> list[Path]:
    """Write safetensors (by the reference library), ``.pt``, index and configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = shapes_of(gib)
    (folder / "shapes.json").write_text(json.dumps(shapes))
    files = []
    weight_map = {}
    for number, names in enumerate(_dealt(list(shapes), shards)):
        file = folder / ("model.safetensors" if shards == 1 else f"model-{number}.safetensors")
        tensors = {name: _values(shapes[name]) for name in names}
        save_file(tensors, file, metadata={"format": "pt"})
        torch.save(tensors, file.with_suffix(".pt"))
        weight_map |= dict.fromkeys(names, file.name)
        files.append(file)
    if shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _configure(folder, shapes)
    return files


def _values(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randint(-30000, 30000, shape, dtype=torch.int16).view(torch.bfloat16)


def _dealt(names: list[str], shards: int) -> Iterator[list[str]]:
    share = -(-len(names) // shards)
    for at in range(0, len(names), share):
        yield names[at : at + share]


def _configure(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    hidden = shapes["model.norm.weight"][0]
    configuration = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": shapes["model.layers.0.mlp.up_proj.weight"][0],
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 256,
        "vocab_size": _VOCABULARY,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(configuration))
