"""Saving a model that was just compiled, while the weights are what it was compiled from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hardpoint.errors import PackageError
from hardpoint.runtime.model import CompiledModel
from hardpoint.runtime.unchanged import Unchanged


def save_unchanged(weights: Unchanged) -> Callable[[CompiledModel, Path], Path]:
    """Save, unless the user's model, whose weights these are, was changed since.

    A package must not contradict the figures in it.
    """

    def save(model: CompiledModel, path: Path) -> Path:
        if weights.changed():
            raise PackageError(
                f"{path} was not written: the model's weights changed since it was compiled",
                cause=weights.in_words(),
                remedy="compile again, so that the package's figures are of these weights",
            )
        from hardpoint.package.save import save_package  # PyTorch's compiler with it: a second

        return save_package(model, path)

    return save
