"""Reports as files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hardpoint.files import write_atomically
from hardpoint.testing.report.build import Report


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write ``KIND-NAME.json`` and ``KIND-NAME.html`` into ``folder``; each whole or not at all.

    :raises OSError: they cannot be written.
    """
    from hardpoint.testing.report.page import page

    stem = report["provider"].replace(":", "-")
    folder.mkdir(parents=True, exist_ok=True)
    data, shown = folder / f"{stem}.json", folder / f"{stem}.html"
    text = json.dumps(_plain(report), indent=1, default=str, allow_nan=False)
    write_atomically(data, text + "\n")
    write_atomically(shown, page(report))
    return data, shown


def _plain(value: Any) -> Any:
    """``value`` with NaN and infinity as words: JSON has no such numbers, and figures may."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
