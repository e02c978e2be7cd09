"""What a process leaves in the system: processes, threads, descriptors, files, shared memory.

Everything is read where Linux shows it (``/proc``, ``/dev/shm``); elsewhere there is less to see.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_PROC = Path("/proc")
_SHARED = Path("/dev/shm")  # noqa: S108 - looked at, not written
_SETTLE_SECONDS = 3.0
_GONE = (0, 0)


def settled(look: Callable[[], T], fine: Callable[[T], bool]) -> tuple[bool, T]:
    """``look()`` once it is ``fine``, given a few seconds: ends take a moment to be seen."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        found = look()
        if fine(found) or time.monotonic() > deadline:
            return fine(found), found
        time.sleep(0.005)


def processes_of(parent: int) -> list[int]:
    """Living children of a process."""
    found = []
    for pid, line in _each("stat"):
        # "pid (name, which may hold anything) state ppid ..."
        state, ppid = line.rpartition(")")[2].split()[:2]
        if int(ppid) == parent and state != "Z":
            found.append(pid)
    return found


def describe_process(pid: int) -> str:
    """Its command line, or its name."""
    for file in ("cmdline", "comm"):
        text = _read(_PROC / str(pid) / file).replace("\0", " ").strip()
        if text:
            return text[:200]
    return f"process {pid}"


def threads() -> list[str]:
    """Names of this process's threads, native ones too."""
    own = _PROC / "self/task"
    return sorted(_read(task / "comm").strip() for task in _list(own))


def descriptors() -> list[str]:
    """What this process's descriptors are open on."""
    found = []
    for entry in _list(_PROC / "self/fd"):
        try:
            target = os.readlink(entry)  # noqa: PTH115 - Path.readlink makes "pipe:[1]" a path
        except OSError:  # the one that listed them, or closed meanwhile
            continue
        found.append(re.sub(r"\[\d+\]", "", target))
    return sorted(found)


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    fields = _read(_PROC / "self/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def shared_memory(ours: Iterable[int] = ()) -> set[str]:
    """Names of this user's shared memory that no process but ``ours`` has open or mapped.

    POSIX shared memory and semaphores are files there. A folder there is none: it is some
    program's place for temporary files, which has nothing open in it most of the time.
    """
    files = [file for file in _list(_SHARED) if _is_own_file(file)]
    used = _in_use(set(ours)) if files else set()
    return {str(file) for file in files if _identity(file) not in used}


def _in_use(ours: set[int]) -> set[tuple[int, int]]:
    used = {_GONE}
    prefix = f" {_SHARED}/"
    for pid, maps in _each("maps"):
        if pid in ours:
            continue
        # By number: a semaphore is mapped under the name that it had before its own.
        for line in maps.splitlines():
            if prefix in line:
                _, _, _, device, number, *_ = line.split()
                major, _, minor = device.partition(":")
                used.add((os.makedev(int(major, 16), int(minor, 16)), int(number)))
        used.update(_identity(entry) for entry in _list(_PROC / str(pid) / "fd"))
    return used


def _identity(file: Path) -> tuple[int, int]:
    """Its device and inode."""
    try:
        found = file.stat()
    except OSError:  # gone meanwhile, or not ours to see
        return _GONE
    return found.st_dev, found.st_ino


def _is_own_file(file: Path) -> bool:
    try:
        found = file.lstat()
    except OSError:  # gone meanwhile
        return False
    return found.st_uid == os.getuid() and stat.S_ISREG(found.st_mode)


def _each(name: str) -> Iterator[tuple[int, str]]:
    for entry in _list(_PROC):
        if entry.name.isdecimal() and (text := _read(entry / name)):
            yield int(entry.name), text


def _list(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # not this system's, not ours to see, or gone meanwhile
        return []


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:  # as above
        return ""
