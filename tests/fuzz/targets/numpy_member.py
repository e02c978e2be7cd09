"""The content of a ``.npz`` member, once stored and once deflated: both must be the same tensor."""

from pathlib import Path

from invariants import demand, read_file, same
from target import Target
from wrapped import archive

from hardpoint_numpy.serializer import NumpySerializer
from targets import numpy_npy

_SERIALIZER = NumpySerializer()


def run(data: bytes, folder: Path) -> None:
    found = {}
    for form, packed in (("stored", frozenset[str]()), ("packed", frozenset({"a.npy"}))):
        path = folder / f"{form}.npz"
        path.write_bytes(archive({"a.npy": data}, packed=packed))
        found[form] = read_file(_SERIALIZER, path)
    stored, packed_ = found["stored"], found["packed"]
    if stored is None or packed_ is None:
        demand(stored is packed_, "one of the same bytes stored and packed is refused")
        return
    demand(same(stored["a"], packed_["a"]), "stored and packed are other tensors")
    numpy_npy.compare(data, stored)


TARGET = Target(run=run, seeds=numpy_npy.seeds, words=numpy_npy.words, longest=1024)
