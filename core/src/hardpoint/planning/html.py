"""Draw a plan as one HTML page that needs no network and no server."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from importlib.resources import files
from pathlib import Path
from string import Template

import torch

from hardpoint import __version__
from hardpoint.errors import ConfigError
from hardpoint.planning.data import PlanData
from hardpoint.planning.page import parts, picture, sections
from hardpoint.planning.page.markup import el, join, text
from hardpoint.planning.page.words import Shown


def save_page(plan: PlanData, path: Path) -> Path:
    """Write the page of ``plan`` to ``path``, atomically; return ``path``.

    :raises ConfigError: it cannot be written.
    """
    data = render_page(plan).encode("utf-8")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
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
    style, script = _resource("page.css"), _resource("page.js")
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
    return Template(_resource("page.html")).substitute(
        title=text(f"{plan.program.name}: plan"),
        # Nothing is loaded, and no script runs but ours: the last line of defence against names.
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}",
        style=style,
        script=script,
        body=body,
    )


def _resource(name: str) -> str:
    return (files("hardpoint.planning.page") / name).read_text("utf-8")


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
