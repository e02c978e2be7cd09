"""Nested inputs and outputs, described without any of the model's code.

A program takes and gives flat tensors. How they hang together (dict, tuple, dataclass ...) is
described here, as data that goes into a package, so that a package runs where the model's own
classes are not installed. No torch import: packages are inspected without it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, Union

from hardpoint.errors import HardpointError

Scalar: TypeAlias = bool | int | float | str | None
MAX_DEPTH = 64


class StructureError(HardpointError):
    """An object is nested in a way that cannot be described."""


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """The ``index``-th tensor; with ``scalar`` it was (and becomes again) a Python number."""

    index: int
    scalar: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Constant:
    """A value that was fixed when the model was captured."""

    value: Scalar


@dataclasses.dataclass(frozen=True, slots=True)
class Items:
    """A ``list`` or ``tuple``."""

    kind: str
    items: tuple[Node, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Fields:
    """A ``dict``, a named tuple, or a dataclass: names and children.

    :param cls: ``module:qualname`` of the original class, or ``""`` for a plain dict.
    :param mapping: instances are also mappings (``transformers``' outputs are).
    :param sequence: instances are also tuples.
    """

    cls: str
    names: tuple[str | int, ...]
    items: tuple[Node, ...]
    mapping: bool = False
    sequence: bool = False


Node: TypeAlias = Union[Leaf, Constant, Items, Fields]  # noqa: UP007 - named before them


class Record(dict[object, object]):
    """Stands in for a class that is not importable here: a dict with attribute access.

    ``record[0]`` is its first value, as with ``transformers``' outputs.
    """

    def __missing__(self, key: object) -> object:
        if isinstance(key, int):
            return list(self.values())[key]
        raise KeyError(key)

    def __getattr__(self, name: str) -> object:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"no field {name!r}; fields: {', '.join(map(str, self))}"
            ) from None


def class_path(cls: type) -> str:
    """``module:qualname``, as stored in :attr:`Fields.cls`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def tuple_fields(cls: object) -> tuple[str, ...]:
    """Names of the fields of a named tuple, or of what ``torch.max(x, dim)`` gives; else none."""
    if not isinstance(cls, type) or not issubclass(cls, tuple):
        return ()
    return tuple(getattr(cls, "_fields", ())) or tuple(getattr(cls, "__match_args__", ()))


def flatten(
    value: object,
    leaf: Callable[[object, str], Node | None],
    path: str = "",
    depth: int = 0,
    *,
    seen: dict[str, type] | None = None,
) -> Node:
    """Describe ``value``; ``leaf(x, path)`` turns what is not a container into a node.

    :param seen: is filled with the classes that the description names.
    :raises StructureError: a type that can be neither described nor rebuilt, or deeper than 64.
    """
    if depth > MAX_DEPTH:
        raise StructureError(f"{path or 'the value'} is nested deeper than {MAX_DEPTH} levels")

    def down(item: object, name: object) -> Node:
        where = f"{path}.{name}" if path else str(name)
        return flatten(item, leaf, where, depth + 1, seen=seen)

    node = leaf(value, path)
    if node is not None:
        return node
    if value is None or isinstance(value, (bool, int, float, str)):
        return Constant(value)
    cls = type(value)
    if seen is not None:
        seen[class_path(cls)] = cls
    names: tuple[str | int, ...] = tuple_fields(cls)
    if names:
        items = tuple(down(getattr(value, str(n)), n) for n in names)
        return Fields(class_path(cls), names, items, sequence=True)
    if cls in (list, tuple) or class_path(cls) == "torch:Size":
        kind = "list" if cls is list else "tuple"
        return Items(kind, tuple(down(item, i) for i, item in enumerate(value)))  # type: ignore[arg-type, var-annotated]
    if dataclasses.is_dataclass(value):
        names = tuple(f.name for f in dataclasses.fields(value))
        items = tuple(down(getattr(value, str(n)), n) for n in names)
        return Fields(class_path(cls), names, items, isinstance(value, Mapping))
    if isinstance(value, Mapping) and all(type(k) in (str, int) for k in value):
        names = tuple(value)
        return Fields("", names, tuple(down(value[n], n) for n in names))
    raise StructureError(
        f"{path or 'the value'} is a {class_path(cls)}, which hardpoint cannot take apart",
        remedy="use tensors, numbers, None, list, tuple, dict, named tuples or dataclasses; for a "
        "Hugging Face cache object, capture with use_cache=False or pass the tensors themselves",
    )


def unflatten(
    node: Node,
    leaf: Callable[[Leaf], object],
    find: Callable[[Fields], type | None] | None = None,
) -> object:
    """Rebuild the value. Original classes are used only where their module is imported already.

    Nothing is imported here: a file must not choose which module this process imports. A dataclass
    is filled field by field, without its ``__init__``: its values were made by that once already.

    :param find: gives a description's class; :func:`find_class` by default.
    """
    if isinstance(node, Leaf):
        return leaf(node)
    if isinstance(node, Constant):
        return node.value
    values = [unflatten(item, leaf, find) for item in node.items]
    if isinstance(node, Items):
        return tuple(values) if node.kind == "tuple" else values
    fields = dict(zip(node.names, values, strict=True))
    if not node.cls:
        return fields
    cls = (find or find_class)(node)
    if cls is None and node.sequence:
        return _stand_in(node.cls.rpartition(".")[2], tuple(map(str, node.names)))(*values)
    if cls is None:
        # Mappings such as transformers' outputs hide the fields that are None; so do we.
        return Record({k: v for k, v in fields.items() if v is not None or not node.mapping})
    if node.sequence and not hasattr(cls, "_fields"):
        return cls(values)
    if node.sequence or node.mapping:
        return cls(**{str(k): v for k, v in fields.items()})
    made: object = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(made, str(name), value)
    return made


@functools.lru_cache(maxsize=256)
def _stand_in(name: str, fields: tuple[str, ...]) -> Callable[..., object]:
    """A named tuple for one that is not importable here; odd names in a file become ``_0`` ..."""
    return namedtuple(name if name.isidentifier() else "Record", fields, rename=True)


def find_class(node: Fields) -> type | None:
    """The original class, if its module is imported and it is what the description says."""
    module, _, qualname = node.cls.partition(":")
    found: object = sys.modules.get(module)
    for part in qualname.split("."):
        # Not getattr: a module may import others when it is asked for a name.
        found = getattr(found, "__dict__", {}).get(part)
    if not isinstance(found, type):
        return None
    if node.sequence:
        return found if tuple_fields(found) == node.names else None
    if not dataclasses.is_dataclass(found):
        return None
    every, names = dataclasses.fields(found), set(node.names)
    if not node.mapping:
        return found if names == {f.name for f in every} else None
    # A mapping's own constructor runs: it must be able to.
    init = {f.name for f in every if f.init}
    free = {f.name for f in every if f.default is not f.default_factory}  # else both MISSING
    fits = init - free <= names <= init and issubclass(found, Mapping)
    return found if fits else None


def leaves(node: Node, path: str = "") -> Iterator[tuple[str, Leaf | Constant]]:
    """Every leaf and constant with its dotted path, in order."""
    if isinstance(node, (Leaf, Constant)):
        yield path, node
        return
    names = node.names if isinstance(node, Fields) else range(len(node.items))
    for name, item in zip(names, node.items, strict=True):
        yield from leaves(item, f"{path}.{name}" if path else str(name))


def to_json(node: Node) -> object:
    """The description as JSON-serializable data; :func:`from_json` reads it back."""
    if isinstance(node, Leaf):
        return {"scalar" if node.scalar else "tensor": node.index}
    if isinstance(node, Constant):
        if isinstance(node.value, float) and not math.isfinite(node.value):
            return {"float": str(node.value)}  # JSON has no such numbers
        return {"constant": node.value}
    items = [to_json(item) for item in node.items]
    if isinstance(node, Items):
        return {node.kind: items}
    described: dict[str, object] = {"fields": list(node.names), "items": items}
    if node.cls:
        described |= {"class": node.cls, "mapping": node.mapping, "sequence": node.sequence}
    return described


def from_json(data: object, depth: int = 0) -> Node:
    """Read a description from a file that nobody vouches for.

    :raises StructureError: it is not what :func:`to_json` writes.
    """
    if depth > MAX_DEPTH or not isinstance(data, dict):
        raise StructureError("a description of inputs or outputs is malformed or too deep")
    for key, scalar in (("tensor", False), ("scalar", True)):
        if data.keys() == {key} and type(data[key]) is int and data[key] >= 0:
            return Leaf(data[key], scalar)
    if data.keys() == {"constant"} and isinstance(
        data["constant"], (type(None), bool, int, float, str)
    ):
        return Constant(data["constant"])
    if data.keys() == {"float"} and data["float"] in ("nan", "inf", "-inf"):
        return Constant(float(data["float"]))
    for kind in ("list", "tuple"):
        if data.keys() == {kind} and isinstance(data[kind], list):
            return Items(kind, tuple(from_json(item, depth + 1) for item in data[kind]))
    names, items = data.get("fields"), data.get("items")
    cls, mapping = data.get("class", ""), data.get("mapping", False)
    sequence = data.get("sequence", False)
    if (
        data.keys() <= {"fields", "items", "class", "mapping", "sequence"}
        and isinstance(names, list)
        and isinstance(items, list)
        and len(names) == len(items) == len(set(map(repr, names)))
        and all(isinstance(n, str) or type(n) is int for n in names)
        and isinstance(cls, str)
        and isinstance(mapping, bool)
        and isinstance(sequence, bool)
    ):
        children = tuple(from_json(i, depth + 1) for i in items)
        return Fields(cls, tuple(names), children, mapping, sequence)
    raise StructureError(f"a description of inputs or outputs is malformed: {sorted(data)[:8]}")
