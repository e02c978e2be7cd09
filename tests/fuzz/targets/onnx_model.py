"""An ONNX model, with a file of external data beside it; values held to those of ``onnx``."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
from invariants import demand, raw, read_file
from target import PLUGINS, Target, files
from wrapped import swapping_parts

from hardpoint_onnx.serializer import OnnxSerializer

_SERIALIZER = OnnxSerializer()
_PLAIN = frozenset(range(1, 8)) | {10, 11, 12, 13}


def prepare(folder: Path) -> None:
    shutil.copy(PLUGINS / "onnx/tests/golden/external.bin", folder / "external.bin")


def run(data: bytes, folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(data)
    ours = read_file(_SERIALIZER, path)
    if not ours:
        return
    for proto in onnx.ModelProto.FromString(data).graph.initializer:
        if proto.data_location or proto.data_type not in _PLAIN:
            continue
        try:
            theirs = onnx.numpy_helper.to_array(proto)
        except Exception:  # e.g. of an empty one without a field: no verdict
            continue
        tensor = ours[proto.name]
        demand(tuple(tensor.shape) == theirs.shape, "onnx finds another shape")
        demand(raw(tensor) == np.ascontiguousarray(theirs).tobytes(), "onnx reads other values")


def words() -> Iterator[bytes]:
    yield from (
        b"external.bin",
        b"location",
        b"offset",
        b"length",
        b"checksum",
        b"../",
        b"\x70\1",
        b"\x6a",
    )
    yield from (bytes([field << 3 | 2]) for field in range(1, 16))
    yield b"\xff" * 9 + b"\1"


TARGET = Target(
    run=run,
    seeds=lambda: files("onnx", "golden/*.onnx", "hostile/*.onnx"),
    prepare=prepare,
    lazy=("onnx", "google.protobuf.message"),
    mutate=swapping_parts,
    words=words,
    longest=8192,
)
