"""Builds PyTorch's serialization dataclasses from JSON: typed, checked, and only where allowed.

PyTorch's own builder (``_dict_to_dataclass``) trusts the file: a string may stand where an integer
should, and goes on into generated code. This one follows the same declarations, but checks each
value's type, and passes every string through a rule; a string field without a rule is refused, so
that a newer schema fails closed.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from hardpoint.package.graph_rules import Rule
from hardpoint.package.refusal import MalformedError

Convert = Callable[[Any], Any]
_INT_LIMIT = 1 << 63
_NOT_FINITE = frozenset({"Infinity", "-Infinity", "NaN"})


class SchemaReader:
    """Reads the dataclasses of one schema module.

    :param schema: ``torch._export.serde.schema``.
    :param union: its base class of unions.
    :param rules: ``"Class.field"`` -> rule for strings; ``"Class.field{}"`` for keys.
    :param whole: ``"Class.field"`` -> converter that takes the whole value of that field.
    """

    def __init__(
        self, schema: Any, union: type, rules: Mapping[str, Rule], whole: Mapping[str, Convert]
    ) -> None:
        self._schema = vars(schema)
        self._union = union
        self._rules = rules
        self._whole = whole
        self._fields: dict[type, dict[str, tuple[Convert, bool]]] = {}

    def read(self, cls: type, data: Any) -> Any:
        """An instance of ``cls``.

        :raises MalformedError: ``data`` does not fit the schema, or breaks a rule.
        """
        return self._record(cls, data)

    def _record(self, cls: type, data: Any) -> Any:
        fields = self._fields.get(cls)
        if fields is None:
            fields = self._fields[cls] = self._declared(cls)
        if not isinstance(data, dict):
            raise MalformedError(
                f"the program has a {type(data).__name__} where a {cls.__name__} belongs"
            )
        if issubclass(cls, self._union):
            return self._tagged(cls, fields, data)
        values = {}
        for name, (convert, required) in fields.items():
            if name in data:
                values[name] = convert(data[name])
            elif required:
                raise MalformedError(f"a {cls.__name__} of the program has no {name!r}")
        return cls(**values)

    def _tagged(self, cls: Any, fields: dict[str, tuple[Convert, bool]], data: Any) -> Any:
        tag = next(iter(data), None)
        if len(data) != 1 or tag not in fields:
            raise MalformedError(
                f"a {cls.__name__} of the program has the unknown form {tag!r:.100}"
            )
        return cls.create(**{tag: fields[tag][0](data[tag])})

    def _declared(self, cls: Any) -> dict[str, tuple[Convert, bool]]:
        hints = typing.get_type_hints(cls, globalns=self._schema)
        declared = {}
        for field in dataclasses.fields(cls):
            place = f"{cls.__name__}.{field.name}"
            convert = self._whole.get(place) or self._converter(hints[field.name], place)
            required = (
                field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING
            )
            declared[field.name] = (convert, required)
        return declared

    def _converter(self, hint: Any, place: str) -> Convert:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is Annotated:
            return self._converter(arguments[0], place)
        if origin in (typing.Union, types.UnionType):
            (inner,) = (a for a in arguments if a is not type(None))
            convert = self._converter(inner, place)
            return lambda value: None if value is None else convert(value)
        if origin is list:
            return _list_of(self._converter(arguments[0], place), place)
        if origin is dict:
            keys = self._string(f"{place}{{}}")
            return _dict_of(keys, self._converter(arguments[1], place), place)
        if hint is str:
            return self._string(place)
        if hint in _SCALARS:
            return functools.partial(_SCALARS[hint], place)
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return functools.partial(_enum, hint, place)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return functools.partial(self._record, hint)
        raise MalformedError(f"this PyTorch's schema has a {place} of the unknown type {hint}")

    def _string(self, place: str) -> Convert:
        rule = self._rules.get(place)

        def convert(value: Any) -> object:
            if rule is None:
                raise MalformedError(
                    f"the program has a {place}, which this hardpoint does not know"
                )
            if type(value) is not str:
                raise _mistyped(place, value)
            return rule(value)

        return convert


def _mistyped(place: str, value: object) -> MalformedError:
    return MalformedError(f"{place} of the program cannot be {value!r:.100}")


def _list_of(convert: Convert, place: str) -> Convert:
    def read(value: Any) -> list[Any]:
        if type(value) is not list:
            raise _mistyped(place, value)
        return [convert(item) for item in value]

    return read


def _dict_of(key: Convert, convert: Convert, place: str) -> Convert:
    def read(value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise _mistyped(place, value)
        return {key(name): convert(item) for name, item in value.items()}

    return read


def _int(place: str, value: Any) -> int:
    if type(value) is not int or not -_INT_LIMIT <= value < _INT_LIMIT:
        raise _mistyped(place, value)
    return value


def _bool(place: str, value: Any) -> bool:
    if type(value) is not bool:
        raise _mistyped(place, value)
    return value


def _float(place: str, value: Any) -> float:
    """JSON has no infinity: PyTorch writes it as a string."""
    if type(value) in (int, float) or (type(value) is str and value in _NOT_FINITE):
        return float(value)
    raise _mistyped(place, value)


def _enum(cls: type[enum.Enum], place: str, value: Any) -> enum.Enum:
    try:
        return cls(_int(place, value))
    except ValueError:
        raise _mistyped(place, value) from None


_SCALARS: Mapping[Any, Callable[[str, Any], Any]] = {int: _int, bool: _bool, float: _float}
