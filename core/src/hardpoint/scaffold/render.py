"""Templates: plain text in which ``<<name>>`` stands for a value.

Not ``$name``, nor braces: what is generated is Python, TOML and YAML, which use those themselves.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from importlib import resources


class _Template(string.Template):
    # Everything but <<name>> is text; the two groups that never match are asked for by the base.
    pattern = r"<<(?:(?P<named>[a-z_]+)>>|(?P<braced>(?!))|(?P<escaped>(?!))|(?P<invalid>(?!)))"  # type: ignore[assignment]


def render(template: str, values: Mapping[str, str]) -> str:
    """The template ``templates/<template>.tmpl``, filled in.

    :raises KeyError: it asks for a value that is not there.
    """
    source = resources.files("hardpoint.scaffold") / "templates" / f"{template}.tmpl"
    return _Template(source.read_text("utf-8")).substitute(values)
