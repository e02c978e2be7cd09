"""hardpoint transport ``gloo``: PyTorch's own gloo process groups, for tensors on the CPU."""
