"""The tutorial vendor: a simulated NPU as a hardpoint backend."""
