"""hardpoint-openvino: the backend ``openvino``. Entry point: :mod:`hardpoint_openvino.plugin`."""
