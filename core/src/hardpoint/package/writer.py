"""Writes a PT2 archive: streaming, deterministic, and atomically.

The same entries in the same order give the same bytes: no clock, no random numbers. The layout is
PyTorch's own (``caffe2/serialize/inline_container.h``): stored, aligned to 64 bytes by an extra
field ``FB``, one root folder, zip64 end record; but without data descriptors, so that a header says
the whole truth.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import BinaryIO, NamedTuple

from hardpoint.errors import PackageError
from hardpoint.package import zip_layout as layout
from hardpoint.package.archive import BYTE_ORDER, FORMAT, PART, VERSION
from hardpoint.package.refusal import MalformedError

ROOT = "hardpoint"
# PyTorch's reader refuses an archive without this record; 6 is what its PT2 writer sets.
_CONTAINER_VERSION = b"6\n"
_DATE = (1 << 5) | 1  # 1980-01-01, the first day that zip can say
_PADDING_FIELD = 0x4246  # "FB"


class Digest(NamedTuple):
    """What was written for one entry.

    :param parts: SHA-256 of each :data:`~hardpoint.package.archive.PART` bytes; empty where the
        entry is no larger.
    """

    bytes: int
    sha256: str
    parts: tuple[str, ...]


class _Written(NamedTuple):
    name: bytes
    crc32: int
    size: int
    start: int


class ArchiveWriter:
    """Use as a context manager: on success the file appears whole, on failure nothing is left.

    :param path: the file to make; an existing one is replaced at the very end.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}.tmp")
        self._file: BinaryIO | None = None
        self._written: list[_Written] = []
        self._digests: dict[str, Digest] = {}
        self._position = 0

    @property
    def digests(self) -> Mapping[str, Digest]:
        """Size and SHA-256 of every entry so far, in the order of writing."""
        return MappingProxyType(self._digests)

    def add(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Append an entry. ``data`` may be any contiguous buffer; it is not copied.

        :raises PackageError: a name that is unusable or taken, or the disk refuses.
        """
        try:
            layout.check_name(name)
        except MalformedError as error:
            raise self._failed(error.cause) from None
        if name in self._digests:
            raise self._failed(f"entry {name!r} is written twice")
        view = memoryview(data)
        view = view.cast("B") if view.nbytes else memoryview(b"")
        chunks = [view[at : at + PART] for at in range(0, len(view), PART)]
        crc, digest = _digest(chunks)
        record = _Written(f"{ROOT}/{name}".encode(), crc, len(view), self._position)
        self._write(_local_header(record))
        for chunk in chunks:
            self._write(chunk)
        self._written.append(record)
        self._digests[name] = digest

    def __enter__(self) -> ArchiveWriter:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            # 0o666 less the umask: as any program creates a file that others may read.
            self._file = os.fdopen(os.open(self._temporary, flags, 0o666), "wb")
        except OSError as error:
            raise self._failed(str(error.strerror)) from error
        try:
            self.add(".data/version", _CONTAINER_VERSION)
            self.add("archive_format", FORMAT)
            self.add("archive_version", VERSION)
            self.add("byteorder", BYTE_ORDER)
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            self._finish()
        except BaseException as failure:
            self._discard()
            if isinstance(failure, OSError):
                raise self._failed(str(failure.strerror)) from failure
            raise

    def _finish(self) -> None:
        start = self._position
        for record in self._written:
            self._write(_central_header(record))
        self._write(_end(len(self._written), start, self._position - start))
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _write(self, data: bytes | memoryview) -> None:
        if self._file is None or self._file.closed:
            raise self._failed("it is not open for writing")
        try:
            self._file.write(data)
        except OSError as error:
            self._discard()  # what follows a half-written entry could not be read
            raise self._failed(str(error.strerror)) from error
        self._position += len(data)

    def _discard(self) -> None:
        if self._file is not None:
            # Closing writes what is buffered, and fails on a full disk as the write before it did:
            # that error is being raised already, and the file goes away in any case.
            with contextlib.suppress(OSError):
                self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _failed(self, cause: str) -> PackageError:
        return PackageError(
            f"{self.path} could not be written",
            cause=cause,
            remedy="check the folder, its permissions and the free space, then save again",
        )


def _digest(chunks: Sequence[memoryview]) -> tuple[int, Digest]:
    """CRC-32 and hashes of an entry in chunks of one part each."""
    pool: ThreadPoolExecutor | None = None
    parts: Iterable[str] = ()
    if len(chunks) > 1:  # by threads, while the whole is hashed here
        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        try:
            parts = pool.map(_sha256, chunks)
        except RuntimeError:  # no thread to be had
            parts = map(_sha256, chunks)
    try:
        whole, crc, size = hashlib.sha256(), 0, 0
        for chunk in chunks:
            whole.update(chunk)
            crc = zlib.crc32(chunk, crc)
            size += len(chunk)
        return crc, Digest(size, whole.hexdigest(), tuple(parts))
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _sha256(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _sizes(record: _Written) -> tuple[int, bytes]:
    """The 32-bit size field, and the zip64 field's content where that is not enough."""
    if record.size < layout.MAX32:
        return record.size, b""
    return layout.MAX32, record.size.to_bytes(8, "little") * 2


def _extra(number: int, content: bytes) -> bytes:
    return number.to_bytes(2, "little") + len(content).to_bytes(2, "little") + content


def _local_header(record: _Written) -> bytes:
    size, wide = _sizes(record)
    extra = _extra(layout.ZIP64_FIELD, wide) if wide else b""
    data = record.start + layout.LOCAL.size + len(record.name) + len(extra) + 4
    extra += _extra(_PADDING_FIELD, bytes(-data % layout.ALIGNMENT))
    need = 45 if wide else 20
    fields = (need, layout.UTF8_NAME, 0, 0, _DATE, record.crc32, size, size)
    header = layout.LOCAL.pack(layout.LOCAL_SIGNATURE, *fields, len(record.name), len(extra))
    return header + record.name + extra


def _central_header(record: _Written) -> bytes:
    size, wide = _sizes(record)
    start = record.start
    if start >= layout.MAX32:
        wide += start.to_bytes(8, "little")
        start = layout.MAX32
    extra = _extra(layout.ZIP64_FIELD, wide) if wide else b""
    need = 45 if wide else 20
    fields = (need, need, layout.UTF8_NAME, 0, 0, _DATE, record.crc32, size, size)
    tail = (len(record.name), len(extra), 0, 0, 0, 0, start)
    return layout.CENTRAL.pack(layout.CENTRAL_SIGNATURE, *fields, *tail) + record.name + extra


def _end(count: int, start: int, size: int) -> bytes:
    at = start + size
    end64 = layout.END64.pack(
        layout.END64_SIGNATURE, layout.END64.size - 12, 45, 45, 0, 0, count, count, size, start
    )
    locator = layout.LOCATOR64.pack(layout.LOCATOR64_SIGNATURE, 0, at, 1)
    count16 = min(count, layout.MAX16)
    sizes = (min(size, layout.MAX32), min(start, layout.MAX32))
    end = layout.END.pack(layout.END_SIGNATURE, 0, 0, count16, count16, *sizes, 0)
    return end64 + locator + end
