"""Whether a file may be mapped unasked.

What is mapped stays the file's: if someone cuts it short, whoever touches the lost part is killed
(SIGBUS), and if someone writes to it, values change. Of one's own files, on one's own disk, one
knows who does.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys

_LIBC = ctypes.CDLL(None, use_errno=True)
# The kernel's numbers for file systems that other machines, or other programs, have a hand in:
# statfs(2), linux/magic.h and the file systems' own headers.
_SHARED = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x65735546: "FUSE",
    0x01021997: "9P",
    0x00C36400: "Ceph",
    0x5346414F: "AFS",
    0x73757245: "Coda",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x19830326: "BeeGFS",
    0x01161970: "GFS2",
    0x7461636F: "OCFS2",
    0x786F4256: "a shared folder of VirtualBox",
}
_STATFS_BYTES = 256  # more than any Linux fills
# Made once: ctypes takes longer to make a type than the kernel to answer.
_Answer = ctypes.c_char * _STATFS_BYTES
_FSTATFS = getattr(_LIBC, "fstatfs", None)


def why_not_to_map(descriptor: int, status: os.stat_result) -> str | None:
    """Why others could change this file while it is mapped; ``None``: no reason is known.

    The owner is asked on POSIX systems, the kind of mount on 64-bit Linux only.
    """
    if status.st_uid != os.geteuid():
        return f"it belongs to another user ({status.st_uid})"
    if status.st_mode & stat.S_IWOTH:
        return "everyone may write to it"
    system = shared_file_system(_kind(descriptor))
    return None if system is None else f"it lies on {system}"


def shared_file_system(kind: int) -> str | None:
    """The name of a file system that more than this machine's kernel has a hand in."""
    return _SHARED.get(kind & 0xFFFFFFFF)


def _kind(descriptor: int) -> int:
    """``f_type`` of statfs(2); 0 where it cannot be asked."""
    if _FSTATFS is None or sys.platform != "linux" or sys.maxsize < 1 << 32:
        return 0
    answer = _Answer()
    if _FSTATFS(descriptor, answer):
        return 0
    return ctypes.c_long.from_buffer(answer).value
