"""The suites, each for the provider that ``--provider`` names; those of other kinds stay out."""

from __future__ import annotations

from hardpoint.testing.backend import BackendSuite
from hardpoint.testing.partitioner import PartitionerSuite
from hardpoint.testing.serializer import SerializerSuite
from hardpoint.testing.transport import TransportSuite


class TestBackend(BackendSuite):
    """For ``--provider backend:NAME``."""


class TestPartitioner(PartitionerSuite):
    """For ``--provider partitioner:NAME``."""


class TestSerializer(SerializerSuite):
    """For ``--provider serializer:NAME``."""


class TestTransport(TransportSuite):
    """For ``--provider transport:NAME``."""
