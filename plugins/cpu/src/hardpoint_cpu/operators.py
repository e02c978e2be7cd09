"""Which operators an artifact may name, and how they are looked up.

An artifact is data from somewhere else. It names operators as ``namespace.name.overload``; a name
is looked up here and nowhere else, so that a file can never reach an arbitrary callable.
"""

from __future__ import annotations

import importlib
import math
import operator
from collections.abc import Callable
from typing import Any

import torch

# Arithmetic on sizes is recorded by the exporter as plain Python functions.
_PYTHON: dict[str, Callable[..., Any]] = {
    **{
        f"operator.{name}": getattr(operator, name)
        for name in (
            "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos", "abs",
            "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "xor", "not_", "invert",
            "lshift", "rshift", "getitem",
        )
    },
    **{f"math.{name}": getattr(math, name) for name in ("floor", "ceil", "trunc", "sqrt")},
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not", "sym_sum",
                     "_sym_sqrt")
    },
    "builtins.round": round,
    "builtins.bool": bool,
    "builtins.int": int,
    "builtins.float": float,
}  # fmt: skip
_PYTHON_NAMES = {function: name for name, function in _PYTHON.items()}

_NAMESPACES = frozenset({"aten", "prims"})
# Reads a file of the caller's choice: no business of a computation.
_DENIED = frozenset({"aten.from_file.default", "aten.from_file.out"})
# What int8 layers are written in. Registered by a module of PyTorch that imports on demand.
_QUANTIZATION = "quantized_decomposed"
_QUANTIZATION_NAMES = frozenset(
    f"{_QUANTIZATION}.{name}"
    for name in (
        "quantize_per_tensor.default", "quantize_per_tensor.tensor", "choose_qparams.tensor",
        "dequantize_per_tensor.default", "dequantize_per_tensor.tensor",
        "dequantize_per_channel.default",
    )
)  # fmt: skip
_CONTROL_FLOW = frozenset({"cond", "while_loop", "map_impl", "scan", "associative_scan"})


class UnknownOperatorError(LookupError):
    """An operator that this backend does not run; the text says why."""


class Operators:
    """The operators that may be named.

    :param custom: namespaces of ``torch.library`` operators that the user allows besides PyTorch's.
    """

    def __init__(self, custom: frozenset[str] = frozenset()) -> None:
        self._namespaces = _NAMESPACES | custom

    def name(self, target: object) -> str:
        """How ``target`` is written in an artifact.

        :raises UnknownOperatorError: it cannot be.
        """
        if isinstance(target, torch._ops.OpOverload):
            name = f"{target.namespace}.{target._opname}.{target._overloadname}"
            self._check(name, target.namespace)
            return name
        if isinstance(target, torch._ops.HigherOrderOperator):
            name = str(target.__name__)
            if name not in _CONTROL_FLOW:
                raise UnknownOperatorError(f"the higher-order operator {name} is not run here")
            return f"higher_order.{name}"
        if callable(target) and target in _PYTHON_NAMES:
            return _PYTHON_NAMES[target]
        raise UnknownOperatorError(f"{target} is not an operator of PyTorch")

    def find(self, name: str) -> Callable[..., Any]:
        """The operator written as ``name``.

        :raises UnknownOperatorError: there is none, or it is not allowed.
        """
        if name in _PYTHON:
            return _PYTHON[name]
        parts = name.split(".")
        if len(parts) == 2 and parts[0] == "higher_order" and parts[1] in _CONTROL_FLOW:
            found: Callable[..., Any] = getattr(torch.ops.higher_order, parts[1])
            return found
        if len(parts) != 3:
            raise UnknownOperatorError(f"{name!r} names no operator")
        self._check(name, parts[0])
        if name in _QUANTIZATION_NAMES:
            importlib.import_module("torch.ao.quantization.fx._decomposed")
        try:
            found = getattr(getattr(getattr(torch.ops, parts[0]), parts[1]), parts[2])
        except AttributeError:
            raise UnknownOperatorError(
                f"PyTorch {torch.__version__} has no operator {name!r}"
            ) from None
        if not isinstance(found, torch._ops.OpOverload):
            raise UnknownOperatorError(f"{name!r} names no operator")
        return found

    def _check(self, name: str, namespace: str) -> None:
        if name in _QUANTIZATION_NAMES:
            return
        if namespace not in self._namespaces:
            raise UnknownOperatorError(
                f"{name} is a custom operator of {namespace!r}, which was not allowed: open the "
                f"backend with the configuration operators=[{namespace!r}]"
            )
        if name in _DENIED:
            raise UnknownOperatorError(f"{name} reads files")
