"""What a pipeline hands to its model, and which of its sizes change: told by watching two calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hardpoint import ConfigError

Sizes = dict[str, dict[int, Any]]


@dataclass(frozen=True)
class Recorded:
    """How a pipeline calls its model.

    :param tensors: example tensors by argument name.
    :param fixed: every other argument: the same in each call.
    :param sizes: argument -> dimension -> the name of a size that changes, ``"batch"`` first.
    """

    tensors: Mapping[str, torch.Tensor]
    fixed: Mapping[str, bool | int | float | str | None]
    sizes: Sizes


def record(
    pipe: Any, batches: tuple[Sequence[Any], Sequence[Any]], call: Mapping[str, Any]
) -> Recorded:
    """Run both batches through ``pipe`` and compare what reached the model.

    :raises ConfigError: not two batches; or the model was called in two ways, or not by name.
    """
    if len(batches) != 2 or not all(isinstance(b, (list, tuple)) and b for b in batches):
        raise ConfigError(
            "examples= is not two batches of inputs",
            remedy="give two lists that differ in length, and their items too: ([...], [...])",
        )
    one, other = (_first_call(pipe, batch, call) for batch in batches)
    tensors = {name: value for name, value in one.items() if isinstance(value, torch.Tensor)}
    fixed = {name: value for name, value in one.items() if name not in tensors}
    also = {name: value for name, value in other.items() if isinstance(value, torch.Tensor)}
    same_kind = tensors.keys() == also.keys() and all(
        (tensors[name].dtype, tensors[name].dim()) == (also[name].dtype, also[name].dim())
        for name in tensors
    )
    if not same_kind or fixed != {n: v for n, v in other.items() if n not in also}:
        raise ConfigError(
            "the two batches of examples reach the model in two ways",
            cause=f"once with {_words(one)}; once with {_words(other)}",
            remedy="give two batches of like inputs: examples=([...], [...])",
        )
    return Recorded(tensors, fixed, changing_sizes(tensors, also))


def changing_sizes(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> Sizes:
    """Name the sizes that differ between two calls; those that change alike have one name."""
    names: dict[tuple[int, int], str] = {}
    free = ["batch", "seq"]
    sizes: Sizes = {}
    for argument, tensor in one.items():
        for d, pair in enumerate(zip(tensor.shape, other[argument].shape, strict=True)):
            if pair[0] != pair[1]:
                if pair not in names:
                    names[pair] = free.pop(0) if free else f"size{len(names)}"
                sizes.setdefault(argument, {})[d] = names[pair]
    return sizes


def _first_call(pipe: Any, batch: Sequence[Any], call: Mapping[str, Any]) -> dict[str, Any]:
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = pipe.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args, dict(kwargs))), with_kwargs=True
    )
    try:
        pipe(list(batch), batch_size=len(batch), **call)
    finally:
        hook.remove()
    if not seen or seen[0][0]:
        raise ConfigError(
            f"the pipeline calls {type(pipe.model).__name__} in a way that cannot be captured",
            cause="by position" if seen else "not at all: it calls a part of the model",
            remedy="take transformers.pipeline for this model",
        )
    # Sorted: transformers collates in the order of a set, and programs should not differ by it.
    return dict(sorted(seen[0][1].items()))


def _words(call: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{n}: {str(v.dtype).removeprefix('torch.')}{list(v.shape)}"
        if isinstance(v, torch.Tensor)
        else f"{n}={v!r}"
        for n, v in call.items()
    )
