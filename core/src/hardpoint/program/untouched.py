"""What tracing a model must not do to it, and what a model must not do while it is traced."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch

from hardpoint.errors import CaptureError

Attributes = dict[tuple[str, str], torch.Tensor]


@contextmanager
def untouched(model: torch.nn.Module) -> Iterator[None]:
    """Undo what a traced call leaves in the attributes of the model and its parts.

    ``self.last = x`` would leave a fake tensor there, with which nothing can be done any more.
    """
    before = [(module, dict(_own(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            own = vars(module)
            for name in _own(module).keys() - attributes.keys():
                del own[name]
            own.update(attributes)


@contextmanager
def quiet_failure() -> Iterator[None]:
    """Keep the graphs that torch prints on stderr when it fails; the error says what they show.

    What is printed there otherwise comes out at the end. ``HARDPOINT_DEBUG`` shows everything.
    """
    if os.environ.get("HARDPOINT_DEBUG"):
        yield
        return
    printed = io.StringIO()
    with redirect_stderr(printed):
        yield
    sys.stderr.write(printed.getvalue())


def plain_tensors(model: torch.nn.Module) -> Attributes:
    """Tensors that the model keeps as plain attributes: neither parameters nor buffers."""
    return {
        (where, name): value
        for where, module in model.named_modules()
        for name, value in _own(module).items()
        if isinstance(value, torch.Tensor)
    }


def replaced_tensors(model: torch.nn.Module, before: Attributes) -> dict[str, torch.Tensor]:
    """Attribute -> the tensor that was there before the call, where it is another one now."""
    after = plain_tensors(model)
    return {
        f"{where}.{name}" if where else name: tensor
        for (where, name), tensor in before.items()
        if after.get((where, name)) is not tensor
    }


def refuse_plain_state(
    replaced: Mapping[str, torch.Tensor], exported: torch.export.ExportedProgram
) -> None:
    """A value that is read and replaced is state; in a plain attribute it would be lost in silence.

    One that is only written, such as attention weights kept for a look at them, is no state.

    :raises CaptureError: the program reads a tensor that the call replaces.
    """
    read = {
        value.data_ptr() for value in exported.constants.values() if isinstance(value, torch.Tensor)
    }
    for name, tensor in replaced.items():
        if tensor.data_ptr() in read:
            raise CaptureError(
                f"the model keeps state in the plain attribute {name!r}",
                cause="a call replaces the tensor there, and a captured program cannot keep it",
                remedy="register it with register_buffer instead of assigning a tensor",
            )


def snapshot(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that can be written to in any mode."""
    with torch.inference_mode(False):
        copy = tensor.detach().clone()
        if isinstance(tensor, torch.nn.Parameter):
            return torch.nn.Parameter(copy, requires_grad=False)
        return copy


def _own(module: torch.nn.Module) -> dict[str, Any]:
    """The module's attributes beside its registered parameters, buffers and children."""
    return {k: v for k, v in vars(module).items() if k not in _REGISTERED}


_REGISTERED = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
