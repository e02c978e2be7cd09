"""Parts that train a step as PyTorch's users do, against one process alone."""

from __future__ import annotations

import copy
import gc

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from hardpoint.testing.transport.ranks.scene import Scene

_CLOSE = 1e-5


def ddp(scene: Scene) -> None:
    """Data parallel, in several buckets, with buffers to broadcast."""
    with scene.group():
        alone, batch = _model(scene, norm=True), _batch(scene)
        net = DistributedDataParallel(_model(scene, norm=True), bucket_cap_mb=0.0002)
        for _ in range(2):  # DDP rebuilds its buckets after the first
            # Statistics of a part are not those of the whole, so both keep those they have.
            _step(alone.eval(), batch)
            _step(net.eval(), batch.chunk(scene.size)[scene.rank])
        _compare(scene, "DistributedDataParallel", net.module, alone)
        # Before its group: where the reducer is the last to hold a group it joins the group's
        # threads with the GIL held, which one of them may wait for (torch 2.13, stock gloo too).
        del net
        gc.collect()


def fsdp2(scene: Scene) -> None:
    """Fully sharded, each layer and the whole."""
    with scene.group():
        mesh = init_device_mesh(scene.device.type, (scene.size,))
        alone, net, batch = _model(scene), _model(scene), _batch(scene)
        for layer in net:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh)
        fully_shard(net, mesh=mesh)
        _step(alone, batch)
        _step(net, batch.chunk(scene.size)[scene.rank])
        _compare(scene, "fully_shard", net, alone)


def tensor_parallel(scene: Scene) -> None:
    """A layer by columns, one by rows; and a sharded tensor summed."""
    with scene.group():
        mesh = init_device_mesh(scene.device.type, (scene.size,))
        alone, batch = _model(scene), _batch(scene)
        plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
        net = parallelize_module(copy.deepcopy(alone), mesh, plan)
        _step(alone, batch)
        _step(net, batch)
        _compare(scene, "tensor parallel", net, alone)
        scene.at("sum of a DTensor")
        summed = distribute_tensor(batch, mesh, [Shard(0)]).sum()
        assert isinstance(summed, DTensor)
        total = summed.full_tensor()
        if (total - batch.sum()).abs().item() > _CLOSE * batch.numel():
            scene.wrong(f"a DTensor's sum is {total.item()}, expected {batch.sum().item()}")


def pipeline(scene: Scene) -> None:
    """A stage a rank, four microbatches."""
    with scene.group():
        whole, alone, batch = _model(scene), _model(scene), _batch(scene)
        parts = list(whole)
        split = [parts[:1], parts[1:]] if scene.size == 2 else [[part] for part in parts]
        stage = nn.Sequential(*split[scene.rank])
        schedule = ScheduleGPipe(
            PipelineStage(stage, scene.rank, scene.size, scene.device), 4, loss_fn=_loss
        )
        scene.at("a step of a pipeline")
        losses: list[torch.Tensor] = []
        if scene.rank == 0:
            schedule.step(batch)
        elif scene.rank == scene.size - 1:
            schedule.step(target=torch.zeros(len(batch), 4, device=scene.device), losses=losses)
        else:
            schedule.step()
        loss = _loss(alone(batch), torch.zeros(len(batch), 4, device=scene.device))
        loss.backward()  # type: ignore[no-untyped-call]
        names = {id(p): name for name, p in whole.named_parameters()}
        wanted = {name: p.grad for name, p in alone.named_parameters()}
        for parameter in stage.parameters():
            name = names[id(parameter)]
            _close(scene, f"pipelining: the gradient of {name}", parameter.grad, wanted[name])


def _loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean()


def _model(scene: Scene, *, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    middle: nn.Module = nn.BatchNorm1d(16) if norm else nn.Tanh()
    return nn.Sequential(nn.Linear(8, 16), middle, nn.Linear(16, 4)).to(scene.device)


def _batch(scene: Scene) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(8 * scene.size, 8).to(scene.device)


def _step(net: nn.Module, inputs: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(inputs).square().mean().backward()
    optimizer.step()


def _compare(scene: Scene, how: str, net: nn.Module, alone: nn.Module) -> None:
    scene.at(f"parameters after a step of {how}")
    wanted = dict(alone.named_parameters())
    for name, parameter in net.named_parameters():
        mine = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        _close(scene, f"{how}: parameter {name} after a step", mine, wanted[name])


def _close(scene: Scene, what: str, mine: torch.Tensor | None, wanted: torch.Tensor | None) -> None:
    if mine is None or wanted is None:
        scene.wrong(f"{what} is missing")
        return
    apart = (mine - wanted).abs().max().item()
    if not apart <= _CLOSE:  # NaN is wrong, too
        scene.wrong(f"{what} is {apart:.3g} away from that of one process alone")
