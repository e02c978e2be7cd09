"""A model from a local Hugging Face directory: ``config.json`` and weights, without a copy.

The weights are read by our own serializers, so that no pickle is opened and formats stay plugins;
``transformers`` builds the model and applies its renaming rules.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardpoint.errors import HardpointWarning, WeightsError
from hardpoint.weights.bulk import Mode
from hardpoint.weights.content import printable
from hardpoint.weights.load import load_weights

if TYPE_CHECKING:
    import torch

    from hardpoint.registry.registry import Registry

_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json",
    "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip


def from_pretrained(
    path: Path,
    *,
    registry: Registry,
    mode: Mode = "auto",
    device: str = "cpu",
    changes: Mapping[str, object] | None = None,
) -> torch.nn.Module:
    """The model of a directory, in evaluation mode.

    Weights keep the dtype that they have in the file, if all have the same. Where they have
    several, or the model wants some in float32, ``transformers`` decides, and a warning says what
    it converted.

    It is built on the meta device, and the loaded tensors become its parameters: where they are
    mapped (:func:`load_weights`) nothing is copied, nor read before it is used. Where a model's
    names are not those of the file (merged experts, older names), ``transformers`` renames; it may
    copy then.

    :param changes: settings of the configuration to change, e.g. ``{"use_cache": False}``; those
        that it does not have are left out.
    :raises WeightsError: no config, no weights, custom code, a quantized checkpoint, or weights
        that are missing or of another shape.
    """
    transformers, config, cls = _described(path)
    for name, value in (changes or {}).items():
        if hasattr(config, name):
            setattr(config, name, value)
    weights = load_weights(_file(path), registry=registry, mode=mode, device=device)
    model = _assigned(cls, config, weights, device) or _renamed(
        transformers, cls, config, weights, path, device
    )
    if (path / "generation_config.json").is_file() and model.can_generate():
        model.generation_config = transformers.GenerationConfig.from_pretrained(path)
    loaded: torch.nn.Module = model.eval()
    return loaded


def _described(path: Path) -> tuple[Any, Any, Any]:
    """The library, the configuration and the class of the model."""
    config_file = path / "config.json"
    if not config_file.is_file():
        raise WeightsError(
            f"{path} is no Hugging Face directory",
            cause="it has no config.json",
            remedy="give the directory that holds config.json and model.safetensors",
        )
    if (path / "adapter_config.json").is_file():
        raise WeightsError(
            f"{path} holds an adapter, and the model would be loaded without it",
            cause="adapter_config.json is in it",
            remedy="merge the adapter into the model with peft, and save that",
        )
    try:
        import transformers
    except ImportError as error:
        raise WeightsError(
            f"{path} needs transformers",
            cause=str(error),
            remedy='pip install "hardpoint[transformers]"',
        ) from error
    raw = _read_config(config_file)
    if "auto_map" in raw:
        raise WeightsError(
            f"{path} brings model code of its own, which hardpoint does not run",
            cause="config.json has 'auto_map'",
            remedy="build the model yourself and pass it to hardpoint.capture",
        )
    if "quantization_config" in raw:
        raise WeightsError(
            f"{path} holds a quantized model, whose weights are not the model's own",
            cause="config.json has 'quantization_config'",
            remedy="load it with transformers, or get the checkpoint that is not quantized",
        )
    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise WeightsError(
            f"{config_file} describes no model that transformers {transformers.__version__} knows",
            cause=str(error).strip().splitlines()[0][:240] or type(error).__name__,
            remedy="check its model_type, or install another version of transformers",
        ) from error
    return transformers, config, _class(transformers, config, raw.get("architectures"))


def _class(transformers: Any, config: Any, names: object) -> Any:
    """The class that the configuration names, or the plain one of its type. Only a model's."""
    if names:
        name = names[0] if isinstance(names, list) else names
        cls = getattr(transformers, name, None) if isinstance(name, str) else None
    else:
        name, cls = "model of such a type", transformers.MODEL_MAPPING.get(type(config), None)
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)):
        raise WeightsError(
            f"transformers {transformers.__version__} has no {printable(str(name), 60)}",
            remedy="install another version of transformers, or build the model yourself",
        )
    return cls


