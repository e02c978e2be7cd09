"""A parser that is wrong on purpose: a fuzzer that finds nothing here is broken itself."""

from __future__ import annotations

import ctypes
import importlib
import time
from pathlib import Path

import torch

from hardpoint import Index, WeightsError
from hardpoint.interfaces.serializer import TensorInfo
from hardpoint.storage.refusal import Refusal
from hardpoint.storage.source import LocalFile
from hardpoint.storage.table import TableReader

_REFUSE = Refusal("planted", "hardpoint")
_HELD: list[object] = []


def guarded(data: bytes) -> None:
    """One byte at a time: only guidance gets to the end."""
    if len(data) < 4 or data[0] != ord("h"):
        return
    if data[1] != ord("p"):
        return
    if data[2] != ord("F"):
        return
    if data[3] == ord("!"):
        raise IndexError("deep within")


def open_planted(path: Path) -> TableReader:
    """One tensor of the bytes after the fourth; the first ones say what goes wrong."""
    data = path.read_bytes()
    for fault, plant in _FAULTS.items():
        if data.startswith(fault):
            plant(path)
    if len(data) < 4:
        raise _REFUSE(path, "too short", "a cause")
    table = {"w": TensorInfo("w", "uint8", (len(data) - 4,), len(data) - 4, str(path), 4)}
    return (_Wrong if data[:4] == b"slic" else TableReader)(LocalFile(path), table, refuse=_REFUSE)


class _Wrong(TableReader):
    """Its slices are of another place."""

    def slice(self, name: str, index: Index) -> torch.Tensor:
        found = super().slice(name, index)
        return found if index == () else found + 1


def _slow(path: Path) -> None:
    end = time.process_time() + 3.2
    while time.process_time() < end:
        pass


def _swallowed(path: Path) -> None:
    try:
        importlib.import_module("antigravity")
    except OSError:  # as parsers do that expect files to be missing
        return


def _unprintable(path: Path) -> None:
    raise _REFUSE(path, "refused", "\x1b[2J")


def _silent(path: Path) -> None:
    raise WeightsError(f"{path}: no")


_FAULTS = {
    b"exec": lambda path: exec("1"),
    b"open": lambda path: Path("/etc/hostname").read_bytes(),
    b"save": lambda path: path.with_name("new").write_bytes(b"x"),
    b"impo": _swallowed,
    b"slow": _slow,
    b"larg": lambda path: _HELD.append(bytearray(b"x") * (300 << 20)),
    b"cont": _unprintable,
    b"quie": _silent,
    b"segv": lambda path: ctypes.string_at(1),
}
