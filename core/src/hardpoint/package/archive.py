"""A PT2 archive, opened for reading: one mapping of the file, and read-only views of its entries.

Imports no torch: ``hardpoint inspect`` and ``verify-package`` work without it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from hardpoint.errors import PackageError
from hardpoint.package import strict_json, zip_layout
from hardpoint.package.refusal import MalformedError, refusing, unusable
from hardpoint.package.zip_layout import Entry

FORMAT = b"pt2"
VERSION = b"0"
BYTE_ORDER = b"little"
MAX_JSON = 256 << 20
# An entry larger than this is hashed in parts of this size, too: many threads share it.
PART = 8 << 20


class Archive:
    """An open archive. Use :meth:`open`; close it, or use it as a context manager.

    The file must not be changed in place while it is open, or while a tensor that is mapped from it
    lives: the change would show, and the operating system ends a process that reads a page which is
    no longer there. Replacing the file, as :class:`ArchiveWriter` does, is safe.
    """

    def __init__(self, path: Path, root: str, entries: dict[str, Entry], data: memoryview) -> None:
        self.path = path
        self.root = root
        self.entries: Mapping[str, Entry] = MappingProxyType(entries)
        self._data: memoryview | None = data

    @classmethod
    def open(cls, path: str | Path) -> Archive:
        """Map the file and check its structure. Contents are checked by ``integrity``.

        :raises PackageError: no such file, not a PT2 archive, damaged or hostile.
        """
        path = Path(path)
        data = _map(path)
        with refusing(path):
            root, entries = zip_layout.parse(data)
            archive = cls(path, root, entries, data)
            archive._check_format()
        return archive

    def _check_format(self) -> None:
        for name, wanted in (
            ("archive_format", FORMAT),
            ("archive_version", VERSION),
            ("byteorder", BYTE_ORDER),
        ):
            entry = self.entries.get(name)
            if entry is None:
                raise MalformedError(
                    f"it is a zip archive, but no PT2 archive: it has no entry {name!r}",
                    remedy="give a file that compiled.save(...) or torch.export.save(...) wrote",
                )
            found = bytes(self._bytes()[entry.offset : entry.offset + min(entry.size, 64)])
            if found != wanted:
                raise MalformedError(f"its {name} is {found!r}; this hardpoint reads {wanted!r}")

    def _bytes(self) -> memoryview:
        if self._data is None:
            raise PackageError(
                f"{self.path} is closed",
                cause="an entry was asked for after close()",
                remedy="open the package again",
            )
        return self._data

    def private(self, name: str) -> memoryview:
        """The entry's bytes, writable: what is written stays in memory and never reaches the file.

        This is what tensors are made on. Nothing is copied until it is written to.

        :raises PackageError: no such entry.
        """
        entry = self._entry(name)
        return self._bytes()[entry.offset : entry.offset + entry.size]

    def _entry(self, name: str) -> Entry:
        found = self.entries.get(name)
        if found is None:
            raise unusable(self.path, f"it has no entry {name!r}")
        return found

    def view(self, name: str) -> memoryview:
        """The entry's bytes, read-only, not copied. Stays valid after :meth:`close`.

        :raises PackageError: no such entry.
        """
        return self.private(name).toreadonly()

    def read_json(self, name: str, max_bytes: int = MAX_JSON) -> Any:
        """The entry as JSON.

        :raises PackageError: no such entry, or not strictly valid JSON of at most that size.
        """
        view = self.view(name)
        with refusing(self.path):
            return strict_json.parse(view, what=f"entry {name!r}", max_bytes=max_bytes)

    def give_back(self, names: Iterable[str]) -> None:
        """Let the system take the pages of these entries; who reads them again has the file's.

        What was written into them is lost. Only whole pages count, and only where the system knows
        such a thing (Linux: madvise(2), ``MADV_DONTNEED``) and does it: locked pages stay.

        :raises PackageError: no such entry.
        """
        if self._data is None or sys.platform != "linux":
            return
        wanted = {self._entry(name) for name in names}
        spans: list[tuple[int, int]] = []
        joins = False
        for entry in sorted(self.entries.values(), key=lambda e: e.offset):
            if entry in wanted:
                # Behind a neighbour there is a header, and nothing that was written to.
                begin = spans.pop()[0] if joins else entry.offset
                spans.append((begin, entry.offset + entry.size))
            joins = entry in wanted
        for begin, end in spans:
            first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
            length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
            if length > 0:
                mapping: Any = self._data.obj
                with contextlib.suppress(OSError):  # locked by mlockall(2), say: it is a hint
                    mapping.madvise(mmap.MADV_DONTNEED, first, length)

    def close(self) -> None:
        """Let go of the mapping. Safe to call twice.

        Views and tensors already handed out keep it alive, and it goes with the last of them:
        unmapping it under a live tensor would crash the process.
        """
        self._data = None

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _map(path: Path) -> memoryview:
    try:
        # Opening a named pipe would wait for somebody to write to it.
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise unusable(path, "it is no regular file, but a pipe or a device")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except ValueError:  # what mmap says of an empty file
        raise unusable(path, "the file is empty") from None
    except OSError as error:
        raise unusable(
            path,
            f"it cannot be read: {error.strerror}",
            remedy="check the path and its permissions",
        ) from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
