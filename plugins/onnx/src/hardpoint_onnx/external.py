"""Where the data of a tensor lie that are not in the model itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

from hardpoint import WeightsError
from hardpoint.storage.source import LocalFile, Source
from hardpoint_onnx.refuse import refuse, show

MAX_LOCATION = 4096
_IN_URLS = frozenset("?#%&*[]")
_NUMBER = re.compile(r"[0-9]{1,19}")
_MAX_SIZE = (1 << 63) - 1


class Entry(Protocol):
    """A pair of texts, as protobuf has it: bytes, where they are no text."""

    key: str | bytes
    value: str | bytes


class Place(NamedTuple):
    """A range of a file beside the model; ``length`` is ``None`` for all to its end."""

    location: str
    offset: int
    length: int | None


def place_of(entries: Iterable[Entry], file: str, what: str) -> Place:
    """The place that the entries of a tensor name.

    :param what: how to call the tensor in an error.
    :raises WeightsError: they name none, or one that is not beside the model.
    """
    found = texts_of(entries, file, f"the external data of {what}")
    if "location" not in found:
        raise _bad(file, what, "its data are said to be in another file, and no file is named")
    _check_location(found["location"], file, what)
    numbers: dict[str, int | None] = {"offset": 0, "length": None}
    for key in numbers:
        if key in found:
            text = found[key]
            if not _NUMBER.fullmatch(text) or int(text) > _MAX_SIZE:
                raise _bad(file, what, f"the {key} of its external data is {show(text)}")
            numbers[key] = int(text)
    return Place(found["location"], numbers["offset"] or 0, numbers["length"])


def texts_of(entries: Iterable[Entry], file: str, what: str) -> dict[str, str]:
    """The pairs, if they are text, and each key is there once.

    :param what: how to call them in an error.
    :raises WeightsError: it is not so.
    """
    found: dict[str, str] = {}
    for entry in entries:
        key, value = text_of(entry.key, file, what), text_of(entry.value, file, what)
        if key in found:
            raise refuse(file, f"{what} are broken", f"the key {show(key)} stands there twice")
        found[key] = value
    return found


def text_of(value: str | bytes, file: str, what: str) -> str:
    """A text of the file. Protobuf gives bytes where it is none, and lets them pass.

    :raises WeightsError: it is none.
    """
    if isinstance(value, bytes):
        raise refuse(file, f"{what} cannot be read", f"{show(value)} is not UTF-8")
    return value


def open_place(model: Source, location: str) -> Source:
    """The file at ``location``, which :func:`place_of` let pass, beside the model.

    A link is followed: the caches of model hubs are made of links. A folder of the way must not
    lead out of the model's own.

    :raises WeightsError: there is none, it is no regular file, or it is elsewhere.
    """
    folder = PurePosixPath(location).parent
    if isinstance(model, LocalFile) and folder.parts:
        home = model.path.parent.resolve()
        if not (home / folder).resolve().is_relative_to(home):
            raise refuse(
                model.name,
                "its external data are elsewhere",
                f"{show(location)} leads out of the model's folder by a link",
                "put the data beside the model",
            )
    if not isinstance(model, LocalFile) and set(location) & _IN_URLS:
        raise refuse(
            model.name,
            "its external data cannot be named in a URL",
            f"{show(location)} holds a character that means something there",
            "download all files of the model, into one folder",
        )
    try:
        return model.beside(location)
    except WeightsError as error:
        raise refuse(
            model.name,
            f"its external data in {show(location)} cannot be opened",
            error.cause or error.what,
            "download all files of the model, into one folder",
        ) from error


def _check_location(location: str, file: str, what: str) -> None:
    """A path of one or more plain names, from the model's folder on."""
    parts = location.split("/")
    wrong = (
        not location
        or len(location) > MAX_LOCATION
        or any(part in ("", "..") for part in parts)
        or parts[-1] == "."
        # What is a separator or a drive elsewhere has no place in a model that is passed on.
        or any(character in location for character in "\\:\0")
        or any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in location)
    )
    if wrong:
        raise _bad(
            file,
            what,
            f"its data are said to be in {show(location)}, which is no plain path from the model's"
            " folder on",
        )


def _bad(file: str, what: str, cause: str) -> WeightsError:
    return refuse(file, f"{what} is broken", cause)
