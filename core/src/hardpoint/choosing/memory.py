"""The cache as a choice uses it: when it fails, the choice goes on without it, with one warning."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hardpoint.choosing.cache import Cache
from hardpoint.choosing.database import Known
from hardpoint.choosing.row import Row
from hardpoint.errors import HardpointWarning
from hardpoint.measuring.results import Failure

# (program, machine, environment, candidate or request): what is remembered holds for this.
Key = tuple[str, str, str, str]
# A candidate that crashed may have been the machine's victim: it gets another chance, once.
CRASHES = 2
# What is free differs a little from day to day; with so much more memory it is worth a try.
_MORE = 1.25


class Memory:
    """What is known of choices and candidates.

    :param cache: ``None``: nothing, and nothing is kept.
    """

    def __init__(self, cache: Cache | None) -> None:
        self._cache = cache

    def choice(self, key: Key) -> tuple[dict[str, Any], str] | None:
        """(a choice as it was kept, SHA-256 of its package)."""
        try:
            return None if self._cache is None else self._cache.database.choice(*key)
        except sqlite3.Error as error:
            self._forget(error)
            return None

    def candidate(self, key: Key) -> Known | None:
        """What was kept of a candidate."""
        try:
            return None if self._cache is None else self._cache.database.candidate(*key)
        except sqlite3.Error as error:
            self._forget(error)
            return None

    def keep_choice(self, key: Key, choice: dict[str, Any], digest: str) -> None:
        """Keep a choice; then what was not used for longest makes room."""
        if self._cache is None:
            return
        try:
            self._cache.database.keep_choice(key, choice, digest)
            self._cache.trim(digest)
        except (sqlite3.Error, OSError) as error:
            self._forget(error)

    def keep(self, key: Key, known: Known) -> None:
        """Keep what is known of a candidate."""
        if self._cache is None:
            return
        try:
            self._cache.database.keep_candidate(key, known)
        except sqlite3.Error as error:
            self._forget(error)

    def keep_row(self, key: Key, row: Row, package: str | None, limits: Mapping[str, Any]) -> None:
        """Keep a row; failures of the same candidate in a row are counted."""
        before = self.candidate(key)
        again = before is not None and before.row.get("failure") is not None
        attempts = 1 + (before.attempts if before is not None and again else 0)
        self.keep(key, Known(row.to_json(), package, attempts, dict(limits)))

    def get(self, digest: str) -> Path | None:
        """The package with that content, if it is there."""
        return None if self._cache is None else self._cache.get(digest)

    def put(self, package: Path) -> tuple[str, Path] | None:
        """Move a package in: (SHA-256, where it is now). ``None``: it stays where it was."""
        if self._cache is None:
            return None
        try:
            digest = self._cache.put(package)
        except OSError as error:
            self._forget(error)
            return None
        return digest, self._cache.path(digest)

    def _forget(self, error: Exception) -> None:
        """Go on without remembering, and say so."""
        self._cache = None
        warnings.warn(
            f"what is measured now is not remembered: {error}", HardpointWarning, stacklevel=2
        )


def worth_another_try(
    failure: Failure, then: Mapping[str, Any], now: Mapping[str, Any], attempts: int
) -> bool:
    """Whether a failure from before may be none today.

    :param then: ``candidate_seconds`` and ``memory`` (bytes, or ``None``) that it had.
    :param now: the same, that it would have. :param attempts: how often it failed in a row.
    """
    if failure.kind == "hung":
        return float(now["candidate_seconds"]) > float(then.get("candidate_seconds") or 0)
    if failure.kind == "memory":
        return int(now["memory"] or 0) > _MORE * int(then.get("memory") or 0)
    return failure.kind == "crashed" and attempts < CRASHES
