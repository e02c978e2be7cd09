"""hardpoint-dcp: the serializer ``dcp``. Its entry point: :mod:`.plugin`."""
