"""Files into the page cache, and out of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def forget(files: Sequence[Path]) -> None:
    """Drop the files from the page cache."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(files: Sequence[Path]) -> None:
    """Into the page cache: a busy host may have had the guest give it back since the last run."""
    buffer = bytearray(8 << 20)
    for file in files:
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass
