"""Files behind URLs, through fsspec: http(s), s3, gs, hf, and whatever else it has drivers for."""

from __future__ import annotations

import importlib
import os
import re
from typing import Any

from hardpoint.errors import WeightsError
from hardpoint.storage.http import fetch_bounded
from hardpoint.storage.refusal import DAMAGED, show
from hardpoint.storage.source import Source

# More at a time keep a network busy; each is a request of its own.
_AT_ONCE = 8
# Bytes from the start that are fetched together and kept.
_HEAD = 1024
# What file systems of fsspec call that which changes with a file.
_VERSIONS = (
    "ETag", "etag", "mtime", "modified", "created", "LastModified", "Last-Modified", "Content-MD5",
    "Digest", "generation", "blob_id", "last_commit", "sha256",
)  # fmt: skip
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(::|://)")


def is_url(path: str) -> bool:
    """Whether it names a place for fsspec (``https://...``, ``s3://...``), not a local path."""
    found = _URL.match(path)
    # A file may be called "a::b", but none can be "a://b".
    return found is not None and (found[1] == "://" or not os.path.lexists(path))


def open_url(url: str) -> RemoteFile:
    """The file at ``url``; asks for its size, and reads nothing.

    :raises WeightsError: no fsspec, no driver for such URLs, no such file, or one of unknown size.
    """
    try:
        fsspec = importlib.import_module("fsspec.core")
    except ImportError as error:
        raise WeightsError(
            f"{url} cannot be opened",
            cause="files behind URLs need fsspec, which is not installed",
            remedy="pip install 'hardpoint[remote]', or download the file first",
        ) from error
    try:
        system, path = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise WeightsError(
            f"{url} cannot be opened",
            cause=str(error),
            remedy="install what fsspec asks for, or download the file first",
        ) from error
    return RemoteFile(url, system, path)


class RemoteFile(Source):
    """A file of an fsspec file system, read by ranges.

    :raises WeightsError: no such file, a directory, or a server that does not tell its size.
    """

    def __init__(self, url: str, system: Any, path: str) -> None:
        self.name = url
        self._system = system
        self._path = path
        try:
            info = self._info()
        except Exception as error:
            raise self._failed("cannot be opened", error) from error
        if info.get("type") == "directory":
            raise WeightsError(
                f"{url} is a directory",
                cause="files behind URLs are named one by one",
                remedy="name the file in it, e.g. model.safetensors.index.json",
            )
        size = info.get("size")
        if type(size) is not int or size < 0:
            raise WeightsError(
                f"{url} cannot be read by ranges",
                cause="the server does not tell its size",
                remedy="download the file first",
            )
        self.size = size
        self._stamp = _stamp(info)
        self._head: bytes | None = None
        self._exactly = _exactly(system)
        # Others have sessions, too, which are no HTTP client's: those of s3fs are botocore's.
        self._web = "http" in system.protocol

    def _info(self) -> dict[str, Any]:
        """What the server says now, not what a listing of an hour ago said."""
        self._system.invalidate_cache()
        found: dict[str, Any] = self._system.info(self._path)
        return found

    @property
    def parallel(self) -> int:
        """As :attr:`Source.parallel`."""
        return _AT_ONCE

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As :meth:`Source.read_into`: one request."""
        end = offset + len(buffer)
        if end <= _HEAD:  # serializers look at it in turn, to tell whose file it is
            if self._head is None:
                self._head = self._fetch(0, min(_HEAD, self.size))
            buffer[:] = self._head[offset:end]
        elif offset < end:
            buffer[:] = self._fetch(offset, end)

    def _fetch(self, begin: int, end: int) -> bytes:
        try:
            data = (
                fetch_bounded(self._system, self._path, begin, end)
                if self._web
                else self._system.cat_file(self._path, start=begin, end=end, **self._exactly)
            )
        except Exception as error:
            raise self._failed("cannot be read", error) from error
        if len(data) != end - begin:
            raise WeightsError(
                f"{self.name}: the server's answer is of the wrong length",
                cause=f"asked for {end - begin} bytes at {begin} of {self.size}, got {len(data)}"
                + (" or more" if len(data) > end - begin else ""),
                remedy="use a server that serves ranges, or download the file first",
            )
        return bytes(data)

    def beside(self, name: str) -> RemoteFile:
        """As :meth:`Source.beside`."""
        parts = name.split("/")
        if any(mark in name for mark in "%?#&\\") or not {"", ".", ".."}.isdisjoint(parts):
            raise WeightsError(
                f"{self.name}: {show(name)} is no name of a file beside it or below",
                cause="to a server, characters in it may mean another place",
                remedy=DAMAGED,
            )
        web = self.name.startswith(("http://", "https://"))
        url, query, rest = self.name.partition("?") if web else (self.name, "", "")
        return open_url(f"{url.rpartition('/')[0]}/{name}{query}{rest}")

    def check_unchanged(self) -> None:
        """As :meth:`Source.check_unchanged`: by what the server says tells versions apart."""
        try:
            info = self._info()
        except Exception as error:
            raise self._failed("cannot be read", error) from error
        if _stamp(info) != self._stamp:
            raise WeightsError(
                f"{self.name}: the file changed while it was open",
                cause="the server gives it another size or version than before",
                remedy="load it again",
            )

    def _failed(self, how: str, error: Exception) -> WeightsError:
        return WeightsError(
            f"{self.name} {how}",
            cause=f"{type(error).__name__}: {error}",
            remedy="check the address, the network and your credentials",
        )


def _exactly(system: Any) -> dict[str, str]:
    """Options with which ``cat_file`` asks the server for the range and no more.

    Drivers without a ``cat_file`` of their own (``hf://``) open the file, and by default that reads
    5 MiB ahead at each tensor.
    """
    usual = importlib.import_module("fsspec.spec").AbstractFileSystem.cat_file
    # Of the instance: asynchronous drivers (s3fs) give each one its own.
    inherited = getattr(system.cat_file, "__func__", None) is usual
    return {"cache_type": "none"} if inherited else {}


def _stamp(info: dict[str, Any]) -> tuple[object, ...]:
    """What tells versions of a file apart, as far as this file system says; at least its size."""
    return (info.get("size"), *(str(info.get(key)) for key in _VERSIONS))
