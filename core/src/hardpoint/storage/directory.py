"""Replacing a directory so that its name always leads to the old content or the whole new one.

A temporary directory beside it is filled and synced. On Linux the two then change places in one
step (``renameat2``, ``RENAME_EXCHANGE``), and the old one goes. Where the file system cannot do
that, the old one is renamed aside first; stopped between the two renames, it is found there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from hardpoint.storage.atomic import check_condition

_PREFIX = ".hardpoint-directory-"
_TEMPORARY = ".tmp"
_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h
_HERE = -100  # AT_FDCWD


def aside(path: Path) -> Path:
    """Where the old directory stands between the two renames."""
    return path.with_name(f"{_PREFIX}{path.name}.old")


def replace(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` make a directory's files, each synced; then, and only then, they are ``path``'s.

    What stood there goes: the caller has seen that it may. A symbolic link is itself replaced.

    :raises OSError: no space, no permission, no parent directory. ``path`` is then as it was.
    """
    path = path.absolute()  # "." has no name that another could take; a link is not followed
    parent = path.parent
    _sweep(parent)
    _recover(path)
    with _temporary(parent) as made:
        fill(made)
        sync(made)
        if path.is_dir() and not path.is_symlink():
            made.chmod(stat.S_IMODE(path.stat().st_mode))
        check_condition()
        _put(made, path)
    sync(parent)


def sync(directory: Path) -> None:
    """Make the names in it last."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary(parent: Path) -> Iterator[Path]:
    """A new locked directory. What has its name afterwards, new or old, is removed."""
    while True:
        made = parent / f"{_PREFIX}{secrets.token_hex(8)}{_TEMPORARY}"
        made.mkdir()
        # Between making and locking, another process may take it for stale, and remove it.
        try:
            descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            _lock(descriptor, wait=True)
            if not made.exists():
                continue
            try:
                yield made
            finally:
                _remove(made)
            return
        finally:
            os.close(descriptor)


def _put(made: Path, path: Path) -> None:
    """Give the directory ``made`` the name ``path``; what had that name may have ``made``'s now."""
    if not os.path.lexists(path):
        made.rename(path)
    elif not _exchange(made, path):
        old = aside(path)
        path.rename(old)
        try:
            made.rename(path)
        except OSError:
            old.rename(path)
            raise
        _remove(old)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; false where the system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), ctypes.c_uint(_EXCHANGE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _recover(path: Path) -> None:
    """Put back what a writer that was stopped between two renames left aside."""
    old = aside(path)
    if not os.path.lexists(old):
        return
    if os.path.lexists(path):
        _remove(old)
    else:
        old.rename(path)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        # The new content is in place; what cannot be removed is swept by the next save.
        shutil.rmtree(path, ignore_errors=True)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock an open directory; false if another process has it, or there are no locks here."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            return False
        raise
    return True


def _sweep(parent: Path) -> None:
    """Remove temporary directories of ours whose writer is gone: nobody holds their lock."""
    for stale in parent.glob(f"{_PREFIX}*{_TEMPORARY}"):
        # Tidying up must not keep anyone from saving.
        with contextlib.suppress(OSError):
            if stale.is_symlink():  # the link that a directory took the place of
                stale.unlink()
                continue
            descriptor = os.open(stale, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if _lock(descriptor, wait=False):
                    shutil.rmtree(stale, ignore_errors=True)
            finally:
                os.close(descriptor)
