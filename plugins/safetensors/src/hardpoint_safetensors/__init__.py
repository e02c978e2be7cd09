"""hardpoint-safetensors: the serializer ``safetensors``. Its entry point: :mod:`.plugin`."""
