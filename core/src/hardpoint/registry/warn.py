"""Warnings that point at the line which used the registry, not at the registry's own."""

from __future__ import annotations

import sys
import warnings

_OURS = __name__.rpartition(".")[0]


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn, as from the nearest caller outside ``hardpoint.registry``."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
