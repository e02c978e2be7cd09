"""The bytes of one file, as it was when it was opened."""

from __future__ import annotations

import mmap
import os
import platform
import stat
import sys
from abc import ABC, abstractmethod
from pathlib import Path

from hardpoint.errors import WeightsError
from hardpoint.storage import direct
from hardpoint.storage.refusal import DAMAGED
from hardpoint.storage.trust import why_not_to_map

# The kernel moves at most 2 GiB a call; smaller pieces let threads share the work.
_MOST_AT_ONCE = 1 << 30
_READERS = 4
# Of what a disk must be waited for: one serves many reads at a time.
_WAITING = 16
# Python names it from 3.13 on; this is its value on the processors we know.
_KNOWN = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if _KNOWN else 0)
_LOOKS = 8
# Only what is in the page cache; where the system has no such reads, all of it.
_NO_WAIT: int = getattr(os, "RWF_NOWAIT", 0)
# Rows of a tensor: the kernel fills so many places a call (IOV_MAX, two for each), and what lies
# between two of them costs less to read than a call of its own, up to so many bytes.
MOST_ROWS = 512
_GAP = 64 << 10


class Source(ABC):
    """A file of known size whose bytes can be read from any place, by several threads at once.

    :ivar name: path or URL, for people.
    :ivar size: bytes.
    """

    name: str
    size: int

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (of bytes) with what stands at ``offset``; lets other threads run.

        :raises WeightsError: the file ends before, or cannot be read.
        """

    def read_rows(self, offset: int, buffer: memoryview, rows: int, pitch: int) -> None:
        """Fill ``buffer`` with ``rows`` equal parts, which begin ``pitch`` bytes apart in the file.

        What lies between them may be read too: keep it small.

        :raises WeightsError: as :meth:`read_into`.
        """
        length = len(buffer) // rows
        whole = memoryview(bytearray((rows - 1) * pitch + length))
        self.read_into(offset, whole)
        for row in range(rows):
            buffer[row * length : (row + 1) * length] = whole[row * pitch : row * pitch + length]

    @abstractmethod
    def beside(self, name: str) -> Source:
        """Open the file ``name`` of the same directory, or (``a/b``) of one below it.

        :raises WeightsError: it cannot be opened.
        """

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset``. Bound ``count`` by what you know before you ask.

        :raises WeightsError: the file ends before, or cannot be read.
        """
        if not 0 <= offset <= offset + count <= self.size:
            raise WeightsError(
                f"{self.name}: the file is cut short",
                cause=f"{count} bytes are wanted at {offset}, and it has {self.size}",
                remedy=DAMAGED,
            )
        data = bytearray(count)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def map(self, *, anyway: bool = False) -> mmap.mmap | None:
        """The whole file as copy-on-write memory; ``None`` where it cannot be mapped.

        :param anyway: even if others could change it; see :mod:`hardpoint.storage.trust`.

        Never close what this gives: tensors over it do not pin it. It goes with its last reference.

        :raises WeightsError: the file has changed since it was opened.
        """
        return None

    def check_unchanged(self) -> None:  # noqa: B027 - where nothing can be said, nothing is
        """Whether what was read is still what is there.

        :raises WeightsError: the file was written to since it was opened.
        """

    @property
    def parallel(self) -> int:
        """How many reads at a time serve it best."""
        return min(_READERS, os.cpu_count() or 1)


