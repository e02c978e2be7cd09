"""What is known from before: a small SQLite database in the user's cache folder.

Several processes may use it at a time. It holds nothing that cannot be measured again: where it is
damaged, or of another version, it is put aside with one warning, and begun anew.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardpoint.errors import HardpointWarning

NAME = "measurements.sqlite3"
VERSION = 1
_APPLICATION = 0x68706D31  # "hpm1": SQLite's own field for whose file this is
_WAIT_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE candidates (
    program TEXT, machine TEXT, environment TEXT, candidate TEXT,
    row TEXT NOT NULL, package TEXT, attempts INTEGER NOT NULL, limits TEXT NOT NULL,
    updated REAL NOT NULL,
    PRIMARY KEY (program, machine, environment, candidate)
) WITHOUT ROWID;
CREATE TABLE choices (
    program TEXT, machine TEXT, environment TEXT, request TEXT,
    choice TEXT NOT NULL, package TEXT NOT NULL, updated REAL NOT NULL,
    PRIMARY KEY (program, machine, environment, request)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a candidate.

    :param row: as :meth:`hardpoint.choosing.row.Row.to_json` gives it.
    :param package: SHA-256 of its package, or ``None``.
    :param attempts: how often it was tried. :param limits: that the last attempt had.
    """

    row: dict[str, Any]
    package: str | None
    attempts: int
    limits: dict[str, Any]


class Database:
    """An open database; each method is one transaction.

    :raises sqlite3.DatabaseError: the file is no database of this version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        with self._transaction():
            version = self._one("PRAGMA user_version")[0]
            tables = self._one("SELECT count(*) FROM sqlite_master")[0]
            if not version and not tables:
                for statement in _SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                self._connection.execute(f"PRAGMA user_version = {VERSION}")
                return
            if self._one("PRAGMA application_id")[0] != _APPLICATION:
                raise sqlite3.DatabaseError("it is another program's database")
            if version != VERSION:
                raise sqlite3.DatabaseError(
                    f"it is of version {version}, and this hardpoint keeps version {VERSION}"
                )
            found = self._one("PRAGMA quick_check(1)")[0]
            if found != "ok":
                raise sqlite3.DatabaseError(str(found))

    def candidate(self, *key: str) -> Known | None:
        """What is known of (program, machine, environment, candidate)."""
        row = self._connection.execute(
            "SELECT row, package, attempts, limits FROM candidates "
            "WHERE program = ? AND machine = ? AND environment = ? AND candidate = ?", key,
        ).fetchone()  # fmt: skip
        if row is None:
            return None
        data, limits = _read(row[0]), _read(row[3])
        if data is None or limits is None:
            return None
        return Known(data, row[1], row[2], limits)

    def keep_candidate(self, key: tuple[str, str, str, str], known: Known) -> None:
        """Remember a candidate; the latest counts."""
        values = (json.dumps(known.row), known.package, known.attempts, json.dumps(known.limits))
        with self._transaction():
            self._connection.execute(
                "INSERT OR REPLACE INTO candidates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*key, *values, time.time()),
            )

    def choice(self, *key: str) -> tuple[dict[str, Any], str] | None:
        """(choice, SHA-256 of its package) for (program, machine, environment, request)."""
        row = self._connection.execute(
            "SELECT choice, package FROM choices "
            "WHERE program = ? AND machine = ? AND environment = ? AND request = ?", key,
        ).fetchone()  # fmt: skip
        data = None if row is None else _read(row[0])
        return None if data is None else (data, row[1])

    def keep_choice(
        self, key: tuple[str, str, str, str], choice: dict[str, Any], package: str
    ) -> None:
        """Remember a choice; the latest counts."""
        with self._transaction():
            self._connection.execute(
                "INSERT OR REPLACE INTO choices VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*key, json.dumps(choice), package, time.time()),
            )

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _one(self, statement: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._connection.execute(statement).fetchone()
        return row

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            # A damaged file may have ended the transaction by itself.
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _read(text: str) -> dict[str, Any] | None:
    """An object; ``None`` for what was damaged: SQLite checks its pages, not what is in them."""
    try:
        data = json.loads(text)
    except (TypeError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def open_database(folder: Path) -> Database:
    """The database in ``folder``; one that is unusable is put aside, with one warning.

    The caller holds the folder's lock, so that no two processes put it aside.

    :raises sqlite3.Error: no database can be made there.
    """
    path = folder / NAME
    try:
        return Database(path)
    except sqlite3.OperationalError:  # locked for too long, a full disk: nothing is wrong with it
        raise
    except sqlite3.DatabaseError as error:
        aside = path.with_name(f"{NAME}.unusable")
        path.replace(aside)
        for tail in ("-journal", "-wal", "-shm"):
            path.with_name(NAME + tail).unlink(missing_ok=True)
        warnings.warn(
            f"the database of measurements {path} cannot be used: {error}; it was renamed to "
            f"{aside.name}, and measuring starts anew",
            HardpointWarning, stacklevel=2,
        )  # fmt: skip
        return Database(path)
