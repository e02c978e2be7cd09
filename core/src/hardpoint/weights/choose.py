"""Which serializer reads or writes a file: content decides for reading, the suffix for writing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from hardpoint.errors import (
    ContractViolation,
    HardpointError,
    ProviderFailed,
    ProviderSkipped,
    WeightsError,
)
from hardpoint.interfaces.serializer import Reader, Serializer
from hardpoint.weights.content import look, name_of
from hardpoint.weights.opened import Opened

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry
    from hardpoint.storage.source import Source


def open_weights(
    path: Path | str,
    *,
    registry: Registry,
    format: str | None = None,  # noqa: A002 - the field's word
    device: str = "cpu",
) -> Reader:
    """Open ``path`` with the serializer that recognizes its content, or with the one named.

    The suffix only orders the tries. A serializer that fails while it looks is skipped with a
    :class:`ProviderSkipped` warning.

    :param device: where the reader's tensors live; other than the file's own memory is a copy.
    :raises WeightsError: no such file, no serializer knows it, or it is damaged or hostile.
    :raises ProviderError: the serializer named is missing or broken.
    """
    return open_named(path, registry=registry, format=format, device=device).reader


def open_named(
    path: Path | str,
    *,
    registry: Registry,
    format: str | None = None,  # noqa: A002
    device: str = "cpu",
) -> Opened:
    """As :func:`open_weights`, with the name of the serializer."""
    place, name, serializer = _chosen(path, registry, format)
    return _open(place, name, serializer, registry, device)


def serializer_for(
    path: Path,
    *,
    registry: Registry,
    format: str | None = None,  # noqa: A002
) -> tuple[str, Serializer]:
    """The serializer that :func:`open_weights` would open a file with, and its name.

    :raises WeightsError: no such file, or no serializer knows it.
    :raises ProviderError: the serializer named is missing or broken.
    """
    return _chosen(path, registry, format)[1:]


def _chosen(
    path: Path | str, registry: Registry, form: str | None
) -> tuple[Path | Source, str, Serializer]:
    from hardpoint.storage.remote import is_url, open_url

    if isinstance(path, str) and is_url(path):
        place: Path | Source = open_url(path)
    else:
        place = Path(path)
        if not place.exists():
            raise WeightsError(f"there is no file {path}", remedy="check the path")
    if form is None:
        name, serializer = _recognize(place, registry)
    else:
        name, serializer = form, registry.open("serializer", form)
    return place, name, serializer


def writer_for(path: Path, registry: Registry, name: str | None) -> tuple[str, Serializer]:
    """The serializer called ``name``, or the one whose suffix ``path`` ends with.

    :raises WeightsError: no serializer, or more than one, writes such files.
    """
    if name is not None:
        serializer = registry.open("serializer", name)
        if not registry.info("serializer", name).can_save:
            raise WeightsError(
                f"{name} cannot write {path}",
                provider=f"serializer:{name}",
                origin=registry.record("serializer", name).origin,
                cause="it only reads",
                remedy="name another serializer",
            )
        return name, serializer
    suffixes = {
        name: info.suffixes
        for name, _ in registry.available("serializer").ready
        if (info := registry.info("serializer", name)).can_save
    }
    fit = {name: _fit(path, known) for name, known in suffixes.items()}
    best = [name for name in fit if fit[name] and fit[name] == max(fit.values())]
    if len(best) == 1:
        return best[0], registry.open("serializer", best[0])
    if best:
        raise WeightsError(
            f"several serializers write {path.name}",
            cause=", ".join(best),
            remedy=f"say which, e.g. format={best[0]!r}",
        )
    known = ", ".join(suffix for each in suffixes.values() for suffix in each)
    raise WeightsError(
        f"no installed serializer writes {path.suffix or 'files without a suffix'} ({path.name})",
        cause=f"known suffixes: {known or 'none'}",
        remedy=f"use one of them, or name the serializer with format= ({', '.join(suffixes)})",
    )


def _fit(path: PurePath, suffixes: tuple[str, ...]) -> int:
    """How much of the file's name a serializer claims: the longer suffix knows better."""
    return max((len(suffix) for suffix in suffixes if path.name.endswith(suffix)), default=0)


def _recognize(place: Path | Source, registry: Registry) -> tuple[str, Serializer]:
    """The first serializer that knows the content; those that claim the suffix look first."""
    path = place if isinstance(place, Path) else PurePosixPath(place.name)
    where = name_of(place)
    names: list[str] = []
    failed: list[str] = []
    for name in _in_turn(path, registry):
        names.append(name)
        try:
            serializer = registry.open("serializer", name)
            if (
                serializer.recognizes(place)
                if isinstance(place, Path)
                else serializer.recognizes_source(place)
            ):
                return name, serializer
        except Exception as error:
            if isinstance(error, WeightsError) and not (isinstance(place, Path) or error.provider):
                raise  # the server's fault, which no serializer can mend
            # Picked automatically: a broken one must not stand in the others' way.
            cause = str(error) if isinstance(error, HardpointError) else _in_words(error)
            failed.append(f"{name} failed: {cause}")
            warnings.warn(
                f"skipped serializer:{name}, which failed while looking at {where}: {cause}",
                ProviderSkipped,
                stacklevel=2,
            )
    words, remedy = look(place, names)
    tried = "; ".join([f"tried: {', '.join(names) or 'none'}", *failed])
    raise WeightsError(
        f"no installed serializer reads {where}",
        cause=f"it holds {words}; {tried}",
        remedy=remedy,
    )


def _in_turn(path: PurePath, registry: Registry) -> Iterator[str]:
    """Available serializers: those that claim the file's name first, by the longest suffix."""

    def rank(name: str) -> tuple[int, str]:
        return -_fit(path, registry.info("serializer", name).suffixes), name

    first = None
    records = registry.records("serializer")
    # The usual case, in a fifth of the time: all were asked before, and the first knows the file.
    if not any(record.state == "discovered" for record in records):
        loaded = [record.name for record in records if record.state == "loaded"]
        with suppress(HardpointError):  # a broken one is told of by `available`, below
            best = min(loaded, key=rank, default=None)
            if best is not None and registry.probe("serializer", best).available:
                first = best
    if first is not None:
        yield first
    names = [name for name, _ in registry.available("serializer").ready]
    yield from (name for name in sorted(names, key=rank) if name != first)


def _open(
    place: Path | Source, name: str, serializer: Serializer, registry: Registry, device: str
) -> Opened:
    """Open, and let nothing but a reader or a HardpointError through."""
    provider, origin = f"serializer:{name}", registry.record("serializer", name).origin
    try:
        reader: object = (
            serializer.open(place, device=device)
            if isinstance(place, Path)
            else serializer.open_source(place, device=device)
        )
    except HardpointError:
        raise
    except Exception as error:
        raise ProviderFailed(
            f"{name} failed while opening {name_of(place)}",
            provider=provider,
            origin=origin,
            cause=_in_words(error),
            remedy="report it to the plugin's authors: a bad file is a WeightsError",
        ) from error
    if not isinstance(reader, Reader):
        raise ContractViolation(
            f"open() of {name} returned {type(reader).__name__}",
            provider=provider,
            origin=origin,
            cause="the contract wants a hardpoint.Reader",
            remedy="report it to the plugin's authors",
        )
    return Opened(name, origin, reader)


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
