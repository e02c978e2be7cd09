"""Bridges into PyTorch: ``dynamo`` (torch.compile), ``c10d`` and ``dcp`` (torch.distributed)."""
