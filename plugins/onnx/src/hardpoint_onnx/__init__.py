"""hardpoint-onnx: the serializer ``onnx``. Its entry point: :mod:`.plugin`."""
