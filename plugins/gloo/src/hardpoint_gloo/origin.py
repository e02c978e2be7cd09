"""Who is speaking, for messages."""

from importlib.metadata import version


def origin() -> str:
    """``distribution version`` of this plugin."""
    return f"hardpoint-gloo {version('hardpoint-gloo')}"
