"""``hardpoint.lock``: the exact files that each provider is pinned to.

A JSON file: for each provider its distribution, version, and the SHA-256 of the distribution's
RECORD, which in turn lists a hash of every installed file
(https://packaging.python.org/specifications/recording-installed-packages/). Of those, the file that
is imported first, and the packages around it, are compared before the import.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple

from hardpoint.errors import ConfigError, LockMismatch
from hardpoint.files import write_atomically
from hardpoint.registry.discovery import Claim
from hardpoint.registry.reserved import normalize

FORMAT = 1
_REMEDY = "if you meant to change it, run `hardpoint lock` again; else reinstall the pinned release"


class UnusableLockError(ConfigError):
    """The lock file is missing or damaged: nothing may be loaded under it."""


class Pin(NamedTuple):
    """What one provider is pinned to; ``record`` is ``sha256:<hex>`` of RECORD's text."""

    dist: str
    version: str
    record: str

    def __str__(self) -> str:
        return f"{self.dist} {self.version} ({self.record[:19]}…)"


def pin(claim: Claim) -> Pin:
    """The pin of what is installed now.

    :raises ConfigError: the distribution has no RECORD.
    """
    record = _fingerprint(claim)
    if record is None:
        raise ConfigError(
            f"{claim.key} cannot be pinned",
            provider=claim.key,
            origin=claim.origin,
            cause="its distribution has no RECORD file",
            remedy=f"reinstall {claim.dist} with pip, or deny it: HARDPOINT_DENY={claim.key}",
        )
    return Pin(claim.dist, claim.version, record)


def _fingerprint(claim: Claim) -> str | None:
    text = claim.files.read_text("RECORD")
    return None if text is None else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def write(claims: Iterable[Claim], path: Path) -> None:
    """Pin ``claims`` in ``path``, atomically: the old file or the whole new one is there.

    :raises ConfigError: a distribution has no RECORD, or ``path`` cannot be written.
    """
    providers = {claim.key: pin(claim)._asdict() for claim in sorted(claims, key=lambda c: c.key)}
    text = json.dumps({"hardpoint-lock": FORMAT, "providers": providers}, indent=2) + "\n"
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(
            f"the lock file {path} cannot be written",
            cause=f"{type(error).__name__}: {error}",
            remedy="name another file",
        ) from error


def read(path: Path) -> Mapping[str, Pin]:
    """Pins by ``kind:name``.

    :raises UnusableLockError: the file is missing, or no lock file.
    """
    try:
        whole = json.loads(path.read_text("utf-8"))
        if whole["hardpoint-lock"] != FORMAT:
            raise ValueError(f"format {whole['hardpoint-lock']!r}, this core reads {FORMAT}")
        pins = {key: Pin(**fields) for key, fields in whole["providers"].items()}
        if not all(isinstance(part, str) for each in pins.values() for part in each):
            raise ValueError("a field is not a string")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnusableLockError(
            f"the lock file {path} is unusable",
            cause=f"{type(error).__name__}: {error}",
            remedy="write it with `hardpoint lock`, or unset HARDPOINT_LOCK",
        ) from error
    return pins


def is_lock(path: Path) -> bool:
    """Whether ``path`` is a lock file, of whatever format."""
    try:
        whole = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(whole, dict) and "hardpoint-lock" in whole


def check(claim: Claim, pins: Mapping[str, Pin]) -> None:
    """Refuse a provider that is not exactly the pinned one.

    :raises LockMismatch: naming what is pinned and what is installed.
    """
    pinned = pins.get(claim.key)
    if pinned is None:
        raise _mismatch(claim, f"{claim.key} is not in the lock", "")
    installed = Pin(claim.dist, claim.version, _fingerprint(claim) or "no RECORD")
    if (normalize(installed.dist), installed.version, installed.record) != (
        normalize(pinned.dist),
        pinned.version,
        pinned.record,
    ):
        what = f"{claim.key} is not what the lock pins"
        raise _mismatch(claim, what, f"pinned {pinned}, installed {installed}")
    listed = _listed(claim)
    _check_place(claim, [path for path, _ in listed])
    for path, digest in listed:
        file = Path(str(claim.files.locate_file(path)))
        algorithm, _, expected = digest.partition("=")
        try:
            actual = hashlib.new(algorithm, file.read_bytes()).digest()
        except (OSError, ValueError) as error:
            what = f"a file of {claim.key} cannot be compared"
            raise _mismatch(claim, what, f"{path}: {error}") from error
        if base64.urlsafe_b64encode(actual).decode().rstrip("=") != expected.rstrip("="):
            cause = f"{path} has another hash than RECORD lists"
            raise _mismatch(claim, f"a file of {claim.key} was changed after installation", cause)


def _check_place(claim: Claim, paths: list[str]) -> None:
    """Refuse a module of the same name that lies earlier on the search path."""
    top = claim.module.partition(".")[0]
    ours = [path for path in paths if path.partition("/")[0].partition(".")[0] == top]
    if not ours:
        return
    package = Path(str(claim.files.locate_file(ours[0].partition("/")[0])))
    spec = importlib.util.find_spec(top)
    origin = None if spec is None or not spec.has_location else spec.origin
    if origin is None or not Path(origin).resolve().is_relative_to(package.resolve()):
        cause = f"import would take {origin or 'nothing'}, not {package}"
        raise _mismatch(claim, f"{claim.key} would not be imported from what the lock pins", cause)


def _listed(claim: Claim) -> list[tuple[str, str]]:
    """(path, hash) of RECORD's lines for the claim's module and the packages around it."""
    whole = claim.module.replace(".", "/")
    parents = [whole[:at] for at, char in enumerate(whole) if char == "/"]
    wanted = {f"{package}/__init__.py" for package in (*parents, whole)}
    wanted |= {whole + suffix for suffix in (".py", *EXTENSION_SUFFIXES)}
    rows = csv.reader((claim.files.read_text("RECORD") or "").splitlines())
    return [(row[0], row[1]) for row in rows if len(row) > 1 and row[1] and row[0] in wanted]


def _mismatch(claim: Claim, what: str, cause: str) -> LockMismatch:
    return LockMismatch(what, provider=claim.key, origin=claim.origin, cause=cause, remedy=_REMEDY)
