"""Build HTML and SVG so that what comes from models and plugins cannot become markup."""

from __future__ import annotations

import html

# Names and reasons come from models and plugins: one of a megabyte must not make the page useless.
LONGEST = 400
# Elements that HTML gives neither content nor an end tag.
_VOID = frozenset({"input"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def el(tag: str, *children: object, **attributes: object) -> Markup:
    """One element. Children and attribute values are escaped, unless they are :class:`Markup`.

    :param attributes: ``cls`` is ``class``, ``_`` stands for ``-``; ``None`` and ``False`` leave an
        attribute out, ``True`` writes it bare.
    """
    written = []
    for name, value in attributes.items():
        key = "class" if name == "cls" else name.rstrip("_").replace("_", "-")
        if value is True:
            written.append(f" {key}")
        elif value is not None and value is not False:
            written.append(f' {key}="{_number(value) or text(str(value))}"')
    end = "" if tag in _VOID else f"{join(children)}</{tag}>"
    return Markup(f"<{tag}{''.join(written)}>{end}")


def join(children: object) -> Markup:
    """Children one after another; lists and tuples are flattened, ``None`` is left out."""
    if isinstance(children, Markup):
        return children
    if children is None:
        return Markup("")
    if isinstance(children, (list, tuple)):
        return Markup("".join(map(join, children)))
    return text(str(children))


def text(raw: str, most: int = LONGEST) -> Markup:
    """``raw`` as page text: clipped, escaped, and with what does not print made visible.

    Control and direction characters could otherwise show a name as another one.

    :param most: characters to keep.
    """
    shown = clip(raw, most)
    visible = (c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in shown)
    return Markup(html.escape("".join(visible), quote=True))


def clip(raw: str, most: int) -> str:
    """At most ``most`` characters of ``raw``; it ends in an ellipsis where some are missing."""
    return raw if len(raw) <= most else raw[: most - 1] + "…"


def _number(value: object) -> str:
    """A coordinate without needless digits; the bulk of a picture is coordinates."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else ""
