"""First-party names, each reserved to its distribution.

A wheel that takes such a name over would be picked wherever the name is written, so it is denied
unless ``Policy(override=...)`` says otherwise. That holds for our own entry point groups: under
another prefix every name is its owner's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_BACKENDS = ("cpu", "openvino", "onnxruntime", "cuda", "rocm", "metal", "executorch")
_SERIALIZERS = ("safetensors", "checkpoint", "gguf", "dcp", "numpy", "onnx")
_PARTITIONERS = ("capability", "cost", "pipeline", "tensor")
_TRANSPORTS = ("gloo", "nccl", "shm")

# kind:name -> the distribution, normalized.
RESERVED: Mapping[str, str] = {
    **{f"backend:{name}": f"hardpoint-{name}" for name in _BACKENDS},
    **{f"serializer:{name}": f"hardpoint-{name}" for name in _SERIALIZERS},
    **{f"partitioner:{name}": "hardpoint-partitioners" for name in _PARTITIONERS},
    **{f"transport:{name}": f"hardpoint-{name}" for name in _TRANSPORTS},
}


def reserved_under(prefix: str) -> Mapping[str, str]:
    """The names that are reserved in the groups ``<prefix>.<kind>.v1``, as :data:`RESERVED`."""
    return RESERVED if prefix == "hardpoint" else {}


def normalize(dist: str) -> str:
    """A distribution's name as PEP 503 compares it: ``"Acme_NPU"`` is ``"acme-npu"``."""
    return re.sub(r"[-_.]+", "-", dist).lower()
