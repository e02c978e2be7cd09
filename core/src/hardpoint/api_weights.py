"""The public functions for weights, bound to the process-wide registry unless one is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hardpoint.registry.registry import Registry, default_registry

if TYPE_CHECKING:
    import torch

    from hardpoint.interfaces.serializer import Reader
    from hardpoint.weights.background import BackgroundSaver
    from hardpoint.weights.bulk import Mode
    from hardpoint.weights.sliced import Slices

__all__ = [
    "from_pretrained", "load_weights", "open_weights", "save_in_background", "save_weights",
]  # fmt: skip


def open_weights(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the field's word
    device: str = "cpu",
    registry: Registry | None = None,
) -> Reader:
    """Open a file of weights: tensor names and sizes at once, data when asked for.

    :param path: of a file or directory; or a URL (``https://``, ``s3://``, ``hf://``...), of which
        only what is asked for is read.
    :raises WeightsError: damaged or hostile file, or of no known format.
    """
    from hardpoint.weights import open_weights as opens

    return opens(path, registry=registry or default_registry(), format=format, device=device)


def load_weights(
    path: str | Path,
    *,
    mode: Mode = "auto",
    into: torch.nn.Module | None = None,
    device: str = "cpu",
    format: str | None = None,  # noqa: A002
    strict: bool = True,
    slices: Slices | None = None,
    threads: int | None = None,
    verify: bool = False,
    progress: bool | None = None,
    registry: Registry | None = None,
) -> Mapping[str, torch.Tensor]:
    """Load a file of weights; the format is told by content.

    :param path: of a file or directory; or a URL (``https://``, ``s3://``, ``hf://``...).
    :param mode: ``"map"``: zero-copy views of the mapped file; ``"own"``: private memory;
        ``"auto"``: a map of this user's files on this machine's disks, own memory for all others.
    :param into: a module to fill in place, after every name, shape and dtype was checked.
    :param slices: part of each tensor, e.g. this rank's of a tensor-parallel model: an index by
        name, or a function that gives one for a :class:`TensorInfo` (``None``: all of it).
    :param threads: how many read at a time; by default up to 4, 16 from a disk that must be
        waited for, and 8 from a network.
    :param verify: hold all tensors against the checksum that the file carries.
    :param progress: a bar on stderr for what takes over a second; ``None``: on a terminal.
    :raises WeightsError: damaged or hostile file, or tensors that do not fit ``into``.
    """
    from hardpoint.weights import load_weights as loads

    return loads(
        path, registry=registry or default_registry(), mode=mode, into=into, device=device,
        format=format, strict=strict, slices=slices, threads=threads, verify=verify,
        progress=progress,
    )  # fmt: skip


def from_pretrained(
    directory: str | Path,
    *,
    mode: Mode = "auto",
    device: str = "cpu",
    registry: Registry | None = None,
) -> torch.nn.Module:
    """The model of a local Hugging Face directory, in evaluation mode, through ``transformers``.

    It is built on the meta device, and the loaded tensors become its parameters: where
    they are mapped (:func:`load_weights`) nothing is copied, nor read before it is used. Dtypes are
    the file's.

    :raises WeightsError: no config or weights, custom code, a quantized checkpoint, or weights that
        are missing or of another shape.
    """
    from hardpoint.weights.pretrained import from_pretrained as loads

    where = registry or default_registry()
    return loads(Path(directory), registry=where, mode=mode, device=device)


def save_weights(
    tensors: Mapping[str, torch.Tensor],
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    metadata: Mapping[str, str] | None = None,
    checksum: bool = False,
    progress: bool | None = None,
    registry: Registry | None = None,
) -> None:
    """Save tensors atomically; the format is told by ``path``'s suffix unless named.

    :param checksum: add the SHA-256 of all tensors to the metadata, which
        ``load_weights(verify=True)`` checks; it stays right when the file is converted.
    :param progress: a bar on stderr for what takes over a second; ``None``: on a terminal.
    :raises WeightsError: a tensor that the format cannot hold.
    """
    from hardpoint.weights import save_weights as saves

    saves(
        tensors,
        Path(path),
        registry=registry or default_registry(),
        format=format,
        metadata=metadata,
        checksum=checksum,
        progress=progress,
    )


def save_in_background(
    *,
    format: str | None = None,  # noqa: A002
    registry: Registry | None = None,
) -> BackgroundSaver:
    """A saver whose ``save(tensors, path)`` takes no longer than copying the tensors.

    ``with hp.save_in_background() as saver: ... saver.save(state, path)`` in a training loop: the
    file is written by a thread; one at a time; an error is raised by the next call or at the end.
    """
    from hardpoint.weights.background import BackgroundSaver

    return BackgroundSaver(format=format, registry=registry or default_registry())
