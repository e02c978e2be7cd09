"""What the targets of DCP's items share: metadata that leads to one item of any bytes."""

import pickle
from pathlib import Path

import torch
from invariants import read_file
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from hardpoint_dcp.serializer import DcpSerializer

_SERIALIZER = DcpSerializer()
_FILE = "__0_0.distcp"


def _metadata(kind: int, length: int) -> bytes:
    shape = torch.Size((2, 2))
    if kind == 0:
        entry: object = BytesStorageMetadata()
        index = MetadataIndex("x")
    else:
        dtype = (torch.float32, torch.bool, torch.bfloat16)[kind - 1]
        chunk = ChunkStorageMetadata(torch.Size((0, 0)), shape)
        entry = TensorStorageMetadata(TensorProperties(dtype=dtype), shape, [chunk])
        index = MetadataIndex("x", torch.Size((0, 0)))
    return pickle.dumps(
        Metadata({"x": entry}, storage_data={index: _StorageInfo(_FILE, 0, length)})
    )  # type: ignore[dict-item]


def read_item(kind: int, item: bytes, folder: Path) -> None:
    """Read a checkpoint of that one item: a value (kind 0), or four numbers of some dtype."""
    (folder / ".metadata").write_bytes(_metadata(kind % 4, max(1, len(item))))
    (folder / _FILE).write_bytes(item)
    read_file(_SERIALIZER, folder)
