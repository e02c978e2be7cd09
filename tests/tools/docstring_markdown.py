"""Turn our docstrings (reStructuredText roles and fields, sparingly used) into Markdown."""

from __future__ import annotations

import inspect
import re

_FIELD = re.compile(r":(?P<kind>param|raises|returns?)(?: (?P<name>[^:]+))?:\s*(?P<text>.*)")
_ROLE = re.compile(r":\w+:`~?(?P<target>[^`]+)`")


def markdown(docstring: str) -> str:
    """The same text in Markdown: prose, then a list of parameters, then of errors.

    A field goes on over the lines that are indented below it.
    """
    prose: list[str] = []
    fields: list[tuple[str, str, list[str]]] = []
    for line in inspect.cleandoc(docstring).splitlines():
        found = _FIELD.match(line)
        if found:
            fields.append((found["kind"], found["name"] or "", [found["text"]]))
        elif fields and line.startswith(" "):
            fields[-1][2].append(line.strip())
        elif line.strip() or not fields:
            prose.append(line)
    parts = [inline("\n".join(prose).strip())]
    parameters = [_item(name, text) for kind, name, text in fields if kind == "param"]
    raised = [_item(f"raises {name}", text) for kind, name, text in fields if kind == "raises"]
    returned = [_item("returns", text) for kind, _, text in fields if kind.startswith("return")]
    parts += ["\n".join(items) for items in (parameters, returned + raised) if items]
    return "\n\n".join(part for part in parts if part)


def inline(text: str) -> str:
    """Roles and double back-quotes become single ones."""
    return _ROLE.sub(r"`\g<target>`", text).replace("``", "`")


def summary(docstring: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(inline(inspect.cleandoc(docstring).split("\n\n")[0]).split())


def _item(name: str, text: list[str]) -> str:
    return f"- **{name}**: {inline(' '.join(text).strip())}"
