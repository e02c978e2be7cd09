"""A safetensors file, held to the reference reader: what that refuses we refuse."""

from collections.abc import Iterator
from pathlib import Path

import safetensors
from invariants import Tensors, demand, raw, read_file
from target import Target, files
from wrapped import with_length

from hardpoint_safetensors.dtypes import BY_CODE
from hardpoint_safetensors.serializer import SafetensorsSerializer

_SERIALIZER = SafetensorsSerializer()


def run(data: bytes, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    compare(data, read_file(_SERIALIZER, path))


def compare(data: bytes, ours: Tensors | None) -> None:
    """Hold what we read to what the reference reads."""
    if ours is None:
        return
    try:
        theirs = dict(safetensors.deserialize(data))
    except safetensors.SafetensorError as error:
        demand(False, "the reference refuses it", error)
    demand(theirs.keys() == ours.keys(), "the reference finds other names")
    for name, tensor in ours.items():
        dtype, shape = BY_CODE[theirs[name]["dtype"]], list(tensor.shape)
        if dtype.packed > 1:
            shape[-1] *= dtype.packed
        found = (str(tensor.dtype), shape, raw(tensor))
        said = (f"torch.{dtype.torch_name}", theirs[name]["shape"], bytes(theirs[name]["data"]))
        demand(found == said, "the reference reads another tensor")


def words() -> Iterator[bytes]:
    for text in ("dtype", "shape", "data_offsets", "__metadata__", *BY_CODE):
        yield f'"{text}"'.encode()
    yield from (b"\\u0061", b"\\ud800", b"1e9", b"-0", b"NaN", b"null", b"true", b"[0,0]", b"{}")
    yield from (b"18446744073709551615", b"9223372036854775807", b"4294967296", b'{"a":')


TARGET = Target(
    run=run,
    seeds=lambda: files("safetensors", "golden/*.safetensors", "hostile/*.safetensors"),
    mutate=with_length,
    words=words,
    longest=8192,
)
