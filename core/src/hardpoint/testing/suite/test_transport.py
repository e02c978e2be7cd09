"""The suite of the transport that ``--provider`` names."""

from __future__ import annotations

from hardpoint.testing.transport import TransportSuite


class TestTransport(TransportSuite):
    """For ``--provider transport:NAME``."""
