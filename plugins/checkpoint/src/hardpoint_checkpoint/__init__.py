"""hardpoint-checkpoint: the serializer ``checkpoint``. Its entry point: :mod:`.plugin`."""
