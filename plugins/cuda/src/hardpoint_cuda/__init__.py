"""hardpoint-cuda: the backend ``cuda``. The entry point is :mod:`hardpoint_cuda.plugin`."""
