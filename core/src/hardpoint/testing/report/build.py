"""A report as plain data: what ``KIND-NAME.json`` holds and the page shows."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, TypedDict

from hardpoint import __version__
from hardpoint.errors import HardpointError
from hardpoint.interfaces.kinds import API_MAJOR, API_MINOR, Kind
from hardpoint.testing.check import LEVELS
from hardpoint.testing.journal import Result
from hardpoint.testing.subject import Subject

REPORT_VERSION = 1


class LevelRow(TypedDict):
    """One level: reached only where everything of it, and below it, holds."""

    name: str
    reached: bool
    passed: int
    failed: int
    known: int
    skipped: int


class Report(TypedDict):
    """One run of the kit on one provider.

    ``level`` is the highest one reached, ``""`` where none is. ``passed``: nothing failed.
    ``unavailable`` is the provider's own reason why it cannot work on this machine, or ``""``.
    """

    report: int
    provider: str
    kind: Kind
    distribution: str
    version: str
    level: str
    passed: bool
    unavailable: str
    samples: str
    environment: dict[str, str]
    info: dict[str, Any]
    settings: dict[str, Any]
    levels: list[LevelRow]
    checks: list[dict[str, Any]]


def build_report(subject: Subject, results: Sequence[Result]) -> Report:
    """The report of ``results`` on ``subject``."""
    order = LEVELS[subject.kind]
    ordered = sorted(results, key=lambda r: order.index(r.level))
    rows = levels(subject.kind, ordered)
    reached = [row["name"] for row in rows if row["reached"]]
    settings = subject.settings
    record = subject.record
    return Report(
        report=REPORT_VERSION,
        provider=subject.key,
        kind=subject.kind,
        distribution=record.dist,
        version=record.version,
        level=reached[-1] if reached else "",
        passed=not any(r.outcome in ("failed", "crashed") for r in results),
        unavailable=_unavailable(subject),
        samples=subject.effort.samples if subject.kind == "backend" else "",
        environment=environment(),
        info=_info(subject),
        settings={
            "precision": settings.precision,
            "config": dict(settings.config),
            "options": dict(settings.options),
            "expected_failures": dict(settings.expected_failures),
        },
        levels=rows,
        checks=[r.to_json() for r in ordered],
    )


def levels(kind: Kind, results: Sequence[Result]) -> list[LevelRow]:
    """Each level of the kind, the lowest first, and whether it is reached.

    A level where everything was skipped is not reached: nothing was shown.
    """
    rows: list[LevelRow] = []
    holds = True
    for name in LEVELS[kind]:
        counts = Counter(r.outcome for r in results if r.level == name)
        failed = counts["failed"] + counts["crashed"]
        holds = holds and not failed and counts["passed"] > 0
        rows.append(
            LevelRow(
                name=name,
                reached=holds,
                passed=counts["passed"],
                failed=failed,
                known=counts["known"],
                skipped=counts["skipped"],
            )
        )
    return rows


def environment() -> dict[str, str]:
    """What the run stood on."""
    return {
        "hardpoint": __version__,
        "contract": f"{API_MAJOR}.{API_MINOR}",
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
    }


def _unavailable(subject: Subject) -> str:
    try:
        return subject.probe.reason
    except HardpointError as error:
        return f"{type(error).__name__}: {error.what}"


def _info(subject: Subject) -> dict[str, Any]:
    try:
        info = subject.info
    except HardpointError as error:
        return {"error": str(error)}
    return asdict(info) if is_dataclass(info) and not isinstance(info, type) else {}
