"""The cache folder: the database, the packages of measured candidates, and the lock on both."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from hardpoint.choosing.database import Database, open_database
from hardpoint.errors import ConfigError, HardpointWarning

_GIGABYTES = 10.0
_ASK_SECONDS = 0.2
_CHUNK = 8 << 20
_LEFT_SECONDS = 86400.0


def cache_folder() -> Path:
    """``HARDPOINT_CACHE``, else ``hardpoint`` in the user's cache folder (XDG)."""
    named = os.environ.get("HARDPOINT_CACHE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "hardpoint"


def size_limit() -> int:
    """Bytes that the packages may take: ``HARDPOINT_CACHE_SIZE`` gigabytes, else 10.

    :raises ConfigError: it is no number.
    """
    text = os.environ.get("HARDPOINT_CACHE_SIZE", "")
    try:
        return int(float(text or _GIGABYTES) * 1e9)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"HARDPOINT_CACHE_SIZE is {text!r}, which is no number of gigabytes",
            remedy="e.g. HARDPOINT_CACHE_SIZE=20",
        ) from None


class Cache:
    """The folder of this user. Packages in it hold native code, so nobody else may write to it.

    :ivar database: what is known.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder, self.database = folder, database
        self._packages = folder / "packages"
        self._packages.mkdir(exist_ok=True, mode=0o700)

    def put(self, package: Path) -> str:
        """Move a package in; gives the SHA-256 of its content, by which it is found again."""
        digest = _sha256(package)
        # The measurement may have worked on another disk; a half-written file must not appear.
        arriving = self._packages / f".{secrets.token_hex(8)}.tmp"
        try:
            shutil.move(package, arriving)
            arriving.replace(self.path(digest))
        finally:
            arriving.unlink(missing_ok=True)
        return digest

    def get(self, digest: str) -> Path | None:
        """The package with that content; ``None`` where it is gone or was changed since."""
        path = self.path(digest)
        try:
            found = _sha256(path)
            os.utime(path)  # it is in use: the oldest go first
        except OSError:  # never there, or another process removed it just now
            return None
        if found != digest:
            warnings.warn(
                f"{path} was changed since it was written; it is measured anew",
                HardpointWarning, stacklevel=2,
            )  # fmt: skip
            path.unlink(missing_ok=True)
            return None
        return path

    def trim(self, keep: str) -> None:
        """Remove the packages that were not used for longest until the rest fits the limit.

        :param keep: SHA-256 of one that stays.
        """
        self._sweep()
        limit, found = size_limit(), []
        for path in self._packages.glob("*.pt2"):
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                known = path.stat()
                found.append((known.st_mtime, known.st_size, path))
        total = sum(bytes_ for _, bytes_, _ in found)
        for _, bytes_, path in sorted(found):
            if total <= limit:
                return
            if path.stem != keep:
                path.unlink(missing_ok=True)
                total -= bytes_

    def _sweep(self) -> None:
        """Remove what a killed process left half-written; it took minutes at most."""
        for path in self._packages.glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ctime < time.time() - _LEFT_SECONDS:
                    path.unlink()

    def work(self) -> Path:
        """Where a measurement works, on the same disk. What a killed one left there is removed.

        The caller holds the lock: nobody else measures.
        """
        folder = self.folder / "work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, exist_ok=True)  # a network disk may keep what is still open
        return folder

    @contextlib.contextmanager
    def lock(self, seconds: float, waiting: Callable[[], None]) -> Iterator[bool]:
        """One measurement at a time: two would time each other.

        :param waiting: called once where another process measures. Gives ``False`` when it still
            does after ``seconds``.
        """
        with (self.folder / "measuring.lock").open("a") as file:
            got = _lock(file, 0.0)
            if not got:
                waiting()
                got = _lock(file, seconds)
            yield got

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def path(self, digest: str) -> Path:
        """Where the package with that content is, if it is."""
        return self._packages / f"{digest}.pt2"


def open_cache() -> Cache | None:
    """The cache, or ``None``, with one warning that says why there is none.

    :raises ConfigError: the limit of its size is no number; said before anything is measured.
    """
    size_limit()
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_owner(folder)
        with (folder / "database.lock").open("a") as file:
            if not _lock(file, 30.0):
                raise TimeoutError("another process holds its lock")
            return Cache(folder, open_database(folder))
    except (OSError, sqlite3.Error) as error:
        warnings.warn(
            f"measurements are not remembered: {folder} cannot be used: {error}; name another "
            "folder with HARDPOINT_CACHE",
            HardpointWarning, stacklevel=2,
        )  # fmt: skip
        return None


def _check_owner(folder: Path) -> None:
    if not hasattr(os, "getuid"):
        return
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError("it is another user's, or others may write to it")


def _lock(file: IO[str], seconds: float) -> bool:
    """An exclusive lock on an open file, until it is closed; where the system has such locks."""
    if sys.platform == "win32":
        return True
    import fcntl

    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_ASK_SECONDS)
        else:
            return True


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
