"""hardpoint-onnxruntime: the backend ``onnxruntime``. Entry point: :mod:`.plugin`."""