class LocalFile(Source):
    """A regular file of this machine, open until the last reference to this object is gone.

    :raises WeightsError: no such file, a directory, pipe or device, or no permission.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.path = path
        self._descriptor = -1
        try:
            # Not blocking: a pipe might never answer.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{path}: the file cannot be opened", cause=str(error), remedy="check the path"
            ) from error
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError(
                f"{path}: this is no regular file",
                cause="it is a directory, pipe or device",
                remedy="name a file",
            )
        self.size = status.st_size
        # False: no reads past the cache; True: there will be, once it is opened a second time.
        self._past_cache: direct.DirectFile | bool = direct.wanted(self.size)
        self._risk = why_not_to_map(self._descriptor, status)
        self._stamp = (status.st_size, status.st_mtime_ns)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As :meth:`Source.read_into`; what is not cached of a large file, past the cache."""
        at, count = 0, len(buffer)
        if direct.worth(count) and self._past_cache is not False:
            at = self._read_cached(offset, [buffer], _NO_WAIT)
        if self._read_direct(offset + at, buffer[at:]):
            return
        while at < count:
            part = buffer[at : at + _MOST_AT_ONCE]
            try:
                got = os.preadv(self._descriptor, [part], offset + at)
            except OSError as error:
                raise WeightsError(
                    f"{self.name}: the file cannot be read",
                    cause=str(error),
                    remedy="check the disk",
                ) from error
            if got == 0:
                raise self._changed("it has become shorter")
            at += got

    def read_rows(self, offset: int, buffer: memoryview, rows: int, pitch: int) -> None:
        """As :meth:`Source.read_rows`; of what is cached, each byte once, straight to its place."""
        length = len(buffer) // rows
        starts = range(0, len(buffer), length)
        gap, span = pitch - length, (rows - 1) * pitch + length
        if gap > _GAP:
            for row, at in enumerate(starts):
                self.read_into(offset + row * pitch, buffer[at : at + length])
        elif rows > MOST_ROWS:
            super().read_rows(offset, buffer, rows, pitch)
        else:
            between = memoryview(bytearray(gap))
            views = [view for at in starts for view in (buffer[at : at + length], between)]
            how = 0 if self._past_cache is False else _NO_WAIT
            if self._read_cached(offset, views[:-1], how) != span:
                super().read_rows(offset, buffer, rows, pitch)

    def _read_cached(self, offset: int, buffers: list[memoryview], how: int) -> int:
        """Fill ``buffers`` as far as that can be done without waiting for the disk.

        The first page is looked for before: even a read that does not wait makes the kernel read
        ahead what is not there, which then comes twice.

        :param how: flags of ``preadv2``.
        :return: bytes read.
        """
        try:
            if how and not direct.is_cached(self._descriptor, offset, 1):
                return 0
            return os.preadv(self._descriptor, buffers, offset, how)
        except (OSError, ValueError):  # the plain way says why, where there is a reason
            return 0

    def _read_direct(self, offset: int, buffer: memoryview) -> bool:
        """Whether ``buffer`` was filled past the cache. If not, the plain way does it, or says why
        it cannot be done.
        """
        past = self._past_cache  # asked once: another thread may find meanwhile that there is none
        if not direct.worth(len(buffer)) or past is False:
            return False
        try:
            if direct.is_cached(self._descriptor, offset, len(buffer)):
                return False
            if past is True:
                past = self._past_cache = direct.DirectFile(self._descriptor)
            return past.read_into(offset, buffer)
        except (OSError, ValueError):  # not on this file system, or the file is not as it was
            self._past_cache = False
            return False

    @property
    def parallel(self) -> int:
        """As :attr:`Source.parallel`: more than cores where the disk must be waited for."""
        if self._is_cached():
            return min(_READERS, os.cpu_count() or 1)
        if self._past_cache is False and hasattr(
            os, "posix_fadvise"
        ):  # read ahead of each reader in long steps
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return _WAITING

    def _is_cached(self) -> bool:
        """Whether some pages, looked at here and there, are all in memory."""
        try:
            return all(
                direct.is_cached(self._descriptor, at, 1)
                for at in range(0, self.size, max(1, self.size // _LOOKS))
            )
        except (OSError, ValueError):  # it has become shorter: reading it says so
            return True

    def beside(self, name: str) -> LocalFile:
        """As :meth:`Source.beside`."""
        return LocalFile(self.path.parent / name)

    def map(self, *, anyway: bool = False) -> mmap.mmap | None:
        """As :meth:`Source.map`."""
        if self.size == 0 or (self._risk and not anyway):
            return None
        try:
            # No memory is set aside for pages that nobody may ever write to: files may be larger.
            memory = mmap.mmap(
                self._descriptor,
                self.size,
                flags=mmap.MAP_PRIVATE | _MAP_NORESERVE,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
            )
        except ValueError as error:  # "mmap length is greater than file size"
            raise self._changed(str(error)) from error
        except OSError as error:
            raise WeightsError(
                f"{self.name}: the file cannot be mapped",
                cause=str(error),
                remedy="check the limits of this process (ulimit -v, ulimit -n)",
            ) from error
        self.check_unchanged()
        return memory

    def check_unchanged(self) -> None:
        """As :meth:`Source.check_unchanged`: by size and time of the last change."""
        status = os.fstat(self._descriptor)
        if (status.st_size, status.st_mtime_ns) != self._stamp:
            raise self._changed("its size or its time of change is another")

    def _changed(self, how: str) -> WeightsError:
        return WeightsError(
            f"{self.name}: the file changed while it was open",
            cause=f"another program is writing to it: {how}",
            remedy="wait until it is written, and write files under another name before renaming"
            " them",
        )
