"""The pages about the conformance kit: its checks, and what it found on each provider of ours."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from docstring_markdown import inline
from hardpoint.interfaces.kinds import KINDS
from hardpoint.testing.check import LEVELS
from hardpoint.testing.report.build import level_in_words
from hardpoint.testing.suites import checks_of_kind

REPORTS = Path(__file__).resolve().parents[2] / "docs" / "conformance"
_OPERATORS = "operators_are_right"
_COUNTS = ("run", "claimed", "right", "wrong", "refused", "unclaimed", "not_exportable")


def checks_page(note: str) -> str:
    """Every check of the kit, by kind and level; ``note`` says that the page is generated."""
    parts = [
        "# The checks of the conformance kit",
        note,
        "`hardpoint check KIND:NAME` runs these. A provider reaches a level when every check of it, "
        "and of those before it, holds; a level of which everything was skipped is not reached.",
    ]
    for kind in KINDS:
        parts.append(f"## {kind}")
        parts.append(f"Levels: {' · '.join(LEVELS[kind])}.")
        rows = ["| level | check | what it asks |", "|---|---|---|"]
        for check in checks_of_kind(kind):
            rows.append(f"| {check.level} | `{check.name}` | {_cell(inline(check.title))} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def matrix_page(note: str, folder: Path = REPORTS) -> str:
    """What the committed reports say, a row a provider; ``note`` as above."""
    reports = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    parts = [
        "# The compatibility matrix",
        note,
        "What `hardpoint check` found on each provider of this repository, from the reports in "
        "[docs/conformance](../conformance/README.md). The figures hold for the versions in the row, "
        "and for nothing else.",
        _matrix(reports),
        "## Operators",
        "Samples of PyTorch's own operator database, each exported, compiled, run and compared with "
        "eager PyTorch. *Unclaimed* samples the backend leaves to others, by its own `support()`; "
        "*refused* ones it claims and then does not compile; *not exportable* ones torch itself "
        "cannot export.",
        _operators(reports),
        "## Known failures, and what was skipped",
        _exceptions(reports),
    ]
    return "\n\n".join(parts) + "\n"


def _matrix(reports: list[dict[str, Any]]) -> str:
    rows = [
        "| provider | level | checks | plugin | contract | torch | Python | system |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for report in reports:
        counts = Counter(check["outcome"] for check in report["checks"])
        said = ", ".join(f"{counts[o]} {o}" for o in ("passed", "failed", "crashed", "known", "skipped") if counts[o])  # fmt: skip
        at = report["environment"]
        stem = report["provider"].replace(":", "-")
        rows.append(
            f"| [`{report['provider']}`](../conformance/{stem}.html) | {level_in_words(report)} "
            f"| {said} | {report['distribution']} {report['version']} | {at['contract']} "
            f"| {at['torch']} | {at['python']} | {at['system']} |"
        )
    return "\n".join(rows)


def _operators(reports: list[dict[str, Any]]) -> str:
    rows = [
        "| backend | samples | " + " | ".join(c.replace("_", " ") for c in _COUNTS) + " |",
        "|---" * (len(_COUNTS) + 2) + "|",
    ]
    for report in reports:
        for check in report["checks"]:
            if check["name"] == _OPERATORS and "operators" in check["figures"]:
                found = check["figures"]["operators"]
                cells = " | ".join(str(found[count]) for count in _COUNTS)
                rows.append(f"| `{report['provider']}` | {report['samples']} | {cells} |")
    return "\n".join(rows)


def _exceptions(reports: list[dict[str, Any]]) -> str:
    rows = ["| provider | check | outcome | because |", "|---|---|---|---|"]
    for report in reports:
        for check in report["checks"]:
            if check["outcome"] != "passed":
                cells = (check["name"], check["outcome"], _cell(check["reason"]))
                rows.append(f"| `{report['provider']}` | `{cells[0]}` | {cells[1]} | {cells[2]} |")
        for name, reason in report["settings"]["expected_failures"].items():
            if name.startswith("operator:"):
                rows.append(f"| `{report['provider']}` | `{name}` | known | {_cell(reason)} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    """Text as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
