"""The pipeline that users hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

import hardpoint as hp
from hardpoint_contrib_transformers import folder


@dataclass(frozen=True, eq=False)
class CompiledPipeline:
    """A transformers pipeline whose model is a compiled one; called like the pipeline.

    :param task: transformers' name of it.
    :param inner: transformers' own pipeline: it prepares inputs and reads results.
    :param compiled: what runs in place of the model.
    :param registry: the providers that it uses.
    """

    task: str
    inner: Any
    compiled: hp.CompiledModel
    registry: hp.Registry

    def __call__(self, *inputs: Any, **parameters: Any) -> Any:
        """Call the pipeline, as transformers documents it for the task.

        :raises InputError: inputs of a size that the model was not captured for.
        """
        return self.inner(*inputs, **parameters)

    def save(self, path: str | Path) -> Path:
        """Write a folder that :func:`hardpoint_contrib_transformers.load` starts from.

        :raises PackageError: ``path`` holds something already, or cannot be written.
        """
        return folder.save(self.task, self.inner, self.compiled, Path(path))

    def __str__(self) -> str:
        return f"{self.task} with {type(self.inner.model).__name__}\n{self.compiled}"


def own_registry(policy: hp.Policy | None, registry: hp.Registry | None) -> hp.Registry:
    """The registry of one pipeline.

    :raises ConfigError: both are given.
    """
    if registry is None:
        return hp.Registry(policy=policy)
    if policy is not None:
        raise hp.ConfigError(
            "policy= and registry= are both given",
            cause="a registry has its policy already",
            remedy="give one of them: registry=hp.Registry(policy=...)",
        )
    return registry


def hf_pipeline(task: str, model: Any, **hf: Any) -> Any:
    """Make transformers' own pipeline around ``model``: a name, or what behaves like its models.

    :raises ConfigError: ``hf`` says where transformers should put the model.
    """
    for name in ("device", "device_map"):
        if name in hf:
            raise hp.ConfigError(
                f"{name}={hf[name]!r} is transformers' word for where a model runs",
                cause="here the plan says it",
                remedy="say targets=, e.g. targets='cpu'",
            )
    make: Any = transformers.pipeline  # its types name its own models only
    return make(task, model, device="cpu", **hf)
