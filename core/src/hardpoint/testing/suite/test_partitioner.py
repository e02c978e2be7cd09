"""The suite of the partitioner that ``--provider`` names."""

from __future__ import annotations

from hardpoint.testing.partitioner import PartitionerSuite


class TestPartitioner(PartitionerSuite):
    """For ``--provider partitioner:NAME``."""
