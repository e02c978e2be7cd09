"""The outermost fields of a model, walked over without reading what is in them.

Protobuf has no magic word, no end, and takes two files one after the other for one: the second
changes the first. So the outline is held to rules of its own before the library sees the file:
fields that a model has and no others, of the right kinds, single ones once, and the last of them
ending where the file ends. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from hardpoint.storage.source import Source

_VARINT, _LENGTH = 0, 2
_IR_VERSION, _GRAPH, _OPSETS = 1, 7, 8
# Field of ModelProto -> its kind, and whether it may be there more than once.
_FIELDS = {
    _IR_VERSION: (_VARINT, False),
    2: (_LENGTH, False),  # producer_name
    3: (_LENGTH, False),  # producer_version
    4: (_LENGTH, False),  # domain
    5: (_VARINT, False),  # model_version
    6: (_LENGTH, False),  # doc_string
    _GRAPH: (_LENGTH, False),
    _OPSETS: (_LENGTH, True),
    14: (_LENGTH, True),  # metadata_props
    20: (_LENGTH, True),  # training_info
    25: (_LENGTH, True),  # functions
    26: (_LENGTH, True),  # configuration
}
_MOST = 1 << 16
_HEAD = 20  # bytes of the longest tag and number
_MAX_IR_VERSION = 1 << 16  # they count from 1; there have been some 13
_OPSETS_SINCE = 3


def problem(source: Source, *, cut_is_fine: bool = False) -> str:
    """Why the file cannot be a model, or ``""``.

    :param cut_is_fine: whether a file that ends early, within or after its graph, may be one.
    """
    seen: dict[int, int] = {}
    version, at = 0, 0
    for _ in range(_MOST):
        if at == source.size:
            return _missing(seen, version)
        head = source.read(at, min(_HEAD, source.size - at))
        tag, begin = _varint(head, 0)
        number, end = _varint(head, begin)
        if not begin or not end:
            return "" if cut_is_fine and _GRAPH in seen else f"no field begins at byte {at}"
        field, kind = tag >> 3, tag & 7
        if field not in _FIELDS or kind != _FIELDS[field][0]:
            return f"at byte {at} stands field {field} of kind {kind}, which a model does not have"
        seen[field] = seen.get(field, 0) + 1
        if seen[field] > 1 and not _FIELDS[field][1]:
            return f"field {field} stands there twice, the second time at byte {at}"
        if field == _IR_VERSION:
            version = number
        at += end
        if kind == _LENGTH:
            at += number
        if at > source.size:
            fine = cut_is_fine and _GRAPH in seen and _IR_VERSION in seen
            return "" if fine else f"field {field} ends at byte {at}, and there are {source.size}"
    return f"it has more than {_MOST} fields"


def _missing(seen: dict[int, int], version: int) -> str:
    if not 0 < version < _MAX_IR_VERSION:
        return f"its ir_version is {version}"
    if _GRAPH not in seen:
        return "it has no graph"
    if version >= _OPSETS_SINCE and _OPSETS not in seen:
        return "it names no opset"
    return ""


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, and where it ends; 0 where none does."""
    number = 0
    for i, byte in enumerate(raw[at : at + 10]):
        number |= (byte & 127) << (7 * i)
        if byte < 128:
            return (number, at + i + 1) if number < 1 << 64 else (0, 0)
    return 0, 0
