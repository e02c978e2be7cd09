"""Real inputs that nothing is compiled or calibrated with: what else a program is verified on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch

from hardpoint.errors import InputError
from hardpoint.program.program import Program, lifted_inputs
from hardpoint.program.untouched import snapshot
from hardpoint.runtime.check import InputCheck

# Arguments of a call in order, or by name.
CheckInputs: TypeAlias = Sequence[object] | Mapping[str, object]


def with_check_inputs(program: Program, given: CheckInputs | None) -> Program:
    """``program``, to be verified on a call's arguments, too; ``None``: as it is.

    :raises InputError: no call of the program takes them, or it fails on them in eager PyTorch.
    """
    if given is None:
        return program
    if not isinstance(given, (tuple, list, Mapping)):
        raise InputError(
            f"check_inputs is of type {type(given).__name__}, it must be the arguments of a call",
            remedy="write (x,) for one argument, or {'name': x}",
        )
    by_name = isinstance(given, Mapping)
    try:
        flat: Any = program.signature.bind(() if by_name else given, given if by_name else {})  # type: ignore[arg-type]
        return holding_out(program, flat)
    except InputError as error:
        error.what = f"check_inputs do not fit the program: {error.what}"
        raise


def holding_out(program: Program, flat: Sequence[torch.Tensor]) -> Program:
    """The same of flat inputs. They are run once: capture has done so with the examples alone.

    :raises InputError: they do not fit the signature, or eager PyTorch fails on them.
    """
    InputCheck(program.signature)(flat)
    held = tuple(map(snapshot, flat))
    try:
        with torch.no_grad():
            program.exported.graph_module.forward(*lifted_inputs(program.exported, held))
    except Exception as error:
        raise InputError(
            "the program fails on them in eager PyTorch",
            cause=f"{type(error).__name__}: {' '.join(str(error).split())[:600]}",
            remedy="give inputs that the model itself can be called with",
        ) from error
    return replace(program, check_inputs=held)
