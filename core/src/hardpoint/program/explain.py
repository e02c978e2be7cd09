"""Say where in the model ``torch.export`` failed, why, and what to change."""

from __future__ import annotations

import linecache
import re
import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from hardpoint.errors import CaptureError

# What the message of the root error holds -> what the model's owner can do. First match wins.
_REMEDIES = (
    (
        r"data-dependent|GuardOnDataDependent",
        "the line branches on a tensor's values: use torch.where or torch.cond, or tell the "
        "exporter what holds with torch._check(...)",
    ),
    (
        r"Constraints violated|specialized|inferred a static shape",
        "the model fixes a size that was declared dynamic, or its range: leave it out of dynamic=, "
        "or declare it by name alone ({0: 'batch'}), which takes the range that the model has",
    ),
    (
        r"compiled_fn to be GraphModule",
        "two buffers of the model share memory, and a call writes to it: register one of them only",
    ),
    (
        r"no fake impl|Meta kernel|fake impl",
        "an operator has no shape function: register one with torch.library.register_fake",
    ),
    (
        r"numpy|fake tensor|Cannot convert|[Dd]ata[Dd]ependentOutput",
        "the line reads values of a tensor outside of PyTorch (numpy, .item(), .tolist()): keep "
        "the computation in torch operators",
    ),
    (
        r"Unsupported|not supported",
        "rewrite the line with torch operators, or wrap it in a torch.library.custom_op",
    ),
)
_FALLBACK = (
    "call the model itself with these examples first; if that works, write the line so that "
    "torch.export can trace it (PyTorch's documentation: 'torch.export')"
)
# Advice for the exporter's own developers, in its messages.
_NOISE = re.compile(
    r"For more information, run with TORCH_LOGS.*|For extended logs.*|For more debugging help.*|"
    r"If you suspect the guard.*|The error above occurred when calling torch.export.*|"
    r"consider using data-dependent friendly APIs.*|Caused by: \(.*|For C\+\+ stack trace.*|"
    r"(?s:The following call raised.*)"
)
_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
_STDLIB = sysconfig.get_path("stdlib")


def explain_export_failure(
    error: Exception,
    model: str,
    inputs: Sequence[str],
    shapes: Sequence[Mapping[int, object]],
) -> CaptureError:
    """The reader's version of an exporter's exception: line of the model, cause, remedy."""
    root = root_cause(error)
    text = _in_our_names(f"{type(root).__name__}: {root}", inputs)
    where = model_line(error)
    remedy = next((r for pattern, r in _REMEDIES if re.search(pattern, text)), _FALLBACK)
    declared = [f"{n}{sorted(d)}" for n, d in zip(inputs, shapes, strict=True) if d]
    if declared:
        remedy += f" (dynamic here: {', '.join(declared)})"
    return CaptureError(
        f"torch.export cannot capture {model}" + (f", at {where}" if where else ""),
        cause=shorten(text),
        remedy=remedy,
    )


def _in_our_names(text: str, inputs: Sequence[str]) -> str:
    """The exporter speaks of ``L['flat'][0].size()[1]``; its reader of ``x.size(1)``."""

    def name(match: re.Match[str]) -> str:
        return inputs[int(match[1])] + (f".size({match[2]})" if match[2] else "")

    return re.sub(r"(?:L|inputs)\['flat'\]\[(\d+)\](?:\.(?:size\(\)|shape)\[(\d+)\])?", name, text)


def root_cause(error: BaseException) -> BaseException:
    """The first exception of the chain: what really went wrong."""
    seen = {id(error)}
    while True:
        earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if earlier is None or id(earlier) in seen:
            return error
        seen.add(id(earlier))
        error = earlier


def model_line(error: BaseException) -> str:
    """``file:line in function: source`` of the innermost frame outside torch and hardpoint."""
    links = [error]
    while links[-1].__cause__ or links[-1].__context__:
        later = links[-1].__cause__ or links[-1].__context__
        if later is None or later in links:
            break
        links.append(later)
    for link in reversed(links):
        for frame in reversed(traceback.extract_tb(link.__traceback__)):
            if _is_model_code(frame.filename):
                line = linecache.getline(frame.filename, frame.lineno or 0).strip()
                return f"{frame.filename}:{frame.lineno} in {frame.name}: {line}"
    return ""


def _is_model_code(filename: str) -> bool:
    stdlib = filename.startswith(_STDLIB) and "site-packages" not in filename
    return not stdlib and not filename.startswith(_LIBRARIES) and Path(filename).is_file()


def shorten(text: str, lines: int = 6, width: int = 240) -> str:
    """The first lines of a long message, without blank ones, colours and the exporter's advice."""
    plain = _NOISE.sub("", re.sub(r"\x1b\[[0-9;]*m", "", text))
    kept = [line.rstrip()[:width] for line in plain.splitlines() if line.strip()]
    return "\n    ".join(kept[:lines]) + (" ..." if len(kept) > lines else "")
