"""Writing a file so that no reader ever sees half of it."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write ``data`` to ``path``: at every moment the old file, or the whole new one, is there.

    Text is UTF-8. The file gets the mode that the umask leaves, as any new file does.

    :raises OSError: it cannot be written; ``path`` is as it was, and nothing else is left behind.
    """
    # Beside its goal, since only within a file system is a rename atomic; of a short name of its
    # own, since that of `path` may be as long as a name can be.
    temporary = path.parent / f".hardpoint-{os.urandom(8).hex()}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
