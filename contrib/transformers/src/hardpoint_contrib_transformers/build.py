"""From a task and a model to a pipeline that runs through hardpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

import hardpoint as hp
from hardpoint_contrib_transformers.compiled import CompiledPipeline, hf_pipeline, own_registry
from hardpoint_contrib_transformers.recording import Recorded, record
from hardpoint_contrib_transformers.stand_in import Facts, stand_in
from hardpoint_contrib_transformers.tasks import find_task


def pipeline(
    task: str,
    model: str | Path | transformers.PreTrainedModel,
    *,
    targets: str | hp.Target | Sequence[str | hp.Target] = "auto",
    precision: hp.Precision | Literal["auto"] = "fp32",
    max_error: float | None = None,
    options: Mapping[str, Mapping[str, object]] | None = None,
    examples: tuple[Sequence[Any], Sequence[Any]] | None = None,
    policy: hp.Policy | None = None,
    registry: hp.Registry | None = None,
    **hf: Any,
) -> CompiledPipeline:
    """``transformers.pipeline``, with the model captured, planned and compiled by hardpoint.

    :param model: a directory (or a name on the hub, if transformers may download it), or a loaded
        model; then give ``tokenizer=`` or ``image_processor=`` too.
    :param targets: ``"auto"``, or ``backend[:device]`` names in order of preference.
    :param precision: ``max_error`` and ``options`` too: as in :func:`hardpoint.compile`.
    :param examples: two batches of inputs to the pipeline, of different length and number; what
        differs between them may change later. By default made up for the task.
    :param policy: what the pipeline's own registry may use.
    :param registry: a registry to use instead of one of its own.
    :param hf: everything else that ``transformers.pipeline`` takes, but ``device`` and
        ``device_map``.
    :raises ConfigError: an unsupported task, or arguments that contradict each other.
    :raises CaptureError: the model cannot be captured, with the reason.
    :raises HardpointError: of planning and compiling.
    """
    wanted = find_task(task)
    mount = own_registry(policy, registry)
    if isinstance(model, (str, Path)):
        # Weights as fp32: the precision is for the backends to choose, and `precision=` says it.
        inner = hf_pipeline(wanted.name, str(model), **{"dtype": torch.float32, **hf})
        inner.model.config.use_cache = False  # a cache object is no tensor
    else:
        inner = hf_pipeline(wanted.name, model, **hf)
    recorded = record(inner, examples or wanted.examples(inner), wanted.call)
    program = hp.capture(
        inner.model,
        kwargs={**recorded.tensors, **recorded.fixed},
        dynamic=_bounded(recorded, inner),
        registry=mount,
    )
    plan = hp.plan(program, targets=targets, registry=mount)
    compiled = hp.compile(
        plan, precision=precision, max_error=max_error, options=options, registry=mount
    )
    facts = Facts.of(inner.model, recorded.fixed)
    inner.model = stand_in(compiled, inner.model.config, facts)
    return CompiledPipeline(wanted.name, inner, compiled, mount)


def _bounded(recorded: Recorded, inner: Any) -> dict[str, dict[int, Any]]:
    """The sizes that change; the sequence with the greatest length that the model can take.

    Without it ``torch.export`` stops one token short of that: it takes the full length, where a
    slice of the position table is the whole table, for a special case.
    """
    longest = _longest(inner)
    if longest is None:
        return recorded.sizes
    seq = torch.export.Dim("seq", max=longest)
    return {
        argument: {d: seq if name == "seq" else name for d, name in sizes.items()}
        for argument, sizes in recorded.sizes.items()
    }


def _longest(inner: Any) -> int | None:
    """Tokens that tokenizer and model both can take; ``None``: no limit is known."""
    if inner.tokenizer is None:
        return None
    known = (
        inner.tokenizer.model_max_length,
        getattr(inner.model.config.get_text_config(), "max_position_embeddings", None),
    )
    # A tokenizer without a limit says 1e30.
    limits = [n for n in known if isinstance(n, int) and 1 < n < 2**31]
    return min(limits, default=None)
