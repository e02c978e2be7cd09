"""What every serializer must do."""

from __future__ import annotations

from hardpoint.testing.every import EveryKind
from hardpoint.testing.serializer.apart import Apart
from hardpoint.testing.serializer.golden import Golden, record_golden
from hardpoint.testing.serializer.hostile import Hostile
from hardpoint.testing.serializer.lifetime import Lifetime
from hardpoint.testing.serializer.reading import Reading
from hardpoint.testing.serializer.refusing import Refusing
from hardpoint.testing.serializer.roundtrips import RoundTrips
from hardpoint.testing.serializer.saving import Saving
from hardpoint.testing.serializer.sharing import Sharing
from hardpoint.testing.serializer.slices import Slices

__all__ = ["SerializerSuite", "record_golden"]


class SerializerSuite(
    RoundTrips,
    Golden,
    Reading,
    Slices,
    Lifetime,
    Refusing,
    Hostile,
    Saving,
    Sharing,
    Apart,
    EveryKind,
):
    """The checks of a serializer; subclass it and set ``provider``.

    One that only reads (``SerializerInfo.can_save`` is false) is checked on its golden files.
    """

    kind = "serializer"
