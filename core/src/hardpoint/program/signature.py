"""What a call must look like, and what it gives back. No torch import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from hardpoint.errors import InputError, PackageError
from hardpoint.program import dims, structure
from hardpoint.program.dims import Dim
from hardpoint.program.structure import Constant, Fields, Items, Leaf, Node

MISSING = "<no default>"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that crosses the program's border.

    :param name: dotted path in the arguments or results, e.g. ``"batch.input_ids"``.
    :param dtype: PyTorch's name without ``torch.``.
    :param shape: sizes, outermost first; symbols are in :attr:`Signature.symbols`.
    :param device: where it lives, in PyTorch's terms.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(dims.render, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """A program's calling convention.

    :param positional: names of the parameters that may be passed by position, in order.
    :param arguments: captured parameters -> what was passed for them.
    :param omitted: parameters that were left out -> their default (or ``MISSING``).
    :param inputs: the tensors in ``arguments``, in order of their indices.
    :param outputs: what the call returns, in terms of ``results``.
    :param results: the flat result tensors.
    :param symbols: dynamic sizes -> (least, greatest or ``None``).
    :param guards: what else must hold of the sizes: :func:`hardpoint.program.dims.evaluate` gives
        other than 0 for each.
    """

    positional: tuple[str, ...]
    arguments: Mapping[str, Node]
    omitted: Mapping[str, structure.Scalar]
    inputs: tuple[TensorSpec, ...]
    outputs: Node
    results: tuple[TensorSpec, ...]
    symbols: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    guards: tuple[Dim, ...] = ()

    def plain(self) -> bool:
        """Whether every argument is one tensor passed by position: a call needs no binding."""
        captured = tuple(self.arguments)
        return captured == self.positional[: len(captured)] and all(
            node == Leaf(i) for i, node in enumerate(self.arguments.values())
        )

    def bind(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[object]:
        """The flat input tensors of a call, in order.

        :raises InputError: a missing, unknown or twice-given argument; another structure; another
            value where a constant was captured.
        """
        if len(args) > len(self.positional):
            raise InputError(
                f"the program takes {len(self.positional)} positional arguments, got {len(args)}",
                remedy=f"pass: {self.describe_arguments()}",
            )
        given = dict(zip(self.positional, args, strict=False))
        for name in kwargs:
            if name in given:
                raise InputError(f"argument {name!r} is given twice", remedy="pass it once")
        given.update(kwargs)
        for name in given.keys() - self.arguments.keys():
            self._check_omitted(name, given.pop(name))
        missing = [name for name in self.arguments if name not in given]
        if missing:
            raise InputError(
                f"missing argument {missing[0]!r}", remedy=f"pass: {self.describe_arguments()}"
            )
        flat: list[object] = [None] * len(self.inputs)
        for name, node in self.arguments.items():
            _fill(flat, node, given[name], name)
        return flat

    def _check_omitted(self, name: str, value: object) -> None:
        if name in self.omitted and _same_constant(self.omitted[name], value):
            return
        known = f"{name!r} was left out when the model was captured"
        raise InputError(
            known if name in self.omitted else f"the program has no argument {name!r}",
            remedy=f"pass: {self.describe_arguments()}"
            + ("; or capture again with it" if name in self.omitted else ""),
        )

    def describe_arguments(self) -> str:
        """``input_ids: int64[batch, seq], use_cache=False``, for error messages."""
        parts = []
        for name, node in self.arguments.items():
            for path, leaf in structure.leaves(node, name):
                if isinstance(leaf, Leaf):
                    parts.append(str(self.inputs[leaf.index]))
                else:
                    parts.append(f"{path}={leaf.value!r}")
        return ", ".join(parts) or "no arguments"

    def to_json(self) -> dict[str, object]:
        """JSON-serializable; :func:`from_json` reads it back."""

        def spec(s: TensorSpec) -> dict[str, object]:
            return asdict(s) | {"shape": list(s.shape)}

        return {
            "positional": list(self.positional),
            # A list: the order counts, and JSON objects have none.
            "arguments": [[k, structure.to_json(n)] for k, n in self.arguments.items()],
            "omitted": {k: structure.to_json(Constant(v)) for k, v in self.omitted.items()},
            "inputs": [spec(s) for s in self.inputs],
            "outputs": structure.to_json(self.outputs),
            "results": [spec(s) for s in self.results],
            "symbols": {k: list(v) for k, v in self.symbols.items()},
            "guards": list(self.guards),
        }


def _same_constant(captured: structure.Scalar, value: object) -> bool:
    both_nan = captured != captured and value != value
    return type(value) is type(captured) and (value == captured or both_nan)


def _fill(flat: list[object], node: Node, value: object, path: str) -> None:
    """Put the tensors of ``value`` at their places; check everything else."""
    if isinstance(node, Leaf):
        flat[node.index] = value
    elif isinstance(node, Constant):
        if not _same_constant(node.value, value):
            raise InputError(
                f"argument {path} was fixed at {node.value!r} when the model was captured, "
                f"got {value!r}",
                remedy="pass that value, or capture again with the new one",
            )
    elif isinstance(node, Items):
        if not isinstance(value, (list, tuple)) or len(value) != len(node.items):
            raise InputError(
                f"argument {path} must be a {node.kind} of {len(node.items)}, got "
                f"{type(value).__name__}"
                + (f" of {len(value)}" if isinstance(value, (list, tuple)) else "")
            )
        for i, (child, item) in enumerate(zip(node.items, value, strict=True)):
            _fill(flat, child, item, f"{path}.{i}")
    else:
        _fill_fields(flat, node, value, path)


def _fill_fields(flat: list[object], node: Fields, value: object, path: str) -> None:
    mapping = isinstance(value, Mapping)
    if isinstance(value, Mapping) and not node.cls and value.keys() != set(node.names):
        raise InputError(
            f"argument {path} must have the keys {list(node.names)}, got {list(value)}"
        )
    for name, child in zip(node.names, node.items, strict=True):
        try:
            item = value[name] if mapping else getattr(value, str(name))  # type: ignore[index]
        except (KeyError, AttributeError):
            if child == Constant(None):
                continue
            raise InputError(
                f"argument {path} has no {name!r}", remedy=f"it needs: {list(node.names)}"
            ) from None
        _fill(flat, child, item, f"{path}.{name}")


def from_json(data: Mapping[str, object]) -> Signature:
    """Read a signature from a package's manifest, which nobody vouches for.

    :raises PackageError: it is not what :meth:`Signature.to_json` writes.
    """
    try:
        inputs, results = (_specs(data[key]) for key in ("inputs", "results"))
        arguments = _arguments(data["arguments"])
        outputs = structure.from_json(data["outputs"])
        symbols: dict[str, tuple[int, int | None]] = {}
        for name, ends in _dict(data["symbols"]).items():
            if not isinstance(ends, list) or len(ends) != 2 or type(ends[0]) is not int:
                raise TypeError(f"range of {name}")
            if type(ends[1]) not in (int, type(None)):
                raise TypeError(f"range of {name}")
            symbols[str(name)] = (ends[0], ends[1])
        positional = data["positional"]
        if not isinstance(positional, list) or not all(isinstance(p, str) for p in positional):
            raise TypeError("positional")
        omitted = {k: _constant(v) for k, v in _dict(data["omitted"]).items()}
        guards = data["guards"]
        if not isinstance(guards, list):
            raise TypeError("guards")
        conditions = tuple(map(dims.from_json, guards))
        used = [leaf.index for node in arguments.values() for _, leaf in structure.leaves(node)
                if isinstance(leaf, Leaf)]  # fmt: skip
        made = [leaf.index for _, leaf in structure.leaves(outputs) if isinstance(leaf, Leaf)]
        if sorted(used) != list(range(len(inputs))) or any(i >= len(results) for i in made):
            raise TypeError("tensor indices")
        scalars = [leaf.index for _, leaf in structure.leaves(outputs)
                   if isinstance(leaf, Leaf) and leaf.scalar]  # fmt: skip
        if any(results[i].shape for i in scalars):
            raise TypeError("a number that is a tensor")
        _check_bound(inputs, conditions)
    except (KeyError, TypeError, ValueError, dims.DimError, structure.StructureError) as error:
        raise PackageError(
            "the package's signature is malformed",
            cause=f"{type(error).__name__}: {error}",
            remedy="get the file again from its source, or save it again",
        ) from error
    return Signature(
        tuple(positional), arguments, omitted, inputs, outputs, results, symbols, conditions
    )  # fmt: skip


def _check_bound(inputs: Sequence[TensorSpec], guards: Sequence[Dim]) -> None:
    """A symbol is a size of some input itself: else no call could tell its value."""
    sizes = [size for spec in inputs for size in spec.shape]
    bound = {size for size in sizes if isinstance(size, str)}
    for size in (*sizes, *guards):
        free = dims.symbols(size) - bound
        if free:
            raise TypeError(f"no input has the size {min(free)}")


def _constant(data: object) -> structure.Scalar:
    node = structure.from_json(data)
    if not isinstance(node, Constant):
        raise TypeError("expected a constant")
    return node.value


def _dict(data: object) -> dict[str, object]:
    if not isinstance(data, dict):
        raise TypeError("expected an object")
    return data


def _arguments(data: object) -> dict[str, Node]:
    if not isinstance(data, list):
        raise TypeError("expected a list of arguments")
    arguments = {str(name): structure.from_json(node) for name, node in data}
    if len(arguments) != len(data):
        raise TypeError("an argument is named twice")
    return arguments


def _specs(data: object) -> tuple[TensorSpec, ...]:
    if not isinstance(data, list):
        raise TypeError("expected a list of tensors")
    specs = []
    for item in map(_dict, data):
        name, dtype, device = item["name"], item["dtype"], item["device"]
        texts = all(isinstance(x, str) for x in (name, dtype, device))
        if not texts or not isinstance(item["shape"], list):
            raise TypeError("a tensor's description")
        shape = tuple(map(dims.from_json, item["shape"]))
        specs.append(TensorSpec(str(name), str(dtype), shape, str(device)))
    return tuple(specs)
