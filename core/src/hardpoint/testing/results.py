"""What a run of the suite found, gathered from pytest's reports."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hardpoint.errors import HardpointError
from hardpoint.testing.check import Check, CheckFailed
from hardpoint.testing.journal import Journal, Outcome, Result
from hardpoint.testing.report.build import Report, build_report, levels
from hardpoint.testing.report.facts import facts
from hardpoint.testing.report.files import write_report
from hardpoint.testing.subject import Subject, split_key
from hardpoint.testing.suites import is_complete


class Run:
    """The results of one pytest session, by provider.

    :param journal: where each event is written as it happens, or ``None``.
    """

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self.subjects: dict[str, Subject] = {}
        self._found: dict[str, dict[str, Result]] = {}

    def begin(self, check: Check) -> None:
        """A check begins."""
        self._write("begin", name=check.name, level=check.level, title=check.title)

    def progress(self, done: int, total: int, what: str) -> None:
        """A check that takes long has got so far."""
        self._write("progress", done=done, total=total, what=what)

    def note(
        self,
        key: str,
        check: Check,
        report: pytest.TestReport,
        raised: pytest.ExceptionInfo[BaseException] | None,
        figures: Mapping[str, Any],
    ) -> None:
        """A phase (setup, call or teardown) of a check ended."""
        earlier = self._found.get(key, {}).get(check.name)
        outcome = _outcome(report)
        if report.when == "teardown":
            if outcome != "passed" and earlier is not None:
                self._found[key][check.name] = _result(check, "failed", report, raised, figures)
            if earlier is not None:
                self._write("end", **self._found[key][check.name].to_json())
        elif report.when == "call" or outcome != "passed":
            made = _result(check, outcome, report, raised, figures)
            self._found.setdefault(key, {})[check.name] = made

    def finish(self) -> None:
        """Every check has ended."""
        self._write("finished")

    def write_reports(self, folder: Path) -> None:
        """``KIND-NAME.json`` and ``.html`` of each provider."""
        for key in self._found:
            if key in self.subjects:
                write_report(self._report(key), folder)

    def summary(self) -> Iterator[str]:
        """A line for each provider."""
        for key, found in self._found.items():
            reached = [
                row["name"]
                for row in levels(split_key(key)[0], list(found.values()))
                if row["reached"]
            ]
            yield f"{key}: level {reached[-1] if reached else 'none'}"

    def _report(self, key: str) -> Report:
        subject, found = self.subjects[key], self._found[key]
        complete = is_complete(subject.kind, found)
        return build_report(facts(subject), subject, list(found.values()), complete=complete)

    def _write(self, event: str, **data: object) -> None:
        if self._journal is not None:
            self._journal.write(event, **data)


def _outcome(report: pytest.TestReport) -> Outcome:
    if hasattr(report, "wasxfail") and report.skipped:
        return "known"
    if report.passed:
        return "passed"
    return "skipped" if report.skipped else "failed"


def _result(
    check: Check,
    outcome: Outcome,
    report: pytest.TestReport,
    raised: pytest.ExceptionInfo[BaseException] | None,
    figures: Mapping[str, Any],
) -> Result:
    reason = "" if outcome == "passed" else _reason(outcome, report, raised)
    return Result(
        check.name, check.level, check.title, outcome, reason, round(report.duration, 3), figures
    )


def _reason(
    outcome: Outcome,
    report: pytest.TestReport,
    raised: pytest.ExceptionInfo[BaseException] | None,
) -> str:
    if outcome == "known":
        return str(getattr(report, "wasxfail", ""))
    if raised is None:  # a strict expected failure that passed
        return (
            f"it does not fail any more; take it out of the expected failures ({report.longrepr})"
        )
    error = raised.value
    if isinstance(error, pytest.skip.Exception):
        return str(error.msg)
    if isinstance(error, CheckFailed):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f" (at {Path(where.filename).name}:{where.lineno})"
    if isinstance(error, HardpointError):
        return f"{type(error).__name__}: {error}{place}"
    return f"{type(error).__name__}: {str(error)[:2000]}{place}"
