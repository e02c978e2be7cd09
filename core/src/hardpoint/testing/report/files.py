"""Reports as files."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from hardpoint.testing.report.build import Report


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write ``KIND-NAME.json`` and ``KIND-NAME.html`` into ``folder``; each whole or not at all."""
    from hardpoint.testing.report.page import page

    stem = report["provider"].replace(":", "-")
    folder.mkdir(parents=True, exist_ok=True)
    data, shown = folder / f"{stem}.json", folder / f"{stem}.html"
    _write(data, json.dumps(report, indent=1, default=str) + "\n")
    _write(shown, page(report))
    return data, shown


def _write(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101 - by name, as the rest here
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
