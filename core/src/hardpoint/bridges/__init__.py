"""Bridges into PyTorch's own registries: ``dynamo`` (torch.compile), ``c10d`` (torch.distributed)."""
