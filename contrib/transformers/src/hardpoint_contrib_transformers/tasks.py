"""Which tasks are supported, and the example inputs that each is captured with.

Every task calls its model once with tensors and reads tensors off it. Tasks that call
``generate()`` are left out: token by token, with a cache, is no static program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hardpoint import ConfigError, did_you_mean

Examples = tuple[Sequence[Any], Sequence[Any]]

# Two batches that differ in every size that may change: rows, and length in tokens.
_SHORT = ("a short text", "a text that is longer")
_LONG = ("one", "this text is by far the longest one here", "a third")
_SAMPLES = (4000, 6000)


@dataclass(frozen=True)
class Task:
    """One task of transformers.

    :param examples: makes two batches for the pipeline, of 2 and of 3 items.
    :param call: what else the pipeline is called with, to record its model's inputs.
    """

    name: str
    examples: Callable[[Any], Examples]
    call: Mapping[str, Any] = field(default_factory=dict)


def _texts(pipe: Any) -> Examples:
    return _SHORT, _LONG


def _masked_texts(pipe: Any) -> Examples:
    mask = pipe.tokenizer.mask_token
    return [f"{text} {mask}" for text in _SHORT], [f"{text} {mask}" for text in _LONG]


def _pictures(pipe: Any) -> Examples:
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    made = [Image.fromarray(random.integers(0, 256, (48, 64, 3), np.uint8)) for _ in range(3)]
    return made[:2], made


def _sounds(pipe: Any) -> Examples:
    import numpy as np

    random = np.random.default_rng(0)
    short, long = (random.standard_normal(length).astype(np.float32) for length in _SAMPLES)
    return [short] * 2, [long] * 3


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("audio-classification", _sounds),
        Task("feature-extraction", _texts),
        Task("fill-mask", _masked_texts),
        Task("image-classification", _pictures),
        Task("image-feature-extraction", _pictures),
        Task("text-classification", _texts),
        Task("token-classification", _texts),
        Task("zero-shot-classification", _texts, {"candidate_labels": ["one", "two", "three"]}),
    )
}
# transformers' own second names.
ALIASES = {"ner": "token-classification", "sentiment-analysis": "text-classification"}


def find_task(name: str) -> Task:
    """The task called ``name``.

    :raises ConfigError: it is not supported, with the tasks that are.
    """
    task = TASKS.get(ALIASES.get(name, name))
    if task is not None:
        return task
    import transformers.pipelines

    if name not in transformers.pipelines.get_supported_tasks():
        raise ConfigError(
            f"{name!r} is no task of transformers", remedy=did_you_mean(name, [*TASKS, *ALIASES])
        )
    raise ConfigError(
        f"the task {name!r} does not run through hardpoint",
        cause="only tasks that call their model once do; not those that generate, token by token "
        "with a cache, or that call parts of it",
        remedy=f"take transformers.pipeline for it; here there are: {', '.join(TASKS)}",
    )