def _read_config(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(
            f"{path} is not JSON", cause=str(error), remedy="get the directory again"
        ) from error
    if not isinstance(raw, dict):
        raise WeightsError(
            f"{path} is no configuration",
            cause=f"it holds a {type(raw).__name__}, not an object",
            remedy="get the directory again",
        )
    return raw


def _file(path: Path) -> Path:
    for name in _WEIGHTS:
        if (path / name).is_file():
            return path / name
    raise WeightsError(
        f"{path} has no weights",
        cause=f"none of {', '.join(_WEIGHTS)} is in it",
        remedy="get the whole checkpoint",
    )


def _assigned(cls: Any, config: Any, weights: Mapping[str, Any], device: str) -> Any:
    """The model with the loaded tensors as its own; ``None`` where that takes more than names."""
    import torch

    dtypes = _dtypes(weights)
    kept = (cls._keep_in_fp32_modules, cls._keep_in_fp32_modules_strict)
    if len(dtypes) != 1 or (any(kept) and dtypes != {torch.float32}):
        return None  # which parameters get which is for transformers to say
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtypes.pop())  # what buffers of no stated dtype get
        with torch.device("meta"):
            model = cls(config)
    except TypeError:  # fp8 and the like cannot be a default
        return None
    finally:
        torch.set_default_dtype(before)
    own = model.state_dict()
    if any(n not in own or own[n].shape != tensor.shape for n, tensor in weights.items()):
        return None
    # First, while the parameters have no memory yet: what computes buffers makes up parameters too.
    if not _compute_buffers(model, device):
        return None
    model.load_state_dict(dict(weights), strict=False, assign=True)
    model.tie_weights()
    loaded = model.state_dict()
    if any(tensor.is_meta for tensor in loaded.values()):
        return None
    if any(loaded[name].data_ptr() != tensor.data_ptr() for name, tensor in weights.items()):
        return None  # tied by the configuration, and yet both in the file
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return model


def _dtypes(weights: Mapping[str, Any]) -> set[torch.dtype]:
    return {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}


def _compute_buffers(model: Any, device: str) -> bool:
    """Let the model compute the buffers that no file holds; whether it did, all of them."""
    import torch

    for module in model.modules():
        missing = [n for n in module._non_persistent_buffers_set if module._buffers[n] is not None]
        if not missing:
            continue
        for name in missing:
            buffer = module._buffers[name]
            module._buffers[name] = torch.full_like(buffer, _mark(buffer.dtype), device=device)
        try:
            with torch.no_grad():
                model._init_weights(module)
        except (RuntimeError, NotImplementedError):  # it reads what it makes up
            return False
        for name in missing:
            buffer = module._buffers[name]
            left = buffer.isnan() if buffer.is_floating_point() else buffer == _mark(buffer.dtype)
            if bool(left.any()):
                return False
    return True


def _mark(dtype: torch.dtype) -> float | int | bool:
    """What models do not compute, so that what was left alone shows."""
    import torch

    if dtype.is_floating_point:
        return float("nan")
    return True if dtype is torch.bool else torch.iinfo(dtype).min


def _renamed(
    transformers: Any,
    cls: Any,
    config: Any,
    weights: Mapping[str, Any],
    path: Path,
    device: str,
) -> Any:
    """By ``transformers``' own rules of renaming and merging, of our tensors."""
    with no_progress_bar(transformers):
        model, info = cls.from_pretrained(
            None, config=config, state_dict=dict(weights), output_loading_info=True,
            dtype=next(iter(dtypes)) if len(dtypes := _dtypes(weights)) == 1 else "auto",
            ignore_mismatched_sizes=True,  # they are refused below, all of them and in our words
        )  # fmt: skip
    mismatched = sorted(
        key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]
    )
    missing = sorted(info["missing_keys"]) + mismatched
    if missing:
        raise WeightsError(
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
    _tell_of_conversions(model, weights, path)
    return model.to(device)


def _tell_of_conversions(model: Any, weights: Mapping[str, Any], path: Path) -> None:
    became = {
        f"{weights[name].dtype} to {tensor.dtype}".replace("torch.", "")
        for name, tensor in model.state_dict().items()
        if name in weights and tensor.dtype != weights[name].dtype
    }
    if became:
        warnings.warn(
            f"transformers converted weights of {path}: {', '.join(sorted(became))}",
            HardpointWarning,
            stacklevel=5,
        )


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
