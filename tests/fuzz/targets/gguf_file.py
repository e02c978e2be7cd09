"""A GGUF file; where the library gguf reads it too, the plain tensors must be equal."""

from collections.abc import Iterator
from pathlib import Path

import gguf
from invariants import demand, raw, read_file
from target import Target, files
from wrapped import swapping_parts

from hardpoint_gguf.serializer import GgufSerializer
from hardpoint_gguf.types import BY_NUMBER

_SERIALIZER = GgufSerializer()


def run(data: bytes, folder: Path) -> None:
    path = folder / "model.gguf"
    path.write_bytes(data)
    ours = read_file(_SERIALIZER, path)
    if not ours:
        return
    try:
        theirs = gguf.GGUFReader(path).tensors
    except Exception:  # it cannot read some types of metadata: no verdict
        return
    for tensor in theirs:
        if not BY_NUMBER[int(tensor.tensor_type)].quantized:
            demand(tensor.data.tobytes() == raw(ours[tensor.name]), "gguf reads other values")


def seeds() -> Iterator[bytes]:
    import gguf_seeds

    yield from files("gguf", "hostile/*.gguf")
    yield from gguf_seeds.made()


def words() -> Iterator[bytes]:
    yield from (
        b"GGUF",
        b"GGUF\3\0\0\0",
        b"general.alignment",
        b"\x11\0\0\0\0\0\0\0general.alignment",
    )
    yield from (n.to_bytes(4, "little") for n in range(42))
    yield from ((1 << n).to_bytes(8, "little") for n in (0, 1, 5, 31, 32, 60, 62, 63))
    yield b"\xff" * 8


TARGET = Target(run=run, seeds=seeds, lazy=("gguf", "numpy"), mutate=swapping_parts, words=words)
