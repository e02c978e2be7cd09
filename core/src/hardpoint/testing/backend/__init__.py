"""What every backend must do."""

from __future__ import annotations

from hardpoint.testing.every import EveryKind


class BackendSuite(EveryKind):
    """The checks of a backend; subclass it and set ``provider``."""

    kind = "backend"
