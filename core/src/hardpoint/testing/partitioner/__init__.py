"""What every partitioner must do."""

from __future__ import annotations

from hardpoint.testing.every import EveryKind
from hardpoint.testing.partitioner.assigns import Assigns
from hardpoint.testing.partitioner.limits import Limits
from hardpoint.testing.partitioner.optimizes import Optimizes
from hardpoint.testing.partitioner.running import Running
from hardpoint.testing.partitioner.scales import Scales
from hardpoint.testing.partitioner.stable import Stable


class PartitionerSuite(Assigns, Stable, Limits, Running, Optimizes, Scales, EveryKind):
    """The checks of a partitioner; subclass it and set ``provider``."""

    kind = "partitioner"
