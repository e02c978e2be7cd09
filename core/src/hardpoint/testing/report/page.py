"""The report as one self-contained HTML page."""

from __future__ import annotations

import html
import json

from hardpoint.testing.report.build import Report


def page(report: Report) -> str:
    """The page's text."""
    return f"<!doctype html><pre>{html.escape(json.dumps(report, indent=1, default=str))}</pre>"
