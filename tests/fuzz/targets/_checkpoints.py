"""What the targets of checkpoints share."""

import io
from collections.abc import Iterator
from pathlib import Path

import torch
from guard import watched
from invariants import demand, read_file, refusing, same

from hardpoint_checkpoint import scan as scanning
from hardpoint_checkpoint.globals import ALLOWED
from hardpoint_checkpoint.opcodes import OPCODES
from hardpoint_checkpoint.serializer import CheckpointSerializer

_SERIALIZER = CheckpointSerializer()


class _NoOthers:
    """Other scanners are asked by scan(); they are not ours to fuzz."""

    def verdicts(self, raw: bytes) -> dict[str, str]:
        return {}


assert callable(scanning.Others().verdicts)
scanning.Others = _NoOthers  # type: ignore[misc, assignment]

# Python imports it when first used, which here is when a file asks for it.
"".encode("raw-unicode-escape")


def read_checkpoint(data: bytes, path: Path) -> None:
    """Read it, ask the scanner whether it agrees, and PyTorch for the values."""
    path.write_bytes(data)
    ours = read_file(_SERIALIZER, path)
    if path.suffix == ".json":  # scan() opens the shards too
        return
    opened, refused = False, None
    with watched(path.parent):
        with refusing():
            _SERIALIZER.open(path).close()
            opened = True
        with refusing():
            refused = _SERIALIZER.scan(path)["refused"]
        demand(refused is (not opened), "scan and open disagree")
    if ours is None:
        return
    try:
        theirs = torch.load(io.BytesIO(data), weights_only=True)
    except Exception:  # it reads less, and older files not at all: no verdict
        return
    for name, tensor in theirs.items() if isinstance(theirs, dict) else ():
        if type(name) is str and type(tensor) is torch.Tensor and name in ours:
            demand(
                same(ours[name], tensor.resolve_conj().resolve_neg()),
                "PyTorch reads another tensor",
            )


def pickle_words() -> Iterator[bytes]:
    """Opcodes, and the names that a checkpoint may hold."""
    yield from (bytes([code]) for code in OPCODES)
    yield from (f"c{module}\n{name}\n".encode() for module, name in ALLOWED)
    yield from (
        b"cposix\nsystem\n",
        b"cbuiltins\neval\n",
        b"X\x07\0\0\0storage",
        b"X\x01\0\0\x000",
        b"X\x03\0\0\0cpu",
    )
    yield from (
        b"\x8a\x08" + n.to_bytes(8, "little") for n in (1, 1 << 31, (1 << 63) - 1, (1 << 64) - 1)
    )
