"""Tensors by name in files, and what they hold in a few figures."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from hardpoint import api_weights
from hardpoint.errors import ConfigError, InputError, did_you_mean
from hardpoint.program.signature import Signature


@dataclass(frozen=True, slots=True)
class Summary:
    """A tensor in figures.

    :param least: without NaN, as are ``mean`` and ``greatest``; ``None`` where nothing is left. Of
        a complex tensor they describe the magnitudes.
    :param nan: how many elements are NaN.
    """

    dtype: str
    shape: tuple[int, ...]
    least: float | None
    mean: float | None
    greatest: float | None
    nan: int

    def to_json(self) -> dict[str, object]:
        """JSON-serializable; an infinite figure is written as a string, for JSON has none."""
        figures = {"min": self.least, "mean": self.mean, "max": self.greatest}
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            **{k: v if v is None or math.isfinite(v) else str(v) for k, v in figures.items()},
            "nan": self.nan,
        }


def summarize(tensor: torch.Tensor) -> Summary:
    """``tensor`` in figures, computed in float64."""
    values = tensor.detach().cpu()
    values = (values.abs() if values.is_complex() else values).to(torch.float64)
    nan = torch.isnan(values)
    kept = values[~nan]
    some = kept.numel() > 0
    return Summary(
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        least=float(kept.min()) if some else None,
        mean=float(kept.mean()) if some else None,
        greatest=float(kept.max()) if some else None,
        nan=int(nan.sum()),
    )


def read(path: Path) -> Mapping[str, torch.Tensor]:
    """All tensors of ``path``: an ``.npz``, or whatever an installed serializer reads.

    In memory of their own, since a program may write to its inputs. Never unpickles.

    :raises InputError: the ``.npz`` is damaged or holds something else than numbers.
    :raises WeightsError: no serializer reads the file.
    """
    if path.suffix == ".npz":
        return _read_npz(path)
    return api_weights.load_weights(path, mode="own")


def _read_npz(path: Path) -> dict[str, torch.Tensor]:
    numpy = _numpy(path)
    try:
        # Opened here: numpy leaves a file open whose content it refuses.
        with path.open("rb") as file:
            arrays = numpy.load(file, allow_pickle=False)
            if not hasattr(arrays, "files"):
                raise ValueError("it is a single array without a name, as numpy.save writes")
            return {name: torch.from_numpy(arrays[name].copy(order="C")) for name in arrays.files}
    except Exception as error:
        # numpy raises half a dozen kinds of error on damaged and on hostile files.
        raise InputError(
            f"the inputs in {path} cannot be read",
            cause=f"{type(error).__name__}: {error}",
            remedy="write plain arrays of numbers with numpy.savez, or a .safetensors file",
        ) from error


def in_order(
    tensors: Mapping[str, torch.Tensor], signature: Signature, path: Path
) -> list[torch.Tensor]:
    """``tensors`` in the order of the program's inputs.

    :raises InputError: one is missing, or is no input of the program.
    """
    names = [spec.name for spec in signature.inputs]
    takes = f"the program takes: {signature.describe_arguments()}"
    missing = [name for name in names if name not in tensors]
    if missing:
        raise InputError(
            f"{path} has no tensor {missing[0]!r}",
            cause=f"it has: {', '.join(sorted(tensors)) or 'none'}",
            remedy=takes,
        )
    unknown = sorted(tensors.keys() - set(names))
    if unknown:
        raise InputError(
            f"{path} has a tensor {unknown[0]!r}, which is no input of the program",
            cause=did_you_mean(unknown[0], names),
            remedy=takes,
        )
    return [tensors[name] for name in names]


def write(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write ``tensors`` to ``path``, as its suffix says.

    :raises ConfigError: an ``.npz`` cannot hold them, or cannot be written.
    :raises WeightsError: no serializer writes such files.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".npz":
        numpy = _numpy(path)
        try:
            arrays = {name: tensor.numpy() for name, tensor in plain.items()}
            with path.open("wb") as file:
                numpy.savez(file, **arrays)
        except (TypeError, OSError) as error:
            raise ConfigError(
                f"the results cannot be written to {path}",
                cause=f"{type(error).__name__}: {error}",
                remedy="write to a .safetensors file, which holds every type of PyTorch",
            ) from error
        return
    api_weights.save_weights(plain, path)


def _numpy(path: Path) -> ModuleType:
    try:
        return importlib.import_module("numpy")
    except ImportError as error:
        raise ConfigError(
            f"{path} needs numpy",
            cause=str(error),
            remedy="pip install numpy, or use a .safetensors file",
        ) from error
