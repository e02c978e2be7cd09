"""What every serializer must do."""

from __future__ import annotations

from hardpoint.testing.every import EveryKind


class SerializerSuite(EveryKind):
    """The checks of a serializer; subclass it and set ``provider``."""

    kind = "serializer"
