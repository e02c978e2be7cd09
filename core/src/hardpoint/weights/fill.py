"""Filling a module: whole, or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import TensorInfo
from hardpoint.weights.content import some
from hardpoint.weights.opened import Opened, described, words
from hardpoint.weights.progress import ticker

if TYPE_CHECKING:
    import torch

    from hardpoint.weights.progress import Progress


def fill(
    module: torch.nn.Module,
    opened: Opened,
    path: Path | str,
    strict: bool,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Mapping[str, torch.Tensor]:
    """Check everything, and only then read, straight into the module's memory.

    A file that cannot be read to its end leaves a module that is filled in part, and an error. The
    values go straight into the module's tensors; hooks that a module has for loading do not
    run. Where they matter: ``module.load_state_dict(load_weights(path))``.
    """
    import torch

    reader = opened.reader
    state = module.state_dict(keep_vars=True)
    own = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    _refuse_lazy(module, own)
    _refuse_strange(module, own, path)
    places = {name: _place(tensor) for name, tensor in own.items()}
    stored = [name for name in own if name in reader]
    # A tied tensor may be stored under any of its names.
    filled = {places[name] for name in stored}
    missing = {name for name in own if places[name] not in filled} | (state.keys() - own.keys())
    unknown = {name for name in reader if name not in state}
    problems = _differences(missing, unknown) if strict else []
    problems += [bad for name in stored if (bad := _misfit(name, own[name], reader[name]))]
    problems += _not_live(module, own, stored)
    problems += _overlapping({places[name]: (name, own[name]) for name in stored})
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise _unfit(path, module, "; ".join(problems[:4]) + more, _remedy(problems, strict))
    first: dict[tuple[object, ...], str] = {}
    for name in stored:
        other = first.setdefault(places[name], name)
        if other != name and not _same_bits(opened.tensor(name), opened.tensor(other)):
            raise _unfit(
                path,
                module,
                f"{other} and {name} are one tensor in the module, and differ in the file",
                "untie them in the module, or load another checkpoint; nothing was changed",
            )
    _read({name: own[name] for name in first.values()}, opened, threads, progress)
    return {name: own[name] for name in own if places[name] in filled}


def _read(
    goals: Mapping[str, torch.Tensor],
    opened: Opened,
    threads: int | None,
    progress: Progress | None,
) -> None:
    """Fill each tensor with the stored one of its name: in place where their memory is alike."""
    import torch

    from hardpoint.storage.gather import gather, piece

    # Of a file that holds more than the module wants, this is the whole.
    tick = ticker(progress, sum(opened.reader[name].nbytes for name in goals))
    pieces, others = [], {}
    for name, goal in goals.items():
        placed = opened.placed(name)
        plain = goal.device.type == "cpu" and goal.is_contiguous() and goal.dtype is not torch.bool
        if placed and plain and not (goal.is_conj() or goal.is_neg()):
            pieces.append((placed, goal))
        else:  # to be rearranged, checked or moved
            others[name] = opened.tensor(name)
    gather([piece(source, info.offset or 0, goal) for (info, source), goal in pieces],
           threads=threads, tick=tick)  # fmt: skip
    # What autograd saved of them is no longer what they hold.
    torch.autograd.graph.increment_version([goal for _, goal in pieces])
    with torch.no_grad():
        for name, tensor in others.items():
            goals[name].copy_(tensor)
            if tick is not None:
                tick(opened.reader[name].nbytes)


def _unfit(path: Path | str, module: torch.nn.Module, cause: str, remedy: str) -> WeightsError:
    what = f"{path} does not fit {type(module).__name__}"
    return WeightsError(what, cause=cause, remedy=remedy)


def _differences(missing: set[str], unknown: set[str]) -> list[str]:
    both = {"missing": missing, "not in the module": unknown}
    return [f"{side}: {some(names)}" for side, names in both.items() if names]


def _refuse_lazy(module: torch.nn.Module, own: Mapping[str, torch.Tensor]) -> None:
    import torch

    lazy = [name for name, tensor in own.items() if torch.nn.parameter.is_lazy(tensor)]
    if lazy:
        raise WeightsError(
            f"{type(module).__name__} cannot be filled yet",
            cause=f"without shape: {some(lazy)}",
            remedy="run the module once, so that its lazy parameters are made",
        )


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    """What two tensors that are one memory have in common."""
    if tensor.is_meta or tensor.numel() == 0:
        return (id(tensor),)
    where = (tensor.device, tensor.data_ptr())
    seen_as = (tensor.dtype, tensor.is_conj(), tensor.is_neg())
    return (*where, *seen_as, tuple(tensor.shape), tensor.stride())


def _refuse_strange(
    module: torch.nn.Module, own: Mapping[str, torch.Tensor], path: Path | str
) -> None:
    """Only what is a stretch of memory can be written to by its address."""
    from hardpoint.storage.memory import why_not_plain

    strange = {n: why for n, t in own.items() if not t.is_meta and (why := why_not_plain(t))}
    if strange:
        name, why = next(iter(strange.items()))
        raise _unfit(
            path,
            module,
            f"{name}: {why}" + (f"; and {len(strange) - 1} more" if len(strange) > 1 else ""),
            "use module.load_state_dict(load_weights(path)); nothing was changed",
        )


def _overlapping(placed: Mapping[tuple[object, ...], tuple[str, torch.Tensor]]) -> list[str]:
    """Tensors that share a part of their memory, but are not one: which value is to be in it?"""
    spans = []
    for name, tensor in placed.values():
        if tensor.is_meta or not tensor.numel():
            continue
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        length = (sum((size - 1) * step for size, step in steps) + 1) * tensor.element_size()
        spans.append((str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + length, name))
    spans.sort()
    return [
        f"{one[3]} and {other[3]} share a part of their memory"
        for one, other in itertools.pairwise(spans)
        if one[0] == other[0] and other[1] < one[2]
    ]


def _misfit(name: str, mine: torch.Tensor, theirs: TensorInfo) -> str:
    """Why the stored tensor cannot be copied into the module's, or ``""``."""
    if described(mine) != (theirs.dtype, theirs.shape):
        return (
            f"{name} is {words(theirs.dtype, theirs.shape)} in the file, "
            f"{words(*described(mine))} in the module"
        )
    if mine.is_meta:
        return f"{name} is on the meta device, and has no memory to fill"
    if mine.is_inference():
        return f"{name} was made in inference mode, and cannot be written to"
    if any(step == 0 < size - 1 for size, step in zip(mine.shape, mine.stride(), strict=True)):
        return f"{name} is expanded: several of its elements are one"
    return ""


