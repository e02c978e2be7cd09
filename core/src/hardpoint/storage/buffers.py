"""Private memory to read weights into."""

from __future__ import annotations

import mmap
import os

import torch

from hardpoint.errors import WeightsError

_HUGE = 1 << 21
# Where the machine is busy, huge pages may cost more than they give: the kernel must make them by
# moving other memory about.
SWITCH = "HARDPOINT_HUGE_PAGES"


def allocate(nbytes: int) -> torch.Tensor:
    """uint8 [nbytes] of private memory, its values undefined, in huge pages where there are any.

    A first write to a small page costs more than copying the page: 441,000 faults against 900 for
    1.7 GiB, three times the time. ``HARDPOINT_HUGE_PAGES=0`` turns them off.

    :raises WeightsError: there is not so much.

    It begins at a multiple of 64 bytes. All of it lives until the last tensor over it is gone.
    """
    try:
        return _allocate(nbytes)
    except (OSError, RuntimeError, OverflowError, ValueError) as error:
        raise WeightsError(
            f"there is no memory for {nbytes} bytes of weights",
            cause=str(error).splitlines()[0],
            remedy='map the file (mode="map"), load slices, or free some memory',
        ) from error


def _allocate(nbytes: int) -> torch.Tensor:
    if nbytes == 0:
        return torch.empty(0, dtype=torch.uint8)
    huge = os.environ.get(SWITCH, "1") != "0" and hasattr(mmap, "MADV_HUGEPAGE")
    if not huge or nbytes < _HUGE:
        return torch.empty(nbytes, dtype=torch.uint8)
    # Room to begin at a huge page, wherever the system puts it.
    memory = mmap.mmap(-1, _up(nbytes) + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    # torch keeps the mapping alive; nobody else may hold it, since closing it would be a crash.
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    begin = -whole.data_ptr() % _HUGE
    return whole[begin : begin + nbytes]


def _up(nbytes: int) -> int:
    return -(-nbytes // _HUGE) * _HUGE
