"""``.metadata``: what tensors there are, of which chunks, and where in which file these stand.

It is a pickle, and PyTorch runs it. Here it is read as data (:mod:`hardpoint.storage.pickles`): the
names below are all that it may name, and none of them is looked up or called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hardpoint import WeightsError
from hardpoint.storage.boxes import Box, fills
from hardpoint.storage.pickles import Call, Name, PickleRefused, read
from hardpoint_dcp.dtypes import ITEMSIZE, NAMES
from hardpoint_dcp.refuse import DAMAGED, refuse, show

METADATA = ".metadata"
SUFFIX = ".distcp"
MAX_BYTES = 256 << 20
MAX_TENSORS = 1 << 20
MAX_FILES = 1 << 16
MAX_RANK = 64  # PyTorch's
_MAX_OPERATIONS = 1 << 26
_MAX_SIZE = (1 << 63) - 1

_META = "torch.distributed.checkpoint.metadata"
_CLASSES = (
    "Metadata",
    "MetadataIndex",
    "TensorStorageMetadata",
    "BytesStorageMetadata",
    "ChunkStorageMetadata",
    "TensorProperties",
    "StorageMeta",
    "_MEM_FORMAT_ENCODING",
)
_ALLOWED = NAMES | {
    *((_META, name) for name in _CLASSES),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    # Where it was saved; not looked at.
    *((module, "PosixPath") for module in ("pathlib", "pathlib._local")),
}


class Place(NamedTuple):
    """``length`` bytes at ``offset`` of ``file``, a bare name beside the metadata."""

    file: str
    offset: int
    length: int


class Chunk(NamedTuple):
    """A block of a tensor, and the item that holds it; an empty block needs none."""

    box: Box
    place: Place | None


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor: its dtype, its shape, and chunks that fill it exactly."""

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What ``.metadata`` says: tensors, and values that are none, by name."""

    tensors: dict[str, Stored]
    values: dict[str, Place]

    @property
    def places(self) -> list[tuple[str, Place]]:
        """Every item, with the name of what it holds."""
        chunks = [(n, c.place) for n, t in self.tensors.items() for c in t.chunks]
        return [*((n, place) for n, place in chunks if place), *self.values.items()]


def parse(data: bytes, file: str) -> Contents:
    """Check and translate the metadata ``data`` of ``file``.

    :raises WeightsError: it is no such pickle, names what it must not, or does not hold together.
    """
    try:
        top = read(data, names=_ALLOWED, most=_MAX_OPERATIONS)
    except PickleRefused as error:
        raise refuse(
            file, "the metadata is refused, and nothing of it was run", str(error)
        ) from error
    state = _state(top, "Metadata", file)
    listed, stored = state.get("state_dict_metadata"), state.get("storage_data")
    if type(listed) is not dict or type(stored) is not dict:
        raise _broken(file, "it has no list of tensors, or does not say where they are")
    if len(listed) > MAX_TENSORS:
        raise _broken(file, f"it names {len(listed)} tensors; at most {MAX_TENSORS} are read")
    places = _places(stored, file)
    tensors, values = {}, {}
    for name, entry in listed.items():
        if type(name) is not str:
            raise _broken(file, f"it names a tensor {show(name)}, which is no text")
        if isinstance(entry, Call) and entry.name == Name(_META, "BytesStorageMetadata"):
            if (name, None) not in places:
                raise _broken(file, f"it does not say where {show(name)} is")
            values[name] = places.pop((name, None))
        else:
            tensors[name] = _tensor(name, entry, places, file)
    if places:
        name = next(iter(places))[0]
        raise _broken(file, f"it says where a chunk of {show(name)} is that no tensor has")
    contents = Contents(tensors, values)
    _check_apart(contents.places, file)
    return contents


def _broken(file: str, cause: str) -> WeightsError:
    return refuse(file, "the metadata is broken", cause)


def _state(value: object, kind: str, file: str, module: str = _META) -> Mapping[str, Any]:
    """The fields of an object that must be a ``kind``."""
    if not isinstance(value, Call) or value.name != (module, kind):
        raise _broken(file, f"a {kind} should stand where {show(value)} stands")
    if type(value.state) is not dict or value.arguments or value.items:
        raise _broken(file, f"a {kind} is not made of fields")
    return value.state


def _sizes(value: object, file: str) -> tuple[int, ...]:
    """The numbers of a ``torch.Size``."""
    sizes = value.arguments[0] if isinstance(value, Call) and len(value.arguments) == 1 else None
    if not isinstance(value, Call) or value.name != ("torch", "Size") or type(sizes) is not tuple:
        raise _broken(file, f"a torch.Size should stand where {show(value)} stands")
    if len(sizes) > MAX_RANK:
        raise _broken(file, f"a shape has {len(sizes)} dimensions; at most {MAX_RANK} may be")
    if not all(type(size) is int and 0 <= size <= _MAX_SIZE for size in sizes):
        raise _broken(file, f"{show(sizes)} are no sizes")
    return sizes


def _places(
    stored: Mapping[Any, Any], file: str
) -> dict[tuple[str, tuple[int, ...] | None], Place]:
    """Where each item is, by the name of its tensor and its first element there."""
    found: dict[tuple[str, tuple[int, ...] | None], Place] = {}
    files = set()
    for key, value in stored.items():
        index = _state(key, "MetadataIndex", file)
        name, offset = index.get("fqn"), index.get("offset")
        if type(name) is not str:
            raise _broken(file, f"it says where {show(name)} is, which is no text")
        at = (name, None if offset is None else _sizes(offset, file))
        if at in found:
            raise _broken(file, f"it says twice where a chunk of {show(name)} is")
        found[at] = _place(value, name, file)
        files.add(found[at].file)
    if len(files) > MAX_FILES:
        raise _broken(file, f"it names {len(files)} files; at most {MAX_FILES} are read")
    return found


def _place(value: object, name: str, file: str) -> Place:
    info = _state(value, "_StorageInfo", file, "torch.distributed.checkpoint.filesystem")
    path, offset, length = (info.get(key) for key in ("relative_path", "offset", "length"))
    if info.get("transform_descriptors"):
        raise refuse(
            file,
            f"{show(name)} was transformed when it was saved",
            f"by {show(info['transform_descriptors'])}: an extension of torch's writer",
            "load it with torch.distributed.checkpoint, and save it without extensions",
        )
    if type(path) is not str or not _is_bare(path):
        raise _broken(
            file,
            f"{show(name)} is said to be in {show(path)}, which is no *{SUFFIX} file right beside",
        )
    if not (type(offset) is int and type(length) is int and offset >= 0 and length > 0):
        raise _broken(file, f"{show(name)} is said to be at {show((offset, length))}, no range")
    return Place(path, offset, length)


def _is_bare(path: str) -> bool:
    """No directory, drive or control character in it: it cannot leave the checkpoint."""
    marked = any(mark in path for mark in "/\\:")
    return path.endswith(SUFFIX) and path != SUFFIX and path.isprintable() and not marked


def _tensor(
    name: str,
    entry: object,
    places: dict[tuple[str, tuple[int, ...] | None], Place],
    file: str,
) -> Stored:
    state = _state(entry, "TensorStorageMetadata", file)
    dtype, shape = _dtype(name, state.get("properties"), file), _sizes(state.get("size"), file)
    product = ITEMSIZE[dtype]
    for size in shape:
        product *= size or 1
    if product > _MAX_SIZE:
        raise refuse(
            file, f"tensor {show(name)} is broken", f"shape {show(shape)} is larger than any memory"
        )
    listed = state.get("chunks")
    if type(listed) is not list:
        raise _broken(file, f"the chunks of {show(name)} are no list")
    boxes = []
    for each in listed:
        fields = _state(each, "ChunkStorageMetadata", file)
        boxes.append(Box(_sizes(fields.get("offsets"), file), _sizes(fields.get("sizes"), file)))
    wrong = fills(shape, boxes)
    if wrong:
        raise refuse(file, f"tensor {show(name)} is broken", wrong)
    # Empty chunks may begin where another does.
    chunks = [(box, places.pop((name, box.offsets), None)) for box in boxes if 0 not in box.sizes]
    for box in boxes:
        if 0 in box.sizes:
            places.pop((name, box.offsets), None)
    for box, place in chunks:
        if place is None:
            at = list(box.offsets)
            raise refuse(
                file,
                f"tensor {show(name)} is not whole",
                f"nothing says in which file its chunk at {at} is",
                DAMAGED,
            )
    return Stored(dtype, shape, tuple(Chunk(box, place) for box, place in chunks))


def _dtype(name: str, properties: object, file: str) -> str:
    ours = isinstance(properties, Call) and properties.name == (_META, "TensorProperties")
    state = properties.state if isinstance(properties, Call) and ours else None
    if type(state) is not tuple or len(state) != 5:
        raise _broken(file, f"the properties of {show(name)} are none")
    dtype, layout = state[:2]
    if not isinstance(dtype, Name) or dtype.name not in ITEMSIZE:
        raise _broken(file, f"the dtype of {show(name)} is {show(dtype)}")
    if not isinstance(layout, Call) or layout.arguments != ("torch.strided",):
        raise _broken(file, f"the layout of {show(name)} is not torch.strided")
    return dtype.name


def _check_apart(places: list[tuple[str, Place]], file: str) -> None:
    """No byte belongs to two items."""
    before, end = ("", ""), 0
    for name, place in sorted(places, key=lambda each: each[1]):
        if before[0] == place.file and place.offset < end:
            raise _broken(file, f"{show(name)} and {show(before[1])} overlap in {show(place.file)}")
        before, end = (place.file, name), place.offset + place.length
