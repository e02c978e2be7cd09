"""Loading: as a mapping of tensors, or into a module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from hardpoint.errors import WeightsError, did_you_mean
from hardpoint.weights.bulk import Mode, device_named, take
from hardpoint.weights.checksum import check
from hardpoint.weights.choose import open_named
from hardpoint.weights.fill import fill
from hardpoint.weights.progress import bar, ticker
from hardpoint.weights.sliced import Slices, bytes_of_slices, indices

if TYPE_CHECKING:
    import torch

    from hardpoint.interfaces.serializer import Index
    from hardpoint.registry.registry import Registry
    from hardpoint.weights.opened import Opened


def load_weights(
    path: Path | str,
    *,
    registry: Registry,
    mode: Mode = "auto",
    into: torch.nn.Module | None = None,
    device: str = "cpu",
    format: str | None = None,  # noqa: A002 - the field's word
    strict: bool = True,
    slices: Slices | None = None,
    threads: int | None = None,
    verify: bool = False,
    progress: bool | None = None,
) -> Mapping[str, torch.Tensor]:
    """All tensors of a file, by name.

    :param mode: ``"map"``: views of the mapped file where the format allows it: free, but a file
        overwritten in place shows through, and one cut short kills the process; ``"own"``: private
        memory, which nothing can reach; ``"auto"``: a map of files that belong to this user and lie
        on this machine, else own memory.
    :param into: a module to fill in place. Every name, shape and dtype is checked first; memory
        that several names share is filled once. The module's own tensors are returned.
    :param strict: with ``into``: both sides must have the same names.
    :param slices: part of each tensor to load, as an index: by name (whole tensors are those not
        named), or a function of :class:`TensorInfo`. Only the bytes needed are read.
    :param threads: readers at a time.
    :param verify: hold what was read against the checksum that the file carries.
    :param progress: whether to show a bar on stderr; ``None``: if that is a terminal.
    :raises WeightsError: a bad file, or tensors that do not fit ``into``.
    """
    if mode not in get_args(Mode):
        raise WeightsError(f"{mode!r} is no mode", remedy=did_you_mean(mode, get_args(Mode)))
    if verify and (into is not None or slices is not None):
        raise WeightsError(
            "only whole mappings of tensors are verified",
            cause="the checksum is of all tensors of a file",
            remedy="load_weights(path, verify=True), without into= and slices=",
        )
    if into is not None and slices is not None:
        raise WeightsError(
            "slices cannot be loaded into a module",
            cause="a module is filled whole",
            remedy="load the slices, and give them to module.load_state_dict()",
        )
    opened = open_named(path, registry=registry, format=format, device=device)
    with opened.reader as reader:
        # Asked once: a function may answer otherwise the next time.
        parts = None if slices is None else indices(opened, slices)
        with bar(f"loading {len(reader)} tensors", wanted=progress) as show:
            if into is not None:
                return fill(into, opened, path, strict, threads, show)
            tick = ticker(show, _total(opened, parts)) if show else None
            found = take(opened, mode, device_named(device), parts, threads, tick)
        if verify:
            # Of a mapped file, this is when it is read.
            with bar(f"checking {len(found)} tensors", wanted=progress) as show:
                nbytes = sum(t.numel() * t.element_size() for t in found.values()) if show else 0
                check(found, reader.metadata, path, ticker(show, nbytes))
        return found


def _total(opened: Opened, parts: Mapping[str, Index] | None) -> int:
    """Bytes that will be told of as they come."""
    if parts is not None:
        return bytes_of_slices(opened, parts)
    return sum(info.nbytes for info in opened.reader.values())
