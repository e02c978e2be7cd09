"""Damaged checkpoints: a WeightsError, or tensors that are what the reader says of them."""

import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hardpoint import WeightsError
from hardpoint_dcp.serializer import DcpSerializer

GOLDEN = Path(__file__).with_name("golden")
FILES = [
    (name, file)
    for name in ("ranks.dcp", "values.dcp", "shapes.dcp")
    for file in sorted(path.name for path in (GOLDEN / name).iterdir())
]


def read_all(path):
    """Open and read everything; whatever is given must be coherent. The names that there are."""
    with DcpSerializer().open(path) as reader:
        names = set(reader)
        for name in reader:
            for read in (reader.tensor, lambda n: reader.slice(n, ())):
                try:
                    info = reader[name]
                    tensor = read(name)
                except WeightsError:
                    continue
                assert tuple(tensor.shape) == info.shape
                assert str(tensor.dtype) == f"torch.{info.dtype}"
                assert tensor.numel() * tensor.element_size() == info.nbytes < 1 << 20
        assert all(isinstance(text, str) for text in reader.metadata.values())
    return names


def holds(name, file, change):
    """Whether a changed checkpoint is refused, or has the tensors that its metadata, if whole, name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(GOLDEN / name, Path(folder, name)))
        data = bytearray((path / file).read_bytes())
        change(data)
        (path / file).write_bytes(data)
        try:
            names = read_all(path)
        except WeightsError as error:
            assert str(error).isprintable() or "\n" in str(error)
            return True
    return file == ".metadata" or names == read_all(GOLDEN / name)


@pytest.mark.parametrize(("name", "file"), FILES)
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_flipped_bits_do_no_harm(name, file, data):
    def change(raw):
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    assert holds(name, file, change)


@pytest.mark.parametrize(("name", "file"), FILES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_cut_moved_and_overwritten_bytes_do_no_harm(name, file, data):
    def change(raw):
        at, to = (data.draw(st.integers(0, len(raw))) for _ in range(2))
        kind = data.draw(st.sampled_from(["cut", "insert", "giant", "move"]))
        if kind == "cut":
            del raw[min(at, to) : max(at, to)]
        elif kind == "insert":
            raw[at:at] = data.draw(st.binary(max_size=20))
        elif kind == "giant":
            raw[at : at + 8] = b"\xff" * data.draw(st.integers(1, 8))
        else:
            raw[at : at + 40] = raw[to : to + 40]

    assert holds(name, file, change)


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.uint16, torch.bool, torch.int64])


@settings(max_examples=60, deadline=None)
@given(
    tensors=st.dictionaries(st.text(max_size=8), st.tuples(shapes, dtypes), max_size=5),
    metadata=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
)
def test_what_is_saved_is_read_or_was_refused(tensors, metadata):
    state = {name: torch.randint(0, 2, shape).to(dtype) for name, (shape, dtype) in tensors.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.dcp")
        try:
            DcpSerializer().save(state, path, metadata=metadata)
        except WeightsError:
            texts = [*tensors, *metadata, *metadata.values()]
            surrogate = any(0xD800 <= ord(c) < 0xE000 for text in texts for c in text)
            assert surrogate or tensors.keys() & metadata.keys()
            return
        with DcpSerializer().open(path) as reader:
            assert dict(reader.metadata) == metadata
            assert set(reader) == set(state)
            for name, tensor in state.items():
                got = reader.tensor(name)
                assert got.dtype is tensor.dtype
                assert torch.equal(got, tensor)
