"""Writing a file so that its name always leads to the old content or to the whole new one.

A temporary file in the same directory, filled, synced, then renamed over the name, then the
directory synced. A writer holds a lock on its temporary file, so that those which a killed process
left behind can be told from those being written, and are swept by the next save.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

_PREFIX = ".hardpoint-weights-"
_SUFFIX = ".tmp"
_CHUNK = 1 << 26


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
        fill(lambda data: _write_all(descriptor, data))
        written = os.lseek(descriptor, 0, os.SEEK_CUR)
        assert written == size, f"wrote {written} of {size} bytes"
        mode = _mode_of(path)
        if mode is not None:
            os.fchmod(descriptor, mode)
        os.fsync(descriptor)
        temporary.replace(path)
    _sync_directory(directory)


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


def _write_all(descriptor: int, data: memoryview) -> None:
    at = 0
    while at < len(data):
        at += os.write(descriptor, data[at : at + _CHUNK])


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
