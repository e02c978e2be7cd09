"""A checkpoint from before PyTorch 1.6: pickles one after the other, then the storages."""

from pathlib import Path

from target import Target, files
from wrapped import swapping_parts

from targets._checkpoints import pickle_words, read_checkpoint


def run(data: bytes, folder: Path) -> None:
    read_checkpoint(data, folder / "legacy.pt")


TARGET = Target(
    run=run,
    seeds=lambda: files("checkpoint", "golden/*-legacy.pt"),
    mutate=swapping_parts,
    words=lambda: [*pickle_words(), b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"M\xe9\x03.", b"ustar"],
    longest=4096,
)
