"""Make the golden and hostile files that conformance.toml names: ``python make_golden.py``.

The golden ones are written by the format's reference implementation and by Hugging Face's hub
library, and recorded from the tensors in memory: our own code has no part in them. They are
committed and not made again, so that files of today stay readable.
"""

import json
import struct
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

from hardpoint.testing.serializer import record_golden
from hardpoint_safetensors.dtypes import BY_TORCH_NAME

HERE = Path(__file__).parent


def every_bit_pattern(dtype):
    raw = torch.arange(256, dtype=torch.uint8)
    return (raw % 2).bool() if dtype is torch.bool else raw.view(dtype)


def golden(folder):
    dtypes = [getattr(torch, name) for name in BY_TORCH_NAME]
    files = {
        "dtypes": {str(d).removeprefix("torch."): every_bit_pattern(d) for d in dtypes},
        "shapes": {
            "scalar": torch.tensor(3.5),
            "empty": torch.empty(0, 3),
            "cube": torch.arange(24).reshape(2, 3, 4),
            "rank7": torch.arange(12.0).reshape(1, 2, 1, 3, 1, 2, 1),
            "odd": torch.arange(5, dtype=torch.uint8),
            "after.odd": torch.arange(3, dtype=torch.int64),
        },
        "names": {
            "größe.重み.\U0001f600": torch.ones(2),
            "": torch.zeros(1),
            "../../etc/passwd": torch.full((1,), 2.0),
            'quotes " \\ and\nlines': torch.full((1,), 3.0),
        },
        "nothing": {},
    }
    metadata = {"dtypes": {"format": "pt", "größe": "\U0001f600", "empty": ""}}
    for name, tensors in files.items():
        path = folder / f"{name}.safetensors"
        save_file(tensors, path, metadata=metadata.get(name))
        record_golden(path, tensors, metadata.get(name))
    state = {f"layers.{i}.weight": torch.arange(100.0) + i for i in range(6)}
    save_torch_state_dict(state, folder, max_shard_size=1000)
    index = folder / "model.safetensors.index.json"
    total = json.loads(index.read_text())["metadata"]["total_size"]
    record_golden(index, state, {"format": "pt", "total_size": str(total)})


def crafted(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def hostile(folder):
    """Files that readers in use disagree about (tests/test_safetensors_hostile.py has them all)."""
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    two = {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}
    far = {"dtype": "F32", "shape": [0], "data_offsets": [99, 99]}
    files = {
        "duplicate-key": crafted(b'{"a":%b,"a":%b}' % ((json.dumps(one).encode(),) * 2), bytes(8)),
        "overlap": crafted({"a": one, "b": two}, bytes(12)),
        "hole": crafted({"a": two}, bytes(12)),
        "trailing-bytes": crafted({"a": one}, bytes(9)),
        "cut-short": crafted({"a": one}, bytes(7)),
        "named-metadata": crafted({"__metadata__": one}, bytes(8)),
        "empty-tensor-past-the-end": crafted({"a": one, "b": far}, bytes(8)),
        "float-offset": crafted(json.dumps({"a": one}).replace("8]", "8e0]").encode(), bytes(8)),
        "header-of-2-to-the-64": b"\xff" * 8 + b"{}",
        "rank-10000": crafted({"a": {**one, "shape": [1] * 9999 + [2]}}, bytes(8)),
        "deep": crafted(b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}"),
        "size-overflow": crafted({"a": {**one, "shape": [1 << 32, 1 << 32, 2]}}, bytes(8)),
    }
    for name, data in files.items():
        (folder / f"{name}.safetensors").write_bytes(data)


if __name__ == "__main__":
    for name, make in {"golden": golden, "hostile": hostile}.items():
        (HERE / name).mkdir(exist_ok=True)
        make(HERE / name)
