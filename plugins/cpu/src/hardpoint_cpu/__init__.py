"""hardpoint-cpu: the backend ``cpu``. The entry point is :mod:`hardpoint_cpu.plugin`."""
