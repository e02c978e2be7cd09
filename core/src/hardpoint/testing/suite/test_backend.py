"""The suite of the backend that ``--provider`` names."""

from __future__ import annotations

from hardpoint.testing.backend import BackendSuite


class TestBackend(BackendSuite):
    """For ``--provider backend:NAME``."""
