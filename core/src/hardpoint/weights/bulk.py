"""All tensors of an open file at once, in the fastest way for the purpose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import Index, TensorInfo
from hardpoint.weights.opened import Opened
from hardpoint.weights.sliced import take_slices

if TYPE_CHECKING:
    import torch

    from hardpoint.storage.gather import Tick
    from hardpoint.storage.source import Source

# How tensors come to this machine's memory; see :func:`hardpoint.load_weights`.
Mode = Literal["auto", "map", "own"]
Placed = list[tuple[TensorInfo, "Source"]]


def take(
    opened: Opened,
    mode: Mode,
    device: torch.device,
    slices: Mapping[str, Index] | None = None,
    threads: int | None = None,
    tick: Tick | None = None,
) -> dict[str, torch.Tensor]:
    """Every tensor of the file by name, in the file's order.

    :param slices: the part to take of each, as :func:`hardpoint.weights.sliced.indices` gives it.
    """
    if slices is not None:
        return take_slices(opened, mode, device, slices, threads, tick)
    direct, others = split(opened)
    found: dict[str, torch.Tensor]
    if device.type != "cpu":
        from hardpoint.storage.transfer import to_device

        found = to_device(direct, device, threads=threads, tick=tick)
    elif mode != "own":
        found = _mapped(direct, threads, tick, anyway=mode == "map")
    else:
        from hardpoint.storage.own import own

        found = own(direct, threads=threads, tick=tick)
    for name in others:
        tensor = opened.tensor(name)
        found[name] = private(tensor) if mode == "own" else tensor
        if tick is not None:
            tick(opened.reader[name].nbytes)
    return {name: found[name] for name in opened.reader} if others else found


def split(opened: Opened) -> tuple[Placed, list[str]]:
    """The tensors that we can move ourselves, and the names of those that the reader must give."""
    from hardpoint.storage.typed import fits

    direct: Placed = []
    others = []
    sources: dict[str, Source] = {}
    for name, info in opened.reader.items():
        source = sources.get(info.file)
        usual = source is not None and info.offset is not None and info.name == name
        if source is None or not usual or not fits(info, source.size):
            placed = opened.placed(name)  # or says what is wrong with it
            if placed is None:
                others.append(name)
                continue
            info, source = placed
            sources[info.file] = source
        direct.append((info, source))
    return direct, others


def _mapped(
    direct: Placed, threads: int | None, tick: Tick | None, *, anyway: bool
) -> dict[str, torch.Tensor]:
    """Views of the files; what is not mapped (a remote file, one of others) is read."""
    from hardpoint.storage.mapped import MappedSource
    from hardpoint.storage.own import own

    by_source: dict[int, tuple[Source, list[TensorInfo]]] = {}
    last: Source | None = None
    infos: list[TensorInfo] = []
    for info, source in direct:
        if source is not last:
            last, infos = by_source.setdefault(id(source), (source, []))
        infos.append(info)
    found: dict[str, torch.Tensor] = {}
    others: Placed = []
    for source, infos in by_source.values():
        memory = MappedSource(source, anyway=anyway)
        if memory.possible:
            found.update(memory.tensors(infos))
        else:
            others.extend((info, source) for info in infos)
    if others:
        found.update(own(others, threads=threads, tick=tick))
    return found if len(by_source) == 1 else {info.name: found[info.name] for info, _ in direct}


def private(tensor: torch.Tensor) -> torch.Tensor:
    """A copy, unless the tensor is on another device, and so is a copy already."""
    import torch

    if tensor.device.type != "cpu":
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def device_named(name: str) -> torch.device:
    """PyTorch's device.

    :raises WeightsError: there is none of that name.
    """
    import torch

    try:
        return torch.device(name)
    except RuntimeError as error:
        raise WeightsError(
            f"{name!r} is no device",
            cause=str(error).splitlines()[0],
            remedy="name a PyTorch device, e.g. 'cpu' or 'cuda:0'",
        ) from error
