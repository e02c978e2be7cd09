"""One self-contained page: nothing is loaded, and no script runs but ours."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from string import Template

from hardpoint.page.markup import Markup, text


def document(title: str, body: Markup, *, package: str) -> str:
    """The text of a page.

    :param package: the package whose ``page.css`` and ``page.js`` the page gets, after the base
        style that all pages share.
    """
    style = _resource(__package__, "base.css") + _resource(package, "page.css")
    script = _resource(package, "page.js")
    return Template(_resource(__package__, "page.html")).substitute(
        title=text(title),
        # The last line of defence against names and reasons that come from models and plugins.
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}",
        style=style,
        script=script,
        body=body,
    )


def _resource(package: str, name: str) -> str:
    return (files(package) / name).read_text("utf-8")


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
