"""Saving a model that was just compiled, while the weights are what it was compiled from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from hardpoint.errors import PackageError
from hardpoint.runtime.model import CompiledModel


def save_unchanged(
    weights: Mapping[str, torch.Tensor],
) -> Callable[[CompiledModel, Path], Path]:
    """Save, unless the user's model, whose weights these are, was changed since.

    A package must not contradict the figures in it. Writes through ``.data`` are not seen.
    """
    versions = {name: _version(tensor) for name, tensor in weights.items()}

    def save(model: CompiledModel, path: Path) -> Path:
        changed = [name for name, tensor in weights.items() if _version(tensor) != versions[name]]
        if changed:
            raise PackageError(
                f"{path} was not written: the model's weights changed since it was compiled",
                cause=f"{len(changed)} changed, e.g. {changed[0]}",
                remedy="compile again, so that the package's figures are of these weights",
            )
        from hardpoint.package.save import save_package  # PyTorch's compiler with it: a second

        return save_package(model, path)

    return save


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
