"""What this machine can do at most, for the same bytes."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hardpoint.storage.buffers import allocate

GIB = 1 << 30


def memcpy_limit(nbytes: int) -> float:
    """Seconds to copy ``nbytes`` between two buffers with all cores."""
    part = min(nbytes, GIB)
    one, other = allocate(part).fill_(1), allocate(part).fill_(2)
    best = min(timed(lambda: other.copy_(one)) for _ in range(5))
    return best * nbytes / part


def new_memory_limit(nbytes: int) -> float:
    """Seconds to copy ``nbytes`` with all cores into memory that nobody has touched yet, which the
    kernel must zero first: what reading into private memory cannot be faster than.
    """
    part = min(nbytes, GIB)
    one = allocate(part).fill_(1)
    best = min(timed(lambda: allocate(part).copy_(one)) for _ in range(5))
    return best * nbytes / part


def direct_limit(file: Path, readers: int = 16) -> float:
    """Seconds to read ``file`` past the page cache, 8 MiB at a time."""
    size = file.stat().st_size // (8 << 20) * (8 << 20)
    descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
    offsets = iter(range(0, size, 8 << 20))
    turn = threading.Lock()

    def work() -> None:
        buffer = mmap.mmap(-1, 8 << 20)
        while True:
            with turn:
                at = next(offsets, None)
            if at is None:
                return
            os.preadv(descriptor, [buffer], at)

    def together() -> None:
        threads = [threading.Thread(target=work) for _ in range(readers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    seconds = timed(together)
    os.close(descriptor)
    return seconds * file.stat().st_size / max(size, 1)


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
