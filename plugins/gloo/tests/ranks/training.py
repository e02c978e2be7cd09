"""One rank of DDP, FSDP2, tensor parallelism and a 2-D mesh, each against one process alone."""

from __future__ import annotations

import copy
import json
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

import hardpoint as hp


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def step(net: nn.Module, inputs: torch.Tensor, clip: bool = False) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(inputs).square().mean().backward()
    if clip:
        clip_grad_norm_(net.parameters(), 0.5)
    optimizer.step()


def distance(net: nn.Module, reference: nn.Module) -> float:
    """Largest difference of a parameter."""
    worst = 0.0
    for mine, wanted in zip(net.parameters(), reference.parameters(), strict=True):
        whole = mine.full_tensor() if isinstance(mine, DTensor) else mine
        worst = max(worst, (whole - wanted).abs().max().item())
    return worst


def main() -> None:
    hp.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(1)
    batch = torch.randn(4 * size, 8)
    mine = batch.chunk(size)[rank]
    alone, clipped = model(), model()
    step(alone, batch)
    step(clipped, batch, clip=True)
    report: dict[str, float] = {"moved": distance(alone, model())}

    ddp = DistributedDataParallel(model(), bucket_cap_mb=0.0002)  # several buckets
    step(ddp, mine)
    report["ddp"] = distance(ddp.module, alone)

    mesh = init_device_mesh("cpu", (size,))
    sharded = model()
    for layer in sharded:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    step(sharded, mine, clip=True)
    report["fsdp2"] = distance(sharded, clipped)

    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallel = parallelize_module(copy.deepcopy(model()), mesh, plan)
    step(parallel, batch)
    report["tensor_parallel"] = distance(parallel, alone)

    grid = init_device_mesh("cpu", (size, 1), mesh_dim_names=("data", "model"))
    split = distribute_tensor(batch, grid["data"], [Shard(0)])
    report["dtensor"] = (split.sum().full_tensor() - batch.sum()).abs().item()

    dist.destroy_process_group()
    print(json.dumps({**report, "rank": int(os.environ["RANK"])}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
