"""A local Hugging Face directory: ``config.json`` and weights, through ``transformers``.

The weights are read by our own serializers, so that no pickle is opened and formats stay plugins;
``transformers`` builds the model and applies its renaming rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hardpoint.errors import CaptureError, WeightsError
from hardpoint.program.capture import capture_module
from hardpoint.program.dynamic import Dynamic
from hardpoint.program.program import Program
from hardpoint.weights.pretrained import from_pretrained

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

# Example sizes: at least 2, and different, so that no size is taken for another or for a constant.
BATCH, SEQUENCE = 2, 7


def capture_directory(
    path: Path,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    dynamic: Dynamic = None,
    name: str = "",
    registry: Registry,
) -> Program:
    """Capture the model of a directory, with dynamic batch and sequence unless told otherwise.

    :raises CaptureError: no config, no weights, custom code, or missing weights.
    """
    model = load_model(path, registry)
    if not args and not kwargs:
        kwargs, found = example_inputs(model)
        dynamic = found if dynamic is None else dynamic
    return capture_module(model, args, kwargs, dynamic=dynamic, name=name)


def load_model(path: Path, registry: Registry) -> torch.nn.Module:
    """The model of a directory, in evaluation mode, its weights mapped from the file.

    :raises CaptureError: see :func:`capture_directory`.
    """
    # A cache object is no tensor; see structure.flatten.
    changes = {"use_cache": False}
    try:
        return from_pretrained(path, registry=registry, changes=changes)
    except WeightsError as error:
        raise CaptureError(
            error.what,
            provider=error.provider,
            origin=error.origin,
            cause=error.cause,
            remedy=error.remedy,
        ) from error


def example_inputs(model: Any) -> tuple[dict[str, object], dict[str, dict[int, str]]]:
    """Example keyword arguments for a ``transformers`` model, and which sizes are dynamic.

    :raises CaptureError: a kind of input that we cannot make up.
    """
    config, main = model.config, getattr(model, "main_input_name", "input_ids")
    generator = torch.Generator().manual_seed(0)
    if main == "input_ids":
        vocabulary = int(config.get_text_config().vocab_size)
        ids = torch.randint(0, vocabulary, (BATCH, SEQUENCE), generator=generator)
        both = {0: "batch", 1: "seq"}
        mask = torch.ones_like(ids)
        mask[0, SEQUENCE - 2 :] = 0  # padding, so that the mask matters in verification
        examples: dict[str, object] = {"input_ids": ids, "attention_mask": mask}
        return examples, {"input_ids": both, "attention_mask": both}
    if main == "pixel_values":
        size = config.image_size if hasattr(config, "image_size") else 224
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        channels = int(getattr(config, "num_channels", 3))
        shape = (BATCH, channels, int(height), int(width))
        return {main: torch.randn(shape, generator=generator)}, {main: {0: "batch"}}
    raise CaptureError(
        f"no example can be made up for {type(model).__name__}, whose main input is {main!r}",
        remedy="pass example inputs: hardpoint.capture(directory, kwargs={...}, dynamic={...})",
    )
