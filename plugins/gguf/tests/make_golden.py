"""Make the golden and hostile files that conformance.toml names: ``python make_golden.py``.

The golden ones are written by the format's reference library, and recorded from the arrays in
memory; quantized ones from what that library makes of them. They are committed and not made again,
so that files of today stay readable.
"""

import struct
from pathlib import Path

import gguf
import numpy as np
import torch

from hardpoint.testing.serializer import record_golden

HERE = Path(__file__).parent
TOKENS = [f"<{i}>" for i in range(1500)]


def writer(path, alignment=None):
    made = gguf.GGUFWriter(path, "llama")
    if alignment:
        made.add_custom_alignment(alignment)
    return made


def finish(made):
    made.write_header_to_file()
    made.write_kv_data_to_file()
    made.write_tensors_to_file()
    made.close()


def golden(folder):
    plain(folder / "a-plain.gguf")
    quantized(folder / "quantized.gguf")


def plain(path):
    numbers = np.arange(24)
    arrays = {
        "cube": numbers.astype(np.float32).reshape(2, 3, 4),
        "half": numbers.astype(np.float16).reshape(4, 6),
        "double": numbers.astype(np.float64),
        **{f"int{n}": numbers.astype(f"int{n}").reshape(3, 8) for n in (8, 16, 32, 64)},
        "blk.0.attn_q.weight": np.eye(8, dtype=np.float32),
    }
    made = writer(path)
    made.add_block_count(2)
    made.add_layer_norm_rms_eps(1e-5)
    made.add_name("größe \U0001f600")
    made.add_bool("llama.flag", True)
    made.add_float64("llama.double", 0.1)
    made.add_array("llama.layers", [4, 8])
    made.add_token_list(TOKENS)
    made.add_array("tokenizer.ggml.scores", [i / 2 for i in range(1500)])
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": "2",
        "llama.attention.layer_norm_rms_epsilon": "1e-05",
        "general.name": "größe \U0001f600",
        "llama.flag": "true",
        "llama.double": "0.1",
        "llama.layers": "[4, 8]",
        "tokenizer.ggml.tokens": '{"array": "string", "length": 1500, "first": '
        '["<0>", "<1>", "<2>", "<3>", "<4>", "<5>", "<6>", "<7>"]}',
        "tokenizer.ggml.scores": '{"array": "float32", "length": 1500, "first": '
        "[0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]}",
    }
    bf16 = torch.arange(16.0).bfloat16()
    made.add_tensor(
        "bf16", bf16.view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16
    )
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    noise = np.random.default_rng(5)
    for name, kind, shape in (
        ("cube.q8", gguf.GGMLQuantizationType.Q8_0, (2, 3, 64)),
        ("matrix.q4k", gguf.GGMLQuantizationType.Q4_K, (5, 256)),
    ):
        raw = (
            gguf.quants.quantize(noise.normal(size=shape).astype(np.float32), kind)
            if (kind.name == "Q8_0")
            else noise.integers(0, 60, (5, 144), dtype=np.uint8)
        )
        made.add_tensor(name, raw, raw_dtype=kind)
        tensors[name] = torch.from_numpy(gguf.quants.dequantize(raw, kind))
        metadata[f"hardpoint.quantized:{name}"] = kind.name
    for name, array in arrays.items():
        made.add_tensor(name, array)
    finish(made)
    record_golden(path, {**tensors, "bf16": bf16}, metadata)


def quantized(path):
    made = writer(path, alignment=64)
    metadata = {"general.architecture": "llama", "general.alignment": "64"}
    tensors = {}
    noise = np.random.default_rng(7)
    for kind, traits in gguf.quants._type_traits.items():
        block, size = gguf.GGML_QUANT_SIZES[kind]
        if block == 1:
            continue
        raw = noise.integers(0, 256, (3, 2 * size), dtype=np.uint8)
        name = f"blk.0.{kind.name}"
        made.add_tensor(name, raw, raw_dtype=kind)
        with np.errstate(all="ignore"):
            tensors[name] = torch.from_numpy(traits.dequantize(raw))
        metadata[f"hardpoint.quantized:{name}"] = kind.name
    finish(made)
    record_golden(path, tensors, metadata)


def text(value):
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(name="t", sizes=(8,), kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def crafted(pairs=(), tensors=(), data=b"", *, counts=None, version=3):
    tensor_count, pair_count = counts or (len(tensors), len(pairs))
    head = struct.pack("<4sIQQ", b"GGUF", version, tensor_count, pair_count)
    made = head + b"".join(pairs) + b"".join(tensors)
    return made + bytes(-len(made) % 32) + data


def array(kind, count, body=b""):
    return text("a.b") + struct.pack("<IIQ", 9, kind, count) + body


def hostile(folder):
    """The rest is in tests/test_gguf_hostile.py."""
    files = {
        "counts": crafted(counts=(1 << 60, 1 << 60)),
        "array-of-50-million": crafted([array(8, 50_000_000)]),
        "array-of-2-to-the-64": crafted([array(0, (1 << 64) - 1)]),
        "deep": crafted([text("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 100_000]),
        "offset-that-wraps": crafted(tensors=[entry(offset=(1 << 64) - 64)], data=bytes(32)),
        "overlap": crafted(tensors=[entry("a"), entry("b")], data=bytes(32)),
        "hole": crafted(tensors=[entry(offset=32)], data=bytes(64)),
        "twice": crafted(tensors=[entry("a"), entry("a", offset=32)], data=bytes(64)),
        "trailing": crafted(tensors=[entry()], data=bytes(32) + b"x"),
        "product-overflow": crafted(tensors=[entry(sizes=(1 << 32, 1 << 32))], data=bytes(32)),
        "big-endian": struct.pack(">4sIQQ", b"GGUF", 3, 0, 0),
    }
    for name, data in files.items():
        (folder / f"{name}.gguf").write_bytes(data)


if __name__ == "__main__":
    for name, make in {"golden": golden, "hostile": hostile}.items():
        (HERE / name).mkdir(exist_ok=True)
        make(HERE / name)
