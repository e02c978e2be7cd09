"""hardpoint-gguf: the serializer ``gguf``. Its entry point: :mod:`.plugin`."""
