"""Memory that a container leaves this process (Linux: control groups). Imports no torch.

``/proc/meminfo`` is the machine's; where more is taken than the container's limit somebody is
killed, and it may be the user's own process. Kernel documentation: admin-guide/cgroup-v2 and
cgroup-v1/memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
# Limit, use, and the word in memory.stat for files' pages that can be dropped: versions 2 and 1.
_TWO = ("memory.max", "memory.current", "inactive_file")
_ONE = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_in_groups(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Bytes that this process's groups still allow; ``None`` where none of them has a limit."""
    found = [_free(folder, *names) for folder, names in _groups(root, own)]
    return min((free for free in found if free is not None), default=None)


def _groups(root: Path, own: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Folders of this process's groups and of those above them."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            base, names = root, _TWO
        elif "memory" in controllers.split(","):
            base, names = root / "memory", _ONE
        else:
            continue
        # In a container the path may be the host's, and only its top can be seen here.
        for part in (PurePosixPath(path), *PurePosixPath(path).parents):
            yield base / str(part).lstrip("/"), names


def _free(folder: Path, limit: str, used: str, dropped: str) -> int | None:
    most, taken = _number(folder / limit), _number(folder / used)
    if most is None or taken is None:
        return None
    try:
        pairs = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        pages = next((int(value) for name, value in pairs if name == dropped), 0)
    except (OSError, ValueError):
        pages = 0
    return max(0, most - taken + pages)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max": there is no limit
        return None
