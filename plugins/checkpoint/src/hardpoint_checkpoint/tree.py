"""From nested dicts to names: tensors by dotted name, all else as JSON text."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from hardpoint import WeightsError
from hardpoint_checkpoint.refuse import refuse, show
from hardpoint_checkpoint.standins import Items, Pairs, Storage, TensorRef, Word

MAX_TENSORS = 1 << 18
_MAX_DEPTH = 100
# What the metadata may take as text, and in values: one object may stand in a thousand places.
_MAX_TEXT = 64 << 20
_MAX_VALUES = 1_000_000


@dataclass(slots=True)
class Content:
    """What a checkpoint holds, in its order."""

    tensors: dict[str, TensorRef] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def flatten(root: object, file: str) -> Content:
    """Names for all tensors, and text for all else.

    Dicts are followed, and lists where a tensor is within; other lists are one text.

    :raises WeightsError: two things have one name, a tensor has none, or there is too much.
    """
    return _Flattening(file).run(root)


class _Flattening:
    def __init__(self, file: str) -> None:
        self._file = file
        self._found = Content()
        self._holds: dict[int, bool] = {}
        self._text = _MAX_TEXT
        self._values = _MAX_VALUES

    def run(self, root: object) -> Content:
        if isinstance(root, Pairs | list | tuple):
            self._walk("", root, 0)
        else:
            self._leaf("tensor" if isinstance(root, TensorRef | Storage) else "value", root)
        return self._found

    def _no(self, cause: str) -> WeightsError:
        return refuse(self._file, "what the checkpoint holds cannot be named", cause)

    def _walk(self, prefix: str, value: object, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise self._no(f"it is nested more than {_MAX_DEPTH} levels deep, or holds itself")
        if isinstance(value, Pairs) and self._nameable(value, depth):
            if not value.items and prefix:
                self._leaf(prefix, value)
            for key, inner in value.items:
                name = key if isinstance(key, str) else str(key)
                self._step(f"{prefix}.{name}" if prefix or depth else name, inner, depth)
        elif isinstance(value, list | tuple) and (not depth or self._tensors_in(value, depth)):
            for i, inner in enumerate(value):
                self._step(f"{prefix}.{i}" if prefix or depth else str(i), inner, depth)
        else:
            self._leaf(prefix, value)

    def _step(self, name: str, value: object, depth: int) -> None:
        self._spend(len(name))
        if isinstance(value, Pairs | list | tuple):
            self._walk(name, value, depth + 1)
        else:
            self._leaf(name, value)

    def _nameable(self, value: Pairs, depth: int) -> bool:
        """Whether its keys make names; else it is text, if no tensor is within."""
        strange = [key for key, _ in value.items if type(key) not in (str, int)]
        if not strange:
            return True
        if self._tensors_in(value, depth):
            raise self._no(f"tensors are kept under the key {show(strange[0])}")
        return False

    def _tensors_in(self, value: object, depth: int) -> bool:
        """Whether a tensor is within; each object is looked at once, wherever it stands."""
        if isinstance(value, TensorRef | Storage):
            return True
        if not isinstance(value, Pairs | Items | list | tuple):
            return False
        known = self._holds.get(id(value))
        if known is None:
            if depth > _MAX_DEPTH:
                raise self._no(f"it is nested more than {_MAX_DEPTH} levels deep, or holds itself")
            self._holds[id(value)] = False  # while it is looked at: it may hold itself
            inner = (
                [part for pair in value.items for part in pair]
                if isinstance(value, Pairs)
                else value.items
                if isinstance(value, Items)
                else value
            )
            # Not any(): all are to be known, and none left as they are found half-way.
            known = bool(sum([self._tensors_in(each, depth + 1) for each in inner]))
            self._holds[id(value)] = known
        return known

    def _leaf(self, name: str, value: object) -> None:
        self._spend(1)
        if name in self._found.tensors or name in self._found.metadata:
            raise self._no(f"two things in it are called {show(name)}")
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise self._no(f"the name {show(name)} holds half a surrogate pair") from None
        if isinstance(value, Storage):
            value = _whole(value)
        if isinstance(value, TensorRef):
            if len(self._found.tensors) >= MAX_TENSORS:
                raise self._no(f"it has more than {MAX_TENSORS} tensors")
            self._found.tensors[name] = value
        else:
            self._found.metadata[name] = json.dumps(self._plain(value, 0))

    def _spend(self, text: int) -> None:
        self._text -= text
        self._values -= 1
        if self._text < 0 or self._values < 0:
            raise self._no(
                f"beside tensors it holds more than {_MAX_TEXT} characters or {_MAX_VALUES} values"
            )

    def _plain(self, value: object, depth: int) -> object:
        """What JSON can say of a value."""
        if depth > _MAX_DEPTH:
            raise self._no(f"it is nested more than {_MAX_DEPTH} levels deep, or holds itself")
        self._spend(len(value) if isinstance(value, str | bytes) else 8)
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else repr(value)
        if isinstance(value, complex):
            return [self._plain(value.real, depth), self._plain(value.imag, depth)]
        if isinstance(value, bytes):
            return value.hex()
        if isinstance(value, Word):
            return value.text
        if isinstance(value, Pairs):
            return self._object(value, depth)
        if isinstance(value, Items | list | tuple):
            items = value.items if isinstance(value, Items) else value
            if self._tensors_in(value, depth):
                raise self._no("a tensor is in a set, or is a key of a dict")
            return [self._plain(each, depth + 1) for each in items]
        name = getattr(value, "name", type(value).__name__)
        raise self._no(f"{show(name)} stands in it as a value")

    def _object(self, value: Pairs, depth: int) -> object:
        keys = {str(key) for key, _ in value.items if type(key) in (str, int)}
        if len(keys) == len(value.items):
            return {str(key): self._plain(inner, depth + 1) for key, inner in value.items}
        return [
            [self._plain(key, depth + 1), self._plain(inner, depth + 1)]
            for key, inner in value.items
        ]


def _whole(storage: Storage) -> TensorRef:
    """A storage that stands by itself, as the tensor of all that it holds."""
    kind = storage.type
    count = storage.nbytes // kind.itemsize
    return TensorRef(storage, kind.dtype, kind.itemsize, 0, (count,), (1,))
