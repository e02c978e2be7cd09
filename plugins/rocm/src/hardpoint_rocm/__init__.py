"""hardpoint-rocm: the backend ``rocm``. The entry point is :mod:`hardpoint_rocm.plugin`."""
