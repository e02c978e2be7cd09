"""A local Hugging Face directory: ``config.json`` and weights, through ``transformers``.

The weights are read by our own serializers, so that no pickle is opened and formats stay plugins;
``transformers`` builds the model and applies its renaming rules.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hardpoint.errors import CaptureError, HardpointWarning
from hardpoint.program.capture import capture_module
from hardpoint.program.dynamic import Dynamic
from hardpoint.program.program import Program
from hardpoint.weights import load_weights

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
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
    config_file = path / "config.json"
    if not config_file.is_file():
        raise CaptureError(
            f"{path} is no Hugging Face directory",
            cause="it has no config.json",
            remedy="give the directory that holds config.json and model.safetensors",
        )
    try:
        import transformers
    except ImportError as error:
        raise CaptureError(
            f"{path} needs transformers",
            cause=str(error),
            remedy='pip install "hardpoint[transformers]"',
        ) from error
    raw = _read_config(config_file)
    if "auto_map" in raw:
        raise CaptureError(
            f"{path} brings model code of its own, which hardpoint does not run",
            cause="config.json has 'auto_map'",
            remedy="build the model yourself and pass it to hardpoint.capture",
        )
    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CaptureError(
            f"{config_file} describes no model that transformers {transformers.__version__} knows",
            cause=str(error).strip().splitlines()[0][:240] or type(error).__name__,
            remedy="check its model_type, or install another version of transformers",
        ) from error
    if getattr(config, "use_cache", False):
        config.use_cache = False  # a cache object is no tensor; see structure.flatten
    names = getattr(config, "architectures", None) or []
    cls: Any = getattr(transformers, names[0], None) if names else transformers.AutoModel
    if cls is None:
        raise CaptureError(
            f"transformers {transformers.__version__} has no {names[0]}",
            remedy="install another version of transformers, or build the model yourself",
        )
    weights = _weights(path, registry)
    with no_progress_bar(transformers):
        model, info = cls.from_pretrained(
            None, config=config, state_dict=weights, output_loading_info=True, dtype="auto"
        )
    missing = sorted(info["missing_keys"]) + [str(k) for k in info["mismatched_keys"]]
    if missing:
        raise CaptureError(
            f"{path} lacks {len(missing)} of the weights of {cls.__name__}",
            cause=f"missing or of another shape: {', '.join(missing[:4])}",
            remedy="get the whole checkpoint; a model with random weights is never run in silence",
        )
    if info["unexpected_keys"]:
        unused = sorted(info["unexpected_keys"])
        warnings.warn(
            f"{len(unused)} weights of {path} are not used by {cls.__name__}: "
            f"{', '.join(unused[:4])}",
            HardpointWarning,
            stacklevel=4,
        )
    loaded: torch.nn.Module = model.eval()
    return loaded


def _read_config(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CaptureError(
            f"{path} is not JSON", cause=str(error), remedy="get the directory again"
        ) from error
    if not isinstance(raw, dict):
        raise CaptureError(
            f"{path} is no configuration",
            cause=f"it holds a {type(raw).__name__}, not an object",
            remedy="get the directory again",
        )
    return raw


@contextmanager
def no_progress_bar(transformers: Any) -> Iterator[None]:
    """Nothing is read there: the weights are mapped already."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _weights(path: Path, registry: Registry) -> Mapping[str, torch.Tensor]:
    for name in _WEIGHTS:
        if (path / name).is_file():
            return dict(load_weights(path / name, registry=registry, mode="map"))
    pickles = [name for name in _PICKLES if (path / name).is_file()]
    raise CaptureError(
        f"{path} has no safetensors weights",
        cause=f"found {pickles[0]}, which is a pickle" if pickles else "no model.safetensors",
        remedy="get the checkpoint as safetensors",
    )


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
