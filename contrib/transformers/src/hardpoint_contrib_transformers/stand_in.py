"""What a pipeline calls in place of its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from transformers import PreTrainedConfig
from transformers.utils.generic import ModelOutput

from hardpoint import CompiledModel, InputError


@dataclass(frozen=True)
class Facts:
    """What is known of the model beside its program, JSON-serializable.

    :param architecture: name of its class.
    :param dtype: that it was captured in; pipelines cast pictures and sounds to it.
    :param prefix: transformers' ``base_model_prefix``.
    :param modalities: what it takes: text, image, audio.
    :param fixed: arguments that were the same in every recorded call.
    """

    architecture: str
    dtype: str
    prefix: str
    modalities: list[str]
    fixed: Mapping[str, bool | int | float | str | None]

    @classmethod
    def of(cls, model: Any, fixed: Mapping[str, Any]) -> Facts:
        """Read them off a model of transformers."""
        given = model.input_modalities
        return cls(
            architecture=type(model).__name__,
            dtype=str(model.dtype).removeprefix("torch."),
            prefix=model.base_model_prefix,
            modalities=[given] if isinstance(given, str) else list(given),
            fixed=dict(fixed),
        )


class StandIn:
    """A compiled model, with as much of a ``PreTrainedModel``'s face as pipelines look at.

    It holds no module of the model: what does not fit the compiled program is an error, and
    nothing can run eagerly in silence.
    """

    device = torch.device("cpu")

    def __init__(self, compiled: CompiledModel, config: PreTrainedConfig, facts: Facts) -> None:
        self.compiled = compiled
        self.config = config
        self.facts = facts
        self.name_or_path = config.name_or_path
        self.dtype: torch.dtype = getattr(torch, facts.dtype)
        self.base_model_prefix = facts.prefix
        self.input_modalities = facts.modalities

    def __call__(self, **inputs: Any) -> ModelOutput:
        """Run the compiled model.

        :raises InputError: arguments or sizes that it was not captured for.
        """
        try:
            result = self.compiled(**{**self.facts.fixed, **inputs})
        except InputError as error:
            error.remedy = (
                "shorten a text that is too long with truncation=True; else make the pipeline "
                "with examples=([...], [...]) of inputs like this one"
            )
            raise
        if isinstance(result, ModelOutput):
            return result
        # Its class is of a module that is not imported here; pipelines take this one as well.
        assert isinstance(result, Mapping), "transformers' models give mappings"
        fields = {str(name): value for name, value in result.items()}
        return ModelOutput(fields)  # type: ignore[no-untyped-call]

    forward = __call__

    def can_generate(self) -> bool:
        """Never: see :mod:`hardpoint_contrib_transformers.tasks`."""
        return False

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"this pipeline's model runs through hardpoint and has no {name!r}; "
            "for that, take transformers.pipeline"
        )


def stand_in(compiled: CompiledModel, config: PreTrainedConfig, facts: Facts) -> StandIn:
    """A :class:`StandIn` whose class is named as the model's.

    A pipeline asks for the name of its model's class, to warn of one that cannot do the task.
    """
    cls: type[StandIn] = type(facts.architecture, (StandIn,), {})
    return cls(compiled, config, facts)
