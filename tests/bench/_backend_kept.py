"""What tests/bench/backends.py measured, kept from one call to the next: JSON, a file a part.

A part holds for the settings and versions that it was measured with; another is measured anew. One
that failed is kept, too, with the reason: a run that is made in slices must not try it each time.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hardpoint.files import write_atomically

VERSIONS = ("torch", "openvino", "nncf", "onnxruntime", "onnxscript", "torchao", "transformers")
ROOT = Path(__file__).resolve().parents[2]


class Kept:
    """Parts in a folder.

    :param settings: that parts depend on. :param by_part: those of a part by its first word.
    :param minutes: nothing is begun after that; ``None``:
        all is. :param again: measure what failed, :param fresh: measure everything.
    :ivar left: parts that there was no time for.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        by_part: Mapping[str, Mapping[str, Any]],
        *,
        minutes: float | None = None,
        again: bool = False,
        fresh: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._settings = folder, {**settings, "versions": versions()}
        self._by_part = by_part
        self._until = float("inf") if minutes is None else time.monotonic() + 60 * minutes
        self._again, self._fresh = again, fresh
        self.left: list[str] = []

    def measure(
        self, part: str, name: str, work: Callable[[], Any], **settings: object
    ) -> dict[str, Any] | None:
        """Measure one part, unless it is known; a failure is told, and the rest goes on.

        :param settings: more that this part depends on.
        """
        found = self._read(part, name, settings)
        if found is not None and not self._fresh and not (self._again and "failed" in found):
            return found if "data" in found else None
        if time.monotonic() > self._until:
            self.left.append(f"{part} {name}")
            return None
        print(f"\n{time.strftime('%H:%M:%S')} {part}: {name}", file=sys.stderr, flush=True)
        started = time.monotonic()
        kept: dict[str, Any] = {
            "settings": self._all(part, settings), "when": time.strftime("%Y-%m-%d %H:%M"),
            "commit": commit(),
        }  # fmt: skip
        try:
            kept["data"] = work()
        except Exception as error:
            print(f"\n{part} of {name} failed: {error}", file=sys.stderr)
            kept["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        kept |= {"seconds": time.monotonic() - started, "load": os.getloadavg()[0]}
        write_atomically(self._path(part, name), json.dumps(kept, indent=1))
        return kept if "data" in kept else None

    def known(self, part: str, name: str, **settings: object) -> dict[str, Any] | None:
        """What was measured with these settings; ``None``: nothing, or it failed."""
        found = self._read(part, name, settings)
        return found if found is not None and "data" in found else None

    def failed(self, part: str, name: str, **settings: object) -> str:
        """Why a part has no figures; ``""``: it did not fail."""
        found = self._read(part, name, settings)
        return "" if found is None else str(found.get("failed", ""))

    def _read(self, part: str, name: str, settings: Mapping[str, object]) -> dict[str, Any] | None:
        path = self._path(part, name)
        if not path.is_file():
            return None
        kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return kept if kept["settings"] == self._all(part, settings) else None

    def _all(self, part: str, settings: Mapping[str, object]) -> Any:
        own = self._by_part.get(part.partition("-")[0], {})
        return json.loads(json.dumps({**self._settings, **own, **settings}))  # tuples as lists

    def _path(self, part: str, name: str) -> Path:
        return self._folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', f'{part}-{name}')}.json"


def versions() -> dict[str, str]:
    """Of the runtimes that take part."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Of the sources that measure, with a ``+`` where they were changed since; ``""``: no git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=ROOT,
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
