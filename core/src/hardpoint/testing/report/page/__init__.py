"""The report as one self-contained HTML page: ``head`` says how far the provider got, ``checks``
why not further, ``operators`` shows a backend's samples, ``words`` names outcomes and figures.

``page.js`` only adds filters; the page says everything without it.
"""

from __future__ import annotations

from hardpoint.page.document import document
from hardpoint.page.markup import el, join
from hardpoint.testing.report.build import Report
from hardpoint.testing.report.page import checks, head, operators


def page(report: Report) -> str:
    """The page's text: the same report gives the same text."""
    body = join(
        [
            head.head(report),
            head.levels(report),
            checks.failures(report),
            checks.known(report),
            operators.section(report),
            checks.table(report),
            head.facts(report),
            el("footer", f"Made by hardpoint {report['environment']['hardpoint']}."),
        ]
    )
    return document(f"{report['provider']}: conformance", body, package=__name__)
