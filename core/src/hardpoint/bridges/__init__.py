"""Bridges into PyTorch's registries: ``dynamo`` (torch.compile), ``c10d`` (torch.distributed)."""
