"""Figures for people. On its own, so that the command line need not import torch for them."""

from __future__ import annotations


def size(amount: int) -> str:
    """Bytes for people: ``1.5 MB``."""
    value = float(amount)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def count(amount: int) -> str:
    """A large count for people: ``12.3 G``."""
    value = float(amount)
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000 or unit == "T":
            return f"{value:.0f}" if unit == "" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")
