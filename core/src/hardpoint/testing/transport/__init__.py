"""What every transport must do."""

from __future__ import annotations

from hardpoint.testing.every import EveryKind


class TransportSuite(EveryKind):
    """The checks of a transport; subclass it and set ``provider``."""

    kind = "transport"
