"""A segment's inputs, described as data, and made again as fake tensors with symbolic sizes.

Inductor needs to know which sizes vary, how they are related, and within what range. It may be
asked in another process, so that the description must travel without PyTorch's symbolic objects.
A size is a number, a symbol's name, or ``[function, operand, ...]``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StrictMinMaxConstraint
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod, PythonMod
from torch.utils._sympy.value_ranges import ValueRanges

from hardpoint_cpu.origin import artifact_error, compile_error

_UNBOUNDED = 2**31 - 1
_FUNCTIONS: dict[str, tuple[type[Any], Callable[[Any, Any], Any]]] = {
    "+": (sympy.Add, operator.add),
    "*": (sympy.Mul, operator.mul),
    "//": (FloorDiv, operator.floordiv),
    "%": (Mod, operator.mod),
    "mod": (PythonMod, operator.mod),
    "max": (Max, torch.sym_max),
    "min": (Min, torch.sym_min),
}


def describe(program: ExportedProgram) -> dict[str, Any]:
    """Dtype and sizes of each user input, and the range and an example of each symbol.

    :raises CompileError: a size that this description cannot hold.
    """
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    fakes = {
        node.name: node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and specs[node.name].kind is InputKind.USER_INPUT
    }
    sizes = [s for fake in fakes.values() for s in fake.shape if isinstance(s, torch.SymInt)]
    read = {s.node.expr for s in sizes if s.node.expr.is_Symbol}
    # Inductor reads symbols off the inputs. A size made of one that none of them has alone, as
    # where a batch and a sequence were flattened before, is a symbol of its own here.
    names: dict[Any, str] = {}
    symbols: dict[str, dict[str, int]] = {}
    for size in sizes:
        expression = size.node.expr
        known = expression.free_symbols <= read
        if not known:
            names.setdefault(expression, f"size{len(names)}")
        for part in expression.free_symbols if known else {expression}:
            symbols[names.get(part, str(part))] = _facts(part, size, program)
    inputs = [
        {
            "dtype": str(fake.dtype).removeprefix("torch."),
            "shape": [_written(size, name, names) for size in fake.shape],
        }
        for name, fake in fakes.items()
    ]
    return {"inputs": inputs, "symbols": symbols}


def _facts(expression: Any, size: torch.SymInt, program: ExportedProgram) -> dict[str, int]:
    """The range of a symbol, or of an expression in symbols, and an example."""
    environment = size.node.shape_env
    limits = program.range_constraints.get(expression) or environment.bound_sympy(expression)
    low, high = _bounded(limits.lower), _bounded(limits.upper)
    hints = {s: environment.backed_var_to_val.get(s, 8) for s in expression.free_symbols}
    # 0 and 1 are sizes that Inductor would take for constants.
    example = min(max(int(expression.subs(hints)), low, 2), high)
    return {"min": low, "max": high, "example": example}


def _bounded(limit: Any) -> int:
    """A range's end; torch's ``int_oo`` calls itself a finite number, but is no integer."""
    return max(0, min(int(limit), _UNBOUNDED)) if limit.is_Integer else _UNBOUNDED


def _written(size: int | torch.SymInt, name: str, names: Mapping[Any, str]) -> Any:
    if isinstance(size, int):
        return size

    def tree(expression: Any) -> Any:
        if expression in names:
            return names[expression]
        if isinstance(expression, sympy.Symbol):
            return expression.name
        if expression.is_Integer:
            return int(expression)
        if isinstance(expression, sympy.Pow) and expression.exp in (2, 3, 4):
            return ["*", *[tree(expression.base)] * int(expression.exp)]
        for function, (kind, _) in _FUNCTIONS.items():
            if isinstance(expression, kind):
                return [function, *(tree(argument) for argument in expression.args)]
        raise compile_error(
            f"input {name!r} has the size {size}",
            cause=f"{type(expression).__name__} is not among the functions this mode describes",
            remedy="use mode 'eager' for this segment, or make the size static",
        )

    return tree(size.node.expr)


def fakes(
    described: Mapping[str, Any], device: torch.device | str = "cpu"
) -> tuple[ShapeEnv, FakeTensorMode, list[torch.Tensor]]:
    """Fake inputs as :func:`describe` wrote them, contiguous, in a new shape environment.

    :raises ArtifactError: the description is damaged.
    """
    # Without duck shaping: two symbols stay two, though their examples be equal.
    environment = ShapeEnv(duck_shape=False)
    try:
        sizes = {
            name: _symbol(environment, name, facts) for name, facts in described["symbols"].items()
        }
        # Weights stay real: Inductor reads them when it folds constants.
        mode = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)
        with mode:
            made = []
            for facts in described["inputs"]:
                dtype = getattr(torch, facts["dtype"])
                shape = [_read(size, sizes) for size in facts["shape"]]
                made.append(torch.empty(shape, dtype=dtype, device=device))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise artifact_error(
            "the artifact's description of its inputs is damaged",
            cause=f"{type(error).__name__}: {error}",
            remedy="compile the segment again",
        ) from error
    return environment, mode, made


def _symbol(environment: ShapeEnv, name: str, facts: Mapping[str, int]) -> int | torch.SymInt:
    low, high, example = (int(facts[key]) for key in ("min", "max", "example"))
    if low == high:
        return low
    source = ConstantSource(name)
    symbol = environment.create_symbol(
        example,
        source=source,
        dynamic_dim=DimDynamic.DYNAMIC,
        constraint_dim=StrictMinMaxConstraint(vr=ValueRanges(low, high), warn_only=False),
        do_not_specialize_zero_one=example < 2,
    )
    return environment.create_symintnode(symbol, hint=example, source=source)


def _read(size: Any, symbols: Mapping[str, int | torch.SymInt]) -> Any:
    if isinstance(size, list):
        apply = _FUNCTIONS[size[0]][1]
        operands = [_read(operand, symbols) for operand in size[1:]]
        result = operands[0]
        for operand in operands[1:]:
            result = apply(result, operand)
        return result
    return symbols[size] if isinstance(size, str) else int(size)


def specialized(environment: ShapeEnv) -> str | None:
    """Where a compiler took a size for narrower than described, say so: its code is not for all."""
    fixed = [
        f"{symbol} = {value}"
        for symbol, value in environment.replacements.items()
        if symbol in environment.backed_var_to_val
    ]
    assumed = [str(guard.expr) for guard in environment.guards if not _is_kernel_choice(guard.sloc)]
    return ", ".join(fixed + assumed) or None


def _is_kernel_choice(place: object) -> bool:
    """Whether a comparison was made only to foretell which kernel a convolution will take.

    ``ConvParams::use_mkldnn`` compares the batch to 16. The kernel chooses again when it runs, and
    oneDNN's result is laid out as that of the kernel it is weighed against.
    """
    text = str(place)
    return "fake_impls.py" in text and text.rstrip(")").endswith("in conv")
