"""A ``.npy`` file; where NumPy reads it too, the values must be equal."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from invariants import Tensors, demand, raw, read_file
from target import Target, files

from hardpoint_numpy.serializer import NumpySerializer

_SERIALIZER = NumpySerializer()


def run(data: bytes, folder: Path) -> None:
    path = folder / "one.npy"
    path.write_bytes(data)
    compare(data, read_file(_SERIALIZER, path))


def compare(data: bytes, ours: Tensors | None) -> None:
    """Hold an array that we read to what NumPy makes of it."""
    if ours is None:
        return
    try:
        theirs = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception:  # it knows fewer dtypes, and refuses long headers: no verdict
        return
    if theirs.dtype.kind == "V":  # dtypes that NumPy has no word for, such as bfloat16
        return
    [tensor] = ours.values()
    demand(tuple(tensor.shape) == theirs.shape, "NumPy finds another shape")
    little = theirs.astype(theirs.dtype.newbyteorder("<"))
    demand(raw(tensor) == np.ascontiguousarray(little).tobytes(), "NumPy reads other values")


def seeds() -> Iterator[bytes]:
    yield from files("numpy", "golden/*.npy", "hostile/*.npy")
    for array in (
        np.arange(6, dtype=">i2").reshape(2, 3).T,
        np.arange(2, dtype=">f4"),
        np.zeros((), "?"),
        np.ones((2, 0), "c8"),
    ):
        buffer = io.BytesIO()
        np.save(buffer, array)
        yield buffer.getvalue()


def words() -> Iterator[bytes]:
    for text in ("descr", "fortran_order", "shape", "<f4", ">f8", "|b1", "<V2", "|O", "<U3"):
        yield f"'{text}'".encode()
    yield from (
        b"True",
        b"False",
        b"(2, 3)",
        b"(4,)",
        b"()",
        b"\x93NUMPY\1\0",
        b"\x93NUMPY\2\0",
        b"\x93NUMPY\3\0",
    )
    yield from (b"9223372036854775807", b"0x10", b"1_0", b"2L", b"**", b"__import__('os')")


TARGET = Target(run=run, seeds=seeds, words=words, longest=1024)
