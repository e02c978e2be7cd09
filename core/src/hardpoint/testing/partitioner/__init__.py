"""What every partitioner must do."""

from __future__ import annotations

from hardpoint.testing.every import EveryKind


class PartitionerSuite(EveryKind):
    """The checks of a partitioner; subclass it and set ``provider``."""

    kind = "partitioner"
