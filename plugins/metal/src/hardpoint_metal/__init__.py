"""hardpoint-metal: the backend ``metal``. The entry point is :mod:`hardpoint_metal.plugin`."""
