"""Writing a file so that its name always leads to the old content or to the whole new one.

A temporary file in the same directory, filled, synced, then renamed over the name, then the
directory synced. The disk begins to write while we still copy, so that the sync at the end has
little left to wait for. ``HARDPOINT_FSYNC=0`` leaves syncing out, for files that need not outlive a
crash of the machine; a crash of the process they outlive all the same.

A writer holds a lock on its temporary file, so that those which a killed process left behind can be
told from those being written, and are swept by the next save.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import cast

_PREFIX = ".hardpoint-weights-"
_SUFFIX = ".tmp"
# Small enough for the disk to begin early, and to take the next while we copy the one after.
_CHUNK = 1 << 23
SWITCH = "HARDPOINT_FSYNC"
_WRITE_OUT = 2  # SYNC_FILE_RANGE_WRITE: begin to write these pages, and do not wait


_condition: ContextVar[Callable[[], None] | None] = ContextVar("condition", default=None)


@contextlib.contextmanager
def only_if(check: Callable[[], None]) -> Iterator[None]:
    """Within, nothing takes a name (of a file or directory) before ``check`` was called once more.

    What it raises leaves all as it was: for what must still hold after the work, not only before.
    """
    token = _condition.set(check)
    try:
        yield
    finally:
        _condition.reset(token)


def check_condition() -> None:
    """What :func:`only_if` asks for."""
    check = _condition.get()
    if check is not None:
        check()


class NotSyncedError(OSError):
    """The new content is there, but a crash of the machine may still bring back the old."""


def replace(path: Path, size: int, fill: Callable[[Callable[[memoryview], None]], None]) -> None:
    """Let ``fill`` write exactly ``size`` bytes; then, and only then, they are ``path``'s content.

    A new file gets the mode that the umask leaves, a replaced one keeps its own. A symbolic link is
    itself replaced: what it points to may be shared (a hub's cache is made of links).

    :raises OSError: no space, no permission, no directory. ``path`` is then as it was.
    """
    directory = path.parent
    _sweep(directory)
    with _temporary(directory) as (descriptor, temporary):
        _reserve(descriptor, size)
        durable = os.environ.get(SWITCH, "1") != "0"
        fill(_Writer(descriptor, early=durable).write)
        written = os.lseek(descriptor, 0, os.SEEK_CUR)
        assert written == size, f"wrote {written} of {size} bytes"
        mode = _mode_of(path)
        if mode is not None:
            os.fchmod(descriptor, mode)
        if durable:
            os.fsync(descriptor)
        check_condition()
        temporary.replace(path)
    if durable:
        try:
            _sync_directory(directory)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # it cannot sync directories
                raise NotSyncedError(error.errno, error.strerror) from error


@contextlib.contextmanager
def _temporary(directory: Path) -> Iterator[tuple[int, Path]]:
    """A new locked file; gone afterwards, unless it was renamed."""
    while True:
        temporary = directory / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor, wait=True)
            # Between creating and locking, another process may have taken it for stale.
            if os.fstat(descriptor).st_nlink == 0:
                continue
            try:
                yield descriptor, temporary
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file; false if another process has it, or the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            return False
        raise
    return True


def _sweep(directory: Path) -> None:
    """Remove temporary files of ours whose writer is gone: nobody holds their lock."""
    for stale in directory.glob(f"{_PREFIX}*{_SUFFIX}"):
        # Tidying up must not keep anyone from saving: what cannot be removed (just gone, another
        # user's, no file at all) is left to somebody who can.
        with contextlib.suppress(OSError):
            descriptor = os.open(stale, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor, wait=False):
                    stale.unlink()
            finally:
                os.close(descriptor)


def _reserve(descriptor: int, size: int) -> None:
    """Make a full disk fail before the first byte, where the system can."""
    if size == 0 or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        # Some file systems cannot reserve; on them a full disk shows while writing.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


class _Writer:
    """Appends to a file, and sends the disk to work on what is there while more is copied."""

    def __init__(self, descriptor: int, *, early: bool) -> None:
        self._descriptor = descriptor
        self._sync = _sync_file_range if early else None
        self._end = self._sent = 0

    def write(self, data: memoryview) -> None:
        """All of it."""
        at = 0
        while at < len(data):
            count = os.write(self._descriptor, data[at : at + _CHUNK])
            at += count
            self._end += count
            if self._sync and self._end - self._sent >= _CHUNK:
                # A wish, not a promise: fsync comes after, and says what went wrong.
                self._sync(self._descriptor, self._sent, self._end - self._sent, _WRITE_OUT)
                self._sent = self._end


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Linux's system call, which Python does not offer."""
    try:
        found = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):  # another system, or another C library
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return cast("Callable[[int, int, int, int], int]", found)


_sync_file_range = _find_sync_file_range()


def _mode_of(path: Path) -> int | None:
    """The permissions of the regular file at ``path``, or ``None`` where there is none."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return stat.S_IMODE(status.st_mode) if stat.S_ISREG(status.st_mode) else None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
