"""The suite of the serializer that ``--provider`` names."""

from __future__ import annotations

from hardpoint.testing.serializer import SerializerSuite


class TestSerializer(SerializerSuite):
    """For ``--provider serializer:NAME``."""
