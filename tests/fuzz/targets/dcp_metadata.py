"""The ``.metadata`` of a distributed checkpoint, beside the files of two ranks."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from invariants import read_file
from target import PLUGINS, Target, files
from wrapped import swapping_parts

from hardpoint_dcp.metadata import _ALLOWED
from hardpoint_dcp.serializer import DcpSerializer

_SERIALIZER = DcpSerializer()


def prepare(folder: Path) -> None:
    for path in (PLUGINS / "dcp/tests/golden/ranks.dcp").glob("*.distcp"):
        shutil.copy(path, folder / path.name)


def run(data: bytes, folder: Path) -> None:
    (folder / ".metadata").write_bytes(data)
    read_file(_SERIALIZER, folder)


def words() -> Iterator[bytes]:
    for module, name in sorted(_ALLOWED):
        yield f"c{module}\n{name}\n".encode()
        yield bytes([0x8C, len(name)]) + name.encode()
    for key in (
        "fqn",
        "offset",
        "index",
        "relative_path",
        "length",
        "chunks",
        "sizes",
        "offsets",
        "size",
        "properties",
        "state_dict_metadata",
        "storage_data",
        "__0_0.distcp",
        "../x.distcp",
    ):
        yield bytes([0x8C, len(key)]) + key.encode()
    yield from (b"cposix\nsystem\n", b"\x8a\x08" + b"\xff" * 7 + b"\x7f")


TARGET = Target(
    run=run,
    seeds=lambda: files("dcp", "golden/*.dcp/.metadata", "hostile/*.dcp/.metadata"),
    prepare=prepare,
    mutate=swapping_parts,
    words=words,
)
