"""Make the golden and hostile directories that conformance.toml names: ``python make_golden.py``.

The golden ones are saved by ``torch.distributed.checkpoint`` itself, one of them by two ranks, and
recorded from the tensors in memory: our own code has no part in them. They are committed and not
made again, so that checkpoints of today stay readable.
"""

import os
import pickle
import shutil
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from hardpoint.testing.serializer import record_golden
from hardpoint_dcp.dtypes import ITEMSIZE

os.chdir(Path(__file__).parent)  # checkpoints keep the path that they were saved to
HERE = Path()


def every_bit_pattern(name):
    raw = torch.arange(256, dtype=torch.uint8)
    return (raw % 2).bool() if name == "bool" else raw.view(getattr(torch, name))


def whole():
    return {
        "rows": torch.arange(35.0).reshape(7, 5),
        "columns": torch.arange(24, dtype=torch.int32).reshape(4, 6),
        "uneven": torch.arange(3, dtype=torch.bfloat16),
        "one": torch.arange(1.0),
        "replicated": torch.full((2, 2), 7, dtype=torch.uint16),
    }


def two_ranks(rank, folder, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    state = {}
    for name, tensor in whole().items():
        if name != "replicated":
            cut = 1 if name == "columns" else 0
            tensor = distribute_tensor(tensor, mesh, [Shard(cut)])
        state[name] = tensor
    dcp.save(state, checkpoint_id=folder)
    dist.destroy_process_group()


def golden(folder):
    files = {
        "dtypes": ({name: every_bit_pattern(name) for name in ITEMSIZE}, {}),
        "shapes": (
            {
                "scalar": torch.tensor(3.5),
                "empty": torch.empty(0, 3),
                "cube": torch.arange(24).reshape(2, 3, 4),
                "transposed": torch.arange(12.0).reshape(3, 4).t(),
                "größe.\U0001f600": torch.ones(2),
                "../../etc/passwd": torch.full((1,), 2.0),
            },
            {},
        ),
        "values": (
            {"w": torch.ones(2), "step": 3, "lr": 0.1, "betas": (0.9, 0.95), "name": "größe"},
            {"step": "3", "lr": "0.1", "betas": "[0.9, 0.95]", "name": "größe"},
        ),
    }
    for name, (state, metadata) in files.items():
        dcp.save(state, checkpoint_id=folder / f"{name}.dcp", no_dist=True)
        tensors = {key: value for key, value in state.items() if torch.is_tensor(value)}
        record_golden(folder / f"{name}.dcp", tensors, metadata)
    store = folder / "store"
    torch.multiprocessing.spawn(
        two_ranks, (str(folder / "ranks.dcp"), str(store.absolute())), nprocs=2
    )
    store.unlink(missing_ok=True)
    record_golden(folder / "ranks.dcp", whole(), {})


class Runs:
    """What makes a directory when it is unpickled."""

    def __reduce__(self):
        return eval, ("__import__('os').mkdir('executed')",)


def hostile(folder):
    """Checkpoints that torch's own reader runs, or loads (test_dcp_hostile.py has many more)."""

    def made(name, change):
        path = folder / name
        dcp.save({"w": torch.arange(8.0)}, checkpoint_id=path, no_dist=True)
        meta = pickle.loads((path / ".metadata").read_bytes())
        meta = change(meta) or meta
        meta.storage_meta = None
        (path / ".metadata").write_bytes(pickle.dumps(meta))

    def moved(to):
        def change(meta):
            for info in meta.storage_data.values():
                info.relative_path = to

        return change

    def code(meta):
        meta.planner_data = Runs()

    def gap(meta):
        meta.state_dict_metadata["w"].size = torch.Size([9])

    made("code.dcp", code)
    made("absolute.dcp", moved("/etc/passwd"))
    made("parent.dcp", moved("../golden/shapes.dcp/__0_0.distcp"))
    made("gap.dcp", gap)
    made("missing.dcp", moved("__1_0.distcp"))
    (folder / "unfinished.dcp").mkdir()
    shutil.copy(folder / "gap.dcp/__0_0.distcp", folder / "unfinished.dcp/__0_0.distcp")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name, make in {"golden": golden, "hostile": hostile}.items():
        if name in (sys.argv[1:] or [name]):
            shutil.rmtree(HERE / name, ignore_errors=True)
            (HERE / name).mkdir()
            make(HERE / name)
