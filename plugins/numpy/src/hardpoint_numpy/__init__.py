"""hardpoint-numpy: the serializer ``numpy``. Its entry point: :mod:`.plugin`."""
