"""Draw a plan as one HTML page that needs no network and no server."""

from __future__ import annotations

from pathlib import Path

import torch

from hardpoint import __version__
from hardpoint.errors import ConfigError
from hardpoint.files import write_atomically
from hardpoint.page.document import document
from hardpoint.page.markup import el, join
from hardpoint.planning.data import PlanData
from hardpoint.planning.page import parts, picture, sections
from hardpoint.planning.page.words import Shown


def save_page(plan: PlanData, path: Path) -> Path:
    """Write the page of ``plan`` to ``path``, atomically; return ``path``.

    :raises ConfigError: it cannot be written.
    """
    try:
        write_atomically(path, render_page(plan))
    except OSError as error:
        raise ConfigError(
            f"the page {path} cannot be written",
            cause=f"{type(error).__name__}: {error.strerror or error}",
            remedy="name a file in a folder that exists and that you may write to",
        ) from error
    return path


def render_page(plan: PlanData) -> str:
    """The page of ``plan``: the same plan gives the same text."""
    shown = Shown(plan)
    body = join(
        [
            sections.head(shown),
            sections.targets(shown),
            el("section", el("h2", "Picture"), picture.draw(shown), aria_label="Picture"),
            parts.segments(shown),
            sections.table(shown),
            sections.skipped(shown),
            el("footer", f"Made by hardpoint {__version__} with torch {torch.__version__}."),
        ]
    )
    return document(f"{plan.program.name}: plan", body, package="hardpoint.planning.page")
