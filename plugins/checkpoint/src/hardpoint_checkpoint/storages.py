"""Persistent ids: how a pickle names the storages that lie elsewhere in its file."""

from __future__ import annotations

from hardpoint.storage.refusal import show
from hardpoint_checkpoint.standins import Refused, Storage, StorageType

_LARGEST = (1 << 63) - 1
_MAX_KEY = 64


class Storages:
    """Makes storages of persistent ids, and remembers what was said of each key.

    :param views: whether an id may say that it is part of another storage, as old files do.
    :ivar totals: bytes of each key.
    :ivar types: of each key.
    """

    def __init__(self, *, views: bool) -> None:
        self._views = views
        self.totals: dict[str, int] = {}
        self.types: dict[str, StorageType] = {}

    def load(self, given: object) -> Storage:
        """The storage that a persistent id names.

        :raises Refused: it is no such id.
        """
        length = 6 if self._views else 5
        if not isinstance(given, tuple) or len(given) != length or given[0] != "storage":
            raise Refused(f"it refers to {show(given)}, which is no storage of tensors")
        kind, key, _location, count = given[1:5]
        if not isinstance(kind, StorageType):
            raise Refused("a storage is of a type that is none")
        if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY or not _plain(key):
            raise Refused(f"a storage is called {show(key)}")
        if type(count) is not int or not 0 <= count * kind.itemsize <= _LARGEST:
            raise Refused(f"storage {show(key)} has {show(count)} elements")
        total = count * kind.itemsize
        if self.totals.setdefault(key, total) != total:
            raise Refused(f"storage {show(key)} has {total} bytes here, and other ones elsewhere")
        self.types.setdefault(key, kind)
        begin, nbytes = self._part(given[5], kind, total) if self._views else (0, total)
        return Storage(key, kind, total, begin, nbytes)

    @staticmethod
    def _part(view: object, kind: StorageType, total: int) -> tuple[int, int]:
        if view is None:
            return 0, total
        if not isinstance(view, tuple) or len(view) != 3:
            raise Refused(f"a storage is the part {show(view)} of another")
        _, offset, size = view
        if type(offset) is not int or type(size) is not int or offset < 0 or size < 0:
            raise Refused(f"a storage is the part {show(view)} of another")
        if (offset + size) * kind.itemsize > total:
            raise Refused(f"a storage is the part {show(view)} of another, beyond its end")
        return offset * kind.itemsize, size * kind.itemsize


def _plain(key: str) -> bool:
    """A bare name: one member of the folder ``data``, or a number."""
    return key.isascii() and key.isprintable() and not set(key) & set("/\\:")
