"""One of two ranks that save with torch's own writer: ``python dcp_two_ranks.py RANK STORE FOLDER``."""

import sys
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    rank, store, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3))
    fully_shard(model, mesh=mesh)
    whole = torch.arange(35).reshape(7, 5)
    state = {
        **model.state_dict(),
        "columns": distribute_tensor(whole, mesh, [Shard(1)]),
        "one": distribute_tensor(torch.ones(1, 2), mesh, [Shard(0)]),
        "step": 3,
    }
    dcp.save(state, checkpoint_id=f"{folder}/ranks")
    full = {n: t.full_tensor() for n, t in state.items() if isinstance(t, torch.Tensor)}
    if rank == 0:
        torch.save(full, f"{folder}/expected.pt")
    dist.destroy_process_group()
