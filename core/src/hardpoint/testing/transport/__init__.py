"""What every transport must do."""

from __future__ import annotations

from hardpoint.testing.every import EveryKind
from hardpoint.testing.transport.collectives import Collectives
from hardpoint.testing.transport.faults import Faults
from hardpoint.testing.transport.groups import Groups
from hardpoint.testing.transport.messages import Messages
from hardpoint.testing.transport.training import Training


class TransportSuite(EveryKind, Groups, Collectives, Messages, Training, Faults):
    """The checks of a transport; subclass it and set ``provider``."""

    kind = "transport"
