"""Reading past the page cache (``O_DIRECT``), for large files that are not in it.

A buffered read of what is not cached makes the kernel find memory for it and copy it from there:
on the machine of docs/benchmarks/weights.md 1.9 s for a GiB, against 0.43 s for a direct read. The
price: the next reader finds no more in the cache than this one. ``HARDPOINT_DIRECT=0``: never.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
import threading

# What offsets, lengths and addresses must be multiples of: a multiple of every device's own.
BLOCK = 4096
# Smaller files are likely to be read again soon, by someone who will want them cached.
WORTH = 256 << 20
_LEAST = 1 << 20
_SCRATCH = 2 << 20
SWITCH = "HARDPOINT_DIRECT"
_libc = ctypes.CDLL(None, use_errno=True)


class DirectFile:
    """The same file as ``descriptor``, open a second time.

    :raises OSError: its file system has no such reads.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = -1
        self._threads = threading.local()
        # By descriptor, not by name: the name may lead to another file by now.
        self._descriptor = os.open(
            f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT
        )

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read_into(self, offset: int, buffer: memoryview) -> bool:
        """Fill ``buffer``; straight where it lies in memory as in the file, counted in blocks.

        :return: whether the file is long enough.
        :raises OSError: the disk failed, or takes no such reads after all.
        """
        address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        end = offset + len(buffer)
        first, last = -(-offset // BLOCK) * BLOCK, end // BLOCK * BLOCK
        if (address - offset) % BLOCK or first >= last:
            return self._by_way_of_scratch(offset, address, len(buffer))
        at = first
        while at < last:
            got = os.preadv(self._descriptor, [buffer[at - offset : last - offset]], at)
            if got == 0 or got % BLOCK:  # the end of the file
                return False
            at += got
        return self._by_way_of_scratch(offset, address, first - offset) and self._by_way_of_scratch(
            last, address + last - offset, end - last
        )

    def _by_way_of_scratch(self, offset: int, address: int, count: int) -> bool:
        """Read whole blocks elsewhere, and copy what is wanted of them."""
        if count == 0:
            return True
        begin, end = offset // BLOCK * BLOCK, offset + count
        scratch = self._scratch()
        source = ctypes.addressof(ctypes.c_char.from_buffer(scratch))
        while begin < end:
            part = scratch[: min(_SCRATCH, -(-(end - begin) // BLOCK) * BLOCK)]
            got = os.preadv(self._descriptor, [part], begin)
            skip = max(0, offset - begin)
            take = min(got, end - begin) - skip
            if take <= 0:
                return False
            ctypes.memmove(address + begin + skip - offset, source + skip, take)
            begin += got
            if begin < end and got % BLOCK:
                return False
        return True

    def _scratch(self) -> memoryview:
        """This thread's own, page-aligned; kept, since touching new memory costs more."""
        found: memoryview | None = getattr(self._threads, "scratch", None)
        if found is None:
            found = self._threads.scratch = memoryview(
                # Private: a forked child must not read into its parent's.
                mmap.mmap(-1, _SCRATCH, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            )
        return found


def wanted(size: int) -> bool:
    """Whether a file of so many bytes is read so, where this machine can."""
    return (
        size >= WORTH
        and sys.platform == "linux"
        and hasattr(os, "O_DIRECT")
        and os.environ.get(SWITCH, "1") != "0"
    )


def is_cached(descriptor: int, offset: int, nbytes: int) -> bool:
    """Whether most of these bytes are in the page cache. Looking brings nothing into it.

    Of a file that is neither ours nor writable the kernel tells nobody: then it says yes.

    :raises OSError, ValueError: they cannot be mapped: the file has become shorter.
    """
    begin = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    length = offset + nbytes - begin
    pages = -(-length // mmap.PAGESIZE)
    found = (ctypes.c_ubyte * pages)()
    # Never touched, so that it is the file's, however it is mapped; ctypes asks for a writable one.
    with contextlib.closing(
        mmap.mmap(descriptor, length, access=mmap.ACCESS_COPY, offset=begin)
    ) as memory:
        view = ctypes.c_char.from_buffer(memory)
        address = ctypes.c_void_p(ctypes.addressof(view))
        del view  # an exported buffer cannot be closed
        if _libc.mincore(address, ctypes.c_size_t(length), found):
            raise OSError(ctypes.get_errno(), "mincore")
    return bytes(found).count(0) * 4 < pages


def worth(nbytes: int) -> bool:
    """Whether one read is long enough."""
    return nbytes >= _LEAST
