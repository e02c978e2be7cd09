"""What ranks of the tests of ``hardpoint.bridges.dcp`` do: run as a script, once for each rank.

``python dcp_ranks.py RANK WORLD STORE FOLDER save|load``
"""

import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from hardpoint.bridges.dcp import Reader, Writer

PLACED = {
    "rows": (torch.arange(35.0).reshape(7, 5), 0),
    "columns": (torch.arange(24, dtype=torch.int32).reshape(4, 6), 1),
    "uneven": (torch.arange(4, dtype=torch.bfloat16), 0),
    "one": (torch.full((1, 3), 9.0), 0),
    "flags": (torch.arange(6) % 2 == 0, 0),
    "everywhere": (torch.arange(5, dtype=torch.int64), None),
}
VALUES = {"step": 7, "options": {"betas": (0.9, 0.95), "names": ["a", None], "inf": float("inf")}}


def placed(mesh, *, empty=False):
    state = {}
    for name, (whole, cut) in PLACED.items():
        start = torch.zeros_like(whole) if empty else whole
        placement = Replicate() if cut is None else Shard(cut)
        state[name] = distribute_tensor(start, mesh, [placement])
    return state


def trained(mesh, *, seed):
    """A model under FSDP2 after one step of AdamW, and its states."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model(torch.randn(4, 5)).sum().backward()
    optimizer.step()
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}


def whole(value):
    """The same state with plain tensors: what a single rank sees."""
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    return value.full_tensor() if isinstance(value, DTensor) else value


def state_of(mesh, *, seed, empty=False):
    extra = {"step": 0, "options": {"betas": None, "names": None, "inf": 0.0}} if empty else VALUES
    return {"placed": placed(mesh, empty=empty), "trained": trained(mesh, seed=seed), **extra}


def save(mesh, folder, rank):
    state = state_of(mesh, seed=1)
    dcp.save(state, storage_writer=Writer(folder / "safetensors"))
    dcp.save(state, storage_writer=Writer(folder / "inner", format="dcp"))
    dcp.save(state, checkpoint_id=folder / "plain")
    writer = Writer(folder / "background")
    dcp.async_save({**state, "step": 6}, storage_writer=writer).result()
    dcp.async_save(state, storage_writer=writer).result()
    full = whole(state)
    if rank == 0:
        torch.save(full, folder / "expected.pt")


def load(mesh, folder, rank):
    expected = torch.load(folder / "expected.pt", weights_only=True)
    count = 0
    for name in ("safetensors", "inner", "background"):
        state = state_of(mesh, seed=2, empty=True)
        dcp.load(state, storage_reader=Reader(folder / name))
        count += same(whole(state), expected, name)
    state = state_of(mesh, seed=2, empty=True)
    tensors = {key: state[key] for key in ("placed",)}
    dcp.load(tensors, storage_reader=Reader(folder / "plain"))
    count += same(whole(tensors["placed"]), expected["placed"], "plain")
    print(f"{count} values are equal")


def same(got, expected, where):
    """How many values were compared."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), where
        return sum(same(got[key], expected[key], f"{where}.{key}") for key in expected)
    if torch.is_tensor(expected):
        assert got.dtype == expected.dtype, where
        assert torch.equal(got, expected), where
    else:
        assert type(got) is type(expected), where
        assert got == expected, where
    return 1


def main(rank, world, store, folder, action):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    {"save": save, "load": load}[action](mesh, folder, rank)
    dist.destroy_process_group()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), sys.argv[5])