def _not_live(
    module: torch.nn.Module, own: Mapping[str, torch.Tensor], stored: list[str]
) -> list[str]:
    """Names for which ``state_dict()`` gives copies (a hook may): filling them would be lost."""
    live = {
        tensor.untyped_storage().data_ptr()
        for tensor in itertools.chain(module.parameters(), module.buffers())
        if not tensor.is_meta
    }
    return [
        f"the module's state_dict() gives a copy of {name}"
        for name in stored
        if not own[name].is_meta
        and own[name].numel()
        and own[name].untyped_storage().data_ptr() not in live
    ]


def _remedy(problems: list[str], strict: bool) -> str:
    if any("meta device" in problem for problem in problems):
        return "use module.load_state_dict(load_weights(path), assign=True)"
    if any("gives a copy" in problem for problem in problems):
        return "use module.load_state_dict(load_weights(path))"
    if strict and problems[0].startswith(("missing: ", "not in the module: ")):
        return "load the right checkpoint, or pass strict=False; nothing was changed"
    return (
        "load the right checkpoint, or convert the module (module.to(dtype)); nothing was changed"
    )


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal to the last bit: also for NaN, and for dtypes that have no ``==``."""
    import torch

    if one.data_ptr() == other.data_ptr():
        return True
    # A tensor of one element is contiguous with any stride; a last size of one has none.
    flat = (tensor.contiguous().reshape(-1).unsqueeze(-1) for tensor in (one, other))
    return torch.equal(*(tensor.view(torch.uint8) for tensor in flat))
