"""Make the golden and hostile files that conformance.toml names: ``python make_golden.py``.

The golden ones are written by ``torch.save``, and recorded from the tensors in memory. They are
committed and not made again, so that files of today stay readable.
"""

import collections
import json
from pathlib import Path

import torch
from checkpoint_forge import (
    DATA,
    checkpoint,
    dictionary,
    members,
    name,
    pickled,
    storage,
    tensor,
    text,
    tup,
    zipped,
)

from hardpoint.testing.serializer import record_golden
from hardpoint_checkpoint.standins import DTYPES

HERE = Path(__file__).parent


def bits(dtype):
    raw = torch.arange(256, dtype=torch.uint8)
    return (raw % 2).bool() if dtype is torch.bool else raw.view(dtype)


def golden(folder):
    base = torch.arange(24.0).reshape(4, 6)
    files = {
        "model": (
            collections.OrderedDict({"layer.weight": base[:, :4].clone(), "layer.bias": base[0]}),
            {},
        ),
        "dtypes": ({name: bits(getattr(torch, name)) for name in DTYPES}, {}),
        "views": (
            {
                "base": base, "transposed": base.t(), "row": base[1], "column": base[:, 2],
                "step": base[::2, 1::2], "scalar": torch.tensor(3.5), "empty": torch.empty(0, 3),
                "conj": torch.view_as_complex(base.reshape(4, 3, 2).clone()).conj(),
            },
            {},
        ),
        "training": (
            {
                "epoch": 3, "state_dict": {"w": base}, "lr": [1e-3, float("inf")],
                "optimizer": {"state": {0: {"step": torch.tensor(7.0), "exp_avg": base * 2}}},
            },
            {"epoch": "3", "lr": '[0.001, "inf"]'},
        ),
    }  # fmt: skip
    for stem, (state, metadata) in files.items():
        flat = dict(flatten(state))
        tensors = {key: value for key, value in flat.items() if isinstance(value, torch.Tensor)}
        path = folder / f"{stem}.pt"
        torch.save(state, path)
        record_golden(path, tensors, metadata)
        if stem != "dtypes":  # the old format knows fewer
            path = folder / f"{stem}-legacy.pt"
            torch.save(state, path, _use_new_zipfile_serialization=False)
            record_golden(path, tensors, metadata)
    parts = [{f"layers.{i}.weight": base + i} for i in range(2)]
    shards = [f"pytorch_model-0000{i + 1}-of-00002.bin" for i in range(2)]
    for part, shard in zip(parts, shards, strict=True):
        torch.save(part, folder / shard)
    index = folder / "pytorch_model.bin.index.json"
    where = {key: shard for part, shard in zip(parts, shards, strict=True) for key in part}
    index.write_text(json.dumps({"metadata": {"total_size": 192}, "weight_map": where}))
    record_golden(index, {**parts[0], **parts[1]}, {"total_size": "192"})


def flatten(value, prefix=""):
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from flatten(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def hostile(folder):
    """A few of what tests/test_checkpoint_hostile.py has, as files."""
    good = dictionary(w=tensor())
    system = name("posix", "system") + tup(text("exit 1")) + b"R"
    files = {
        "system": checkpoint(dictionary(w=tensor(), x=system)),
        "importlib": checkpoint(name("importlib", "import_module") + tup(text("this")) + b"R"),
        "beyond-storage": checkpoint(dictionary(w=tensor(offset=1))),
        "short-record": checkpoint(good, {"0": DATA[:-1]}),
        "deflated": checkpoint(good, central=lambda n, f: {"method": 8 if "/0" in n else 0}),
        "two-names": checkpoint(good, local=lambda n, f: {"name": f["name"].upper()}),
        "duplicate": zipped([*members(pickled(good)), ("a/data.pkl", pickled(good))]),
        "big-endian": zipped(members(pickled(good), order=b"big")),
        "wrong-id": checkpoint(dictionary(w=tup(text("module"), text("x")) + b"Q")),
        "other-storage": checkpoint(dictionary(w=tensor(within=storage("1")))),
        "second-pickle": zipped(members(pickled(good) + pickled(system))),
    }
    for stem, data in files.items():
        (folder / f"{stem}.pt").write_bytes(data)


if __name__ == "__main__":
    for stem, make in {"golden": golden, "hostile": hostile}.items():
        (HERE / stem).mkdir(exist_ok=True)
        make(HERE / stem)
