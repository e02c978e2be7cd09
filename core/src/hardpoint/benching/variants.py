"""Words of variants. Imports no torch."""

from __future__ import annotations

# The variant that is none: a backend's defaults.
DEFAULT = "default"
