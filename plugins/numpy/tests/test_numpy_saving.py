"""Saving: what NumPy reads again, the same bytes each time, and no surprise in what is written."""

import hashlib
import io
import struct
import zipfile

import numpy as np
import pytest
import torch

from hardpoint import WeightsError
from hardpoint_numpy import layout
from hardpoint_numpy.directory import read_members
from hardpoint_numpy.dtypes import BY_TORCH_NAME
from hardpoint_numpy.header import encode_header


def every_tensor():
    raw = torch.arange(256, dtype=torch.uint8)
    for name in BY_TORCH_NAME:
        dtype = getattr(torch, name)
        yield name, (raw % 2).bool() if dtype is torch.bool else raw.view(dtype)
    yield "scalar", torch.tensor(3.5)
    yield "empty", torch.empty(0, 3)
    yield "turned", torch.arange(12.0).reshape(3, 4).t()
    yield "größe/重み", torch.ones(2)
    yield "../odd", torch.ones(1)


def test_numpy_reads_what_we_save(serializer, tmp_path):
    tensors = dict(every_tensor())
    serializer.save(tensors, tmp_path / "a.npz", metadata={"made": "here"})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as loaded:
        assert set(loaded.files) == set(tensors)
        for name, tensor in tensors.items():
            assert loaded[name].tobytes() == tensor.contiguous().numpy().tobytes()
            assert loaded[name].shape == tuple(tensor.shape)
            assert loaded[name].dtype == tensor.numpy().dtype
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.testzip() is None
        assert archive.comment == b'{"made":"here"}'


def test_a_single_array_is_saved_as_numpy_saves_it(serializer, tmp_path):
    for name, tensor in every_tensor():
        serializer.save({"array": tensor}, tmp_path / "a.npy")
        made = io.BytesIO()
        np.save(made, tensor.contiguous().numpy())
        assert (tmp_path / "a.npy").read_bytes() == made.getvalue(), name


def test_every_array_lies_at_a_multiple_of_64(serializer, tmp_path):
    tensors = {f"{'n' * i}": torch.zeros(i, dtype=torch.uint8) for i in range(150)}
    serializer.save(tensors, tmp_path / "a.npz")
    with serializer.open(tmp_path / "a.npz") as reader:
        assert len(reader) == 150
        assert all(info.offset % 64 == 0 for info in reader.values())
    with np.load(tmp_path / "a.npz") as loaded:
        assert sum(len(loaded[name]) for name in loaded.files) == sum(range(150))


def test_the_same_content_has_the_same_bytes(serializer, tmp_path):
    tensors = {f"t{i}": torch.full((i,), i) for i in range(9)}
    metadata = {f"k{i}": str(i) for i in range(9)}
    hashes = set()
    for turn in range(4):
        order = sorted(tensors, key=lambda name: hash((name, turn)))
        path = tmp_path / f"{turn}.npz"
        keys = sorted(metadata, key=lambda key: hash((key, turn)))
        serializer.save(
            {name: tensors[name] for name in order}, path, metadata={k: metadata[k] for k in keys}
        )
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex32]
)
@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_what_numpy_cannot_name_is_refused_with_a_way_out(serializer, tmp_path, dtype, name):
    with pytest.raises(WeightsError) as caught:
        serializer.save({"array": torch.zeros(2, dtype=dtype)}, tmp_path / name)
    message = str(caught.value)
    assert "tensor 'array' cannot be saved\n  provider: serializer:numpy" in message
    assert f"NumPy has no type for {dtype}" in message
    assert "save as safetensors" in message
    assert not list(tmp_path.iterdir())


def test_the_way_out_works(serializer, tmp_path):
    tensor = torch.randn(3, 4).bfloat16()
    serializer.save({"w": tensor.view(torch.uint8)}, tmp_path / "a.npz")
    with serializer.open(tmp_path / "a.npz") as reader:
        assert torch.equal(reader.tensor("w").view(torch.bfloat16), tensor)


@pytest.mark.parametrize(
    ("tensors", "metadata", "words"),
    [
        ({}, None, "holds one tensor, called 'array'"),
        ({"w": torch.ones(1)}, None, "given: ['w']"),
        ({"array": torch.ones(1), "b": torch.ones(1)}, None, "save as .npz, which keeps names"),
        ({"array": torch.ones(1)}, {"k": "v"}, "no place for metadata"),
    ],
)
def test_a_single_array_has_one_name_and_no_metadata(
    serializer, tmp_path, tensors, metadata, words
):
    with pytest.raises(WeightsError) as caught:
        serializer.save(tensors, tmp_path / "a.npy", metadata=metadata)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", 7, "x" * 65_532])
def test_a_name_that_zip_cannot_hold_is_refused(serializer, tmp_path, name):
    with pytest.raises(WeightsError, match="cannot be saved"):
        serializer.save({name: torch.ones(1)}, tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_metadata_has_the_room_of_a_comment(serializer, tmp_path):
    fits = {"k": "x" * 65_000}
    serializer.save({"a": torch.ones(1)}, tmp_path / "a.npz", metadata=fits)
    with serializer.open(tmp_path / "a.npz") as reader:
        assert dict(reader.metadata) == fits
    with pytest.raises(WeightsError, match="at most 65535"):
        serializer.save({}, tmp_path / "a.npz", metadata={"k": "ö" * 65_000})
    with pytest.raises(WeightsError, match="is not text"):
        serializer.save({}, tmp_path / "a.npz", metadata={"k": 1})


def test_metadata_cannot_pass_for_the_end_of_an_archive(serializer, tmp_path):
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0).decode("latin-1")
    serializer.save({"a": torch.ones(1)}, tmp_path / "a.npz", metadata={"k": end, "comment": "c"})
    with serializer.open(tmp_path / "a.npz") as reader:
        assert dict(reader.metadata) == {"k": end, "comment": "c"}
        assert list(reader) == ["a"]


def test_more_members_than_16_bits_count(serializer, tmp_path):
    tensors = {f"{i}": torch.tensor(i % 128, dtype=torch.int8) for i in range(66_000)}
    serializer.save(tensors, tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert len(archive.namelist()) == 66_000
    with serializer.open(tmp_path / "a.npz") as reader:
        assert len(reader) == 66_000
        assert int(reader.tensor("65999")) == 65999 % 128


class Sparse:
    """An archive of 5 GiB of zeros, of which only what is not zero is there."""

    def __init__(self, pieces, size):
        self.name, self.size, self.pieces = "sparse.npz", size, pieces

    def read(self, offset, count):
        assert count < 1 << 20
        made = bytearray(count)
        for at, data in self.pieces:
            low, high = max(at, offset), min(at + len(data), offset + count)
            if low < high:
                made[low - offset : high - offset] = data[low - at : high - at]
        return bytes(made)


def test_sizes_and_places_past_32_bits_are_laid_out_and_read():
    large = 5 << 30
    header = encode_header(BY_TORCH_NAME["uint8"], (large,))
    small = encode_header(BY_TORCH_NAME["int16"], (1,))
    places, end = layout.lay_out([("large", header, large), ("small", small, 2)])
    crcs = {"large": 1, "small": 2}
    pieces = [
        (place.at, layout.local_header(place, crcs[place.name]) + place.header) for place in places
    ]
    tail = layout.directory(places, crcs, end, b"")
    members, _ = read_members(Sparse([*pieces, (end, tail)], end + len(tail)))
    assert [(m.name, m.size, m.begin) for m in members] == [
        ("large.npy", large + len(header), 128),
        ("small.npy", 2 + len(small), places[1].begin),
    ]
    assert places[1].begin > 1 << 32
