"""Find the model: a module, a function that makes one, a Hugging Face directory, or a file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from hardpoint.errors import CaptureError, did_you_mean
from hardpoint.events import Event
from hardpoint.program.capture import capture_module
from hardpoint.program.dynamic import Dynamic
from hardpoint.program.explain import model_line
from hardpoint.program.program import Program

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

_FORMS = (
    "pass an nn.Module with example inputs, a Hugging Face directory (config.json and weights), a "
    ".pt2 file, or 'module:function' / 'file.py:function'"
)


def capture_source(
    model: torch.nn.Module | str | Path | Callable[..., Any],
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    dynamic: Dynamic = None,
    name: str = "",
    registry: Registry,
) -> Program:
    """Capture whatever names a model; see :func:`hardpoint.capture`.

    :raises CaptureError: it names nothing, or the model cannot be captured.
    """
    start = time.perf_counter()
    if isinstance(model, torch.nn.Module):
        program = capture_module(model, args, kwargs, dynamic=dynamic, name=name)
    elif isinstance(model, (str, Path)):
        program = _from_text(str(model), args, kwargs, dynamic, name, registry)
    elif callable(model):
        program = _from_function(model, name, args, kwargs, dynamic)
    else:
        raise CaptureError(f"{type(model).__name__} is no model", remedy=_FORMS)
    registry.emit(
        Event(
            "captured",
            data={
                "program": program.name,
                "nodes": len(program.exported.graph.nodes),
                "seconds": time.perf_counter() - start,
            },
        )
    )
    return program


def _from_text(
    text: str,
    args: Sequence[object],
    kwargs: Mapping[str, object] | None,
    dynamic: Dynamic,
    name: str,
    registry: Registry,
) -> Program:
    path = Path(text)
    if path.is_dir():
        from hardpoint.program.huggingface import capture_directory

        return capture_directory(path, args, kwargs, dynamic=dynamic, name=name, registry=registry)
    if path.is_file() and path.suffix == ".pt2":
        from hardpoint.package.program_file import read_program_file

        return read_program_file(path, name=name)
    where, _, function = text.rpartition(":")
    if where and function.isidentifier():
        made = getattr(_module(where), function, None)
        if made is None or not callable(made):
            known = [n for n, v in vars(_module(where)).items() if callable(v)]
            raise CaptureError(
                f"{where} has no function {function!r}", remedy=did_you_mean(function, known)
            )
        return _from_function(made, name, args, kwargs, dynamic)
    if path.is_file() and path.suffix == ".py":
        raise CaptureError(
            f"{text} is a Python file, and no function in it is named",
            remedy=f"name a function that makes the model, e.g. {text}:make",
        )
    raise CaptureError(f"there is no model at {text!r}", remedy=_FORMS)


def _module(where: str) -> Any:
    """The module named by a dotted path or a ``.py`` file."""
    path = Path(where)
    try:
        if path.suffix != ".py":
            return importlib.import_module(where)
        if not path.is_file():
            raise CaptureError(f"there is no file {where}", remedy="check the path")
        return _module_of_file(path.resolve())
    except CaptureError:
        raise
    except Exception as error:
        raise CaptureError(
            f"{where} cannot be imported",
            cause=f"{type(error).__name__}: {error}",
            remedy="run it with python alone first; for a file give its path with .py",
        ) from error


def _module_of_file(path: Path) -> ModuleType:
    """The module of a file, imported once; under its own name only where that is free.

    A ``random.py`` must not become ``random`` for everybody else in the process.
    """
    name = path.stem if _is_free(path.stem, path) else _unique_name(path)
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CaptureError(f"{path} is not Python", remedy="name a .py file")
    module = importlib.util.module_from_spec(spec)
    # Registered like a normal import, so that classes defined there can be found again.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _is_free(name: str, path: Path) -> bool:
    """Whether ``name`` names ``path``, or nothing at all, whether imported already or not."""
    if "." in name:
        return False
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return file is not None and Path(file).resolve() == path
    spec = importlib.util.find_spec(name)
    return spec is None or (spec.origin is not None and Path(spec.origin).resolve() == path)


def _unique_name(path: Path) -> str:
    return f"{path.stem.replace('.', '_')}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


def _from_function(
    function: Callable[..., Any],
    name: str,
    args: Sequence[object],
    kwargs: Mapping[str, object] | None,
    dynamic: Dynamic,
) -> Program:
    label = getattr(function, "__name__", "the function")
    try:
        made = function()
    except Exception as error:
        where = model_line(error)
        raise CaptureError(
            f"{label}() failed" + (f", at {where}" if where else ""),
            cause=f"{type(error).__name__}: {error}",
            remedy="call it alone first: it takes no arguments and returns (model, example_inputs)",
        ) from error
    if isinstance(made, torch.nn.Module):
        made = (made, args if not kwargs else (tuple(args), dict(kwargs)))
    if (
        not isinstance(made, tuple)
        or len(made) not in (2, 3)
        or not isinstance(made[0], torch.nn.Module)
    ):
        raise CaptureError(
            f"{label}() returned {_describe(made)}",
            remedy="return (model, example_inputs) or (model, example_inputs, dynamic_shapes)",
        )
    model, examples = made[0], made[1]
    shapes = made[2] if len(made) == 3 and dynamic is None else dynamic
    if not isinstance(examples, (torch.Tensor, Mapping, tuple, list)):
        raise CaptureError(
            f"{label}() returned {type(examples).__name__} for example inputs",
            remedy="return a tensor, a tuple of arguments, a dict of named ones, or (args, kwargs)",
        )
    call_args, call_kwargs = _examples(examples)
    return capture_module(model, call_args, call_kwargs, dynamic=shapes, name=name)


def _examples(examples: Any) -> tuple[tuple[object, ...], dict[str, object]]:
    """``(args, kwargs)`` from what a function gave: a tensor, a tuple, a dict, or both."""
    if isinstance(examples, torch.Tensor):
        return (examples,), {}
    if isinstance(examples, Mapping):
        return (), dict(examples)
    both = isinstance(examples, tuple) and len(examples) == 2
    if both and isinstance(examples[0], (tuple, list)) and isinstance(examples[1], dict):
        return tuple(examples[0]), dict(examples[1])
    return tuple(examples), {}


def _describe(made: object) -> str:
    if isinstance(made, tuple):
        return f"a tuple of {', '.join(type(m).__name__ for m in made)}"
    return type(made).__name__
