"""Real files, written by NumPy, read to the last bit."""

import itertools
import zipfile

import numpy as np
import pytest
import torch

import hardpoint as hp
from hardpoint import WeightsError
from hardpoint_numpy.dtypes import BY_CODE

CUBE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
INDICES = (
    (), 0, -1, (1, 2), (1, 2, 3), slice(1, 2), (slice(None), 1), (slice(None), slice(0, 3, 2)),
    (0, slice(1, 3), slice(0, 4, 3)), (slice(2, 1), 0), (slice(None), slice(None), -1),
)  # fmt: skip


def same(tensor, array):
    assert str(tensor.dtype).removeprefix("torch.") == array.dtype.newbyteorder("=").name
    assert tuple(tensor.shape) == array.shape
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).tobytes()
    return tensor.contiguous().numpy().tobytes() == native


def every_array():
    raw = np.arange(256, dtype=np.uint8)
    for code in BY_CODE:
        values = (raw % 2).astype(bool) if code == "b1" else raw.view(f"<{code}")
        for name, array in (
            ("flat", values),
            ("table", values.reshape(4, -1)),
            ("fortran", np.asfortranarray(values.reshape(4, 2, -1))),
            ("big", values.reshape(2, -1).byteswap().view(values.dtype.newbyteorder(">"))),
            ("scalar", values[3]),
            ("empty", values[:0].reshape(0, 3)),
        ):
            yield f"{code}.{name}", np.asarray(array)
        turned = values.reshape(2, -1).byteswap().view(values.dtype.newbyteorder(">"))
        yield f"{code}.big.fortran", np.asfortranarray(turned)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_reads_to_the_last_bit(serializer, tmp_path, save):
    arrays = dict(every_array())
    save(tmp_path / "all.npz", **arrays)
    with serializer.open(tmp_path / "all.npz") as reader:
        assert set(reader) == set(arrays)
        for name, array in arrays.items():
            assert same(reader.tensor(name), array), name


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0), None])
def test_a_single_array_reads_to_the_last_bit(serializer, tmp_path, version):
    path = tmp_path / "one.npy"
    for name, array in every_array():
        with path.open("wb") as file:
            np.lib.format.write_array(file, array, version=version)
        with serializer.open(path) as reader:
            assert list(reader) == ["array"]
            assert same(reader.tensor("array"), array), name


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("place", ["here", "remote"])
def test_slices_are_slices_of_the_whole(serializer, tmp_path, save, place):
    arrays = {
        "c": CUBE,
        "fortran": np.asfortranarray(CUBE),
        "big": CUBE.astype(">f4"),
        "both": np.asfortranarray(CUBE.astype(">f4")),
    }
    save(tmp_path / "a.npz", **arrays)
    opened = hp.open_weights(
        remote(tmp_path / "a.npz") if place == "remote" else tmp_path / "a.npz"
    )
    with opened as reader:
        for name, index in itertools.product(arrays, INDICES):
            assert torch.equal(reader.slice(name, index), torch.from_numpy(CUBE)[index])
        for name in arrays:
            for index in (2, (0, 0, 0, 0), slice(None, None, -1), 1.0, "x"):
                with pytest.raises(WeightsError, match=f"tensor '{name}' of shape"):
                    reader.slice(name, index)


@pytest.mark.parametrize("dtype", [">f4", ">i2", ">c8", ">u8"])
def test_a_slice_of_one_element_is_read_whatever_the_step(serializer, tmp_path, dtype):
    array = np.arange(2).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    with serializer.open(tmp_path / "a.npy") as reader:
        found = reader.slice("array", slice(None, None, 2))
        assert same(found, array[::2])


def remote(path):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe_file(f"/{path.name}", path.read_bytes())
    return f"memory://{path.name}"


def test_what_lies_as_in_memory_has_an_offset_and_the_rest_has_none(serializer, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, c=CUBE, f=np.asfortranarray(CUBE), b=CUBE.astype(">f4"), flat=CUBE.T.ravel("F"))
    with serializer.open(path) as reader:
        places = {name: info.offset for name, info in reader.items()}
        assert places["f"] is None
        assert places["b"] is None
        for name in ("c", "flat"):
            raw = path.read_bytes()[places[name] :][: CUBE.nbytes]
            assert raw == CUBE.tobytes()
            assert reader.source(name).name == str(path)


def test_fortran_order_is_a_transposed_view_of_the_map(serializer, tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(CUBE))
    with serializer.open(tmp_path / "a.npy") as reader:
        tensor = reader.tensor("array")
        assert tensor.stride() == (1, 2, 6)
        assert tensor.data_ptr() == reader.tensor("array").data_ptr()


def test_load_weights_gives_own_memory_of_all_kinds(tmp_path):
    arrays = {"c": CUBE, "f": np.asfortranarray(CUBE), "b": CUBE.astype(">f4")}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        for mode in ("map", "own"):
            loaded = hp.load_weights(tmp_path / "a.npz", mode=mode)
            assert all(torch.equal(loaded[n], torch.from_numpy(CUBE)) for n in arrays)


def test_a_slice_of_a_packed_array_does_not_keep_it_alive(serializer, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros((1000, 1000), np.float32))
    with serializer.open(tmp_path / "a.npz") as reader:
        assert reader.slice("a", 0).untyped_storage().nbytes() == 4000
        assert 0 < reader["a"].nbytes < 100_000


def test_an_archive_written_to_a_pipe_reads(serializer, tmp_path):
    class Pipe:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data)

        def flush(self):
            self.file.flush()

    with (
        (tmp_path / "a.npz").open("wb") as file,
        zipfile.ZipFile(Pipe(file), "w") as archive,
        archive.open("a.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array(member, CUBE)
    with serializer.open(tmp_path / "a.npz") as reader:
        assert torch.equal(reader.tensor("a"), torch.from_numpy(CUBE))


def test_both_formats_are_known_by_content(serializer, tmp_path):
    np.savez(tmp_path / "x.bin", a=CUBE)
    np.save((tmp_path / "y.bin").open("wb"), CUBE)
    np.savez(tmp_path / "none.npz")
    (tmp_path / "none.zip").write_bytes((tmp_path / "none.npz").read_bytes())
    torch.save({"a": torch.ones(2)}, tmp_path / "z.npz")
    known = {p.name: serializer.recognizes(p) for p in tmp_path.iterdir()}
    assert known == {
        "x.bin.npz": True,
        "y.bin": True,
        "none.npz": True,
        "none.zip": False,
        "z.npz": False,
    }
    assert dict(hp.open_weights(tmp_path / "none.npz")) == {}


def test_a_closed_reader_says_so(serializer, tmp_path):
    np.savez(tmp_path / "a.npz", a=CUBE, f=np.asfortranarray(CUBE))
    reader = serializer.open(tmp_path / "a.npz")
    held = reader.tensor("f")
    reader.close()
    reader.close()
    for name in ("a", "f"):
        with pytest.raises(WeightsError, match="the reader is closed"):
            reader.tensor(name)
    assert torch.equal(held, torch.from_numpy(CUBE))


def test_a_remote_array_is_read_where_it_is(tmp_path):
    np.save(tmp_path / "r.npy", CUBE)
    with hp.open_weights(remote(tmp_path / "r.npy")) as reader:
        assert torch.equal(reader.tensor("array"), torch.from_numpy(CUBE))
