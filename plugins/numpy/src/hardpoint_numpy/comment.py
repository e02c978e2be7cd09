"""Metadata, which ``.npz`` has no place for: as JSON in the comment of the zip archive.

NumPy and other readers pass over it; ``unzip -z`` shows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from hardpoint import WeightsError
from hardpoint_numpy.refuse import refuse, show

MAX_COMMENT = 0xFFFF
FOREIGN = "comment"


def metadata_of(comment: bytes, file: str) -> dict[str, str]:
    """What :func:`encode` wrote; any other comment that is text is the value of ``"comment"``.

    :raises WeightsError: it is no text.
    """
    if not comment:
        return {}
    try:
        text = comment.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _broken(file, f"it is not UTF-8 at byte {error.start}") from error
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return {FOREIGN: text}
    plain = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    if not plain:
        return {FOREIGN: text}
    for item in [*value.keys(), *value.values()]:
        if not is_unicode(item):
            raise _broken(file, f"{show(item)} holds half a surrogate pair")
    return dict(value)


def encode(metadata: Mapping[str, str], file: object) -> bytes:
    """The comment: the same bytes for the same content.

    :raises WeightsError: not text, or more than a comment holds.
    """
    if not metadata:
        return b""
    for key, value in metadata.items():
        for text in (key, value):
            if not isinstance(text, str) or not is_unicode(text):
                raise refuse(
                    file,
                    f"metadata {show(key)} cannot be saved",
                    f"{show(text)} is not text",
                    "give names and values as str; json.dumps() makes text of anything",
                )
    # ASCII, control characters escaped: nothing in it can look like the end of an archive.
    raw = json.dumps(dict(sorted(metadata.items())), separators=(",", ":")).encode("ascii")
    if len(raw) > MAX_COMMENT:
        raise refuse(
            file,
            "the metadata is too long to save",
            f"it takes {len(raw)} bytes; the comment of an archive has at most {MAX_COMMENT}",
            "shorten it, or save as safetensors",
        )
    return raw


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can spell it: half a surrogate pair it cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands there twice")
    return made


def _broken(file: str, cause: str) -> WeightsError:
    return refuse(file, "the comment of the archive is broken", cause)
