"""Real models, written by the format's reference library, read to the last bit."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import hardpoint as hp
from hardpoint import WeightsError
from hardpoint_onnx.dtypes import BY_NUMBER, UNSUPPORTED

CUBE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
INDICES = (
    (), 0, -1, (1, 2), (1, 2, 3), slice(1, 2), (slice(None), 1), (slice(None), slice(0, 3, 2)),
    (0, slice(1, 3), slice(0, 4, 3)), (slice(2, 1), 0), (slice(None), slice(None), -1),
)  # fmt: skip


def model(*initializers, **more):
    graph = helper.make_graph([], "weights", [], [], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], **more)


def named(**arrays):
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


@pytest.fixture
def write(tmp_path):
    def made(*initializers, external="", one_file=True, name="made.onnx", **more):
        path = tmp_path / name
        onnx.save_model(
            model(*initializers, **more),
            path,
            save_as_external_data=bool(external),
            location=external or None,
            all_tensors_to_one_file=one_file,
            size_threshold=0,
        )
        return path

    return made


def bits(tensor):
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist())


def test_every_type_of_the_library_is_decided():
    types = {number: name for name, number in TensorProto.DataType.items() if number}
    assert types == {d.number: d.name for d in BY_NUMBER.values()} | UNSUPPORTED


@pytest.mark.parametrize("number", [n for n in BY_NUMBER if BY_NUMBER[n].packed == 1])
@pytest.mark.parametrize("raw", [False, True])
def test_every_type_reads_to_the_last_bit(serializer, write, number, raw):
    dtype = helper.tensor_dtype_to_np_dtype(number)
    values = np.array([0, 1, 0, 1, 1, 1]).astype(dtype).reshape(2, 3)
    if raw:
        proto = helper.make_tensor("w", number, (2, 3), values.tobytes(), raw=True)
    else:
        proto = helper.make_tensor("w", number, (2, 3), values.flatten().tolist())
    with serializer.open(write(proto)) as reader:
        info = reader["w"]
        assert (info.dtype, info.shape) == (BY_NUMBER[number].torch_name, (2, 3))
        assert bits(reader.tensor("w")) == values.tobytes()


@pytest.mark.parametrize("number", [7, 6, 5, 3])
def test_negative_numbers_in_fields_read(serializer, write, number):
    bounds = torch.iinfo(getattr(torch, BY_NUMBER[number].torch_name))
    proto = helper.make_tensor("w", number, (3,), [bounds.min, -1, bounds.max])
    with serializer.open(write(proto)) as reader:
        assert reader.tensor("w").tolist() == [bounds.min, -1, bounds.max]


@pytest.mark.parametrize("external", ["", "data.bin", "weights/deep/data.bin"])
@pytest.mark.parametrize("place", ["here", "remote"])
def test_slices_are_slices_of_the_whole(tmp_path, write, external, place):
    (tmp_path / "weights/deep").mkdir(parents=True)
    path = write(*named(odd=np.ones(3, np.int8), w=CUBE), external=external)
    with hp.open_weights(remote(tmp_path) if place == "remote" else path) as reader:
        for index in INDICES:
            assert torch.equal(reader.slice("w", index), torch.from_numpy(CUBE)[index])
        for index in (2, (0, 0, 0, 0), slice(None, None, -1), 1.0, "x"):
            with pytest.raises(WeightsError, match="tensor 'w' of shape"):
                reader.slice("w", index)


def remote(folder):
    fsspec = pytest.importorskip("fsspec")
    for path in folder.rglob("*"):
        if path.is_file():
            where = f"/onnx/{path.relative_to(folder)}"
            fsspec.filesystem("memory").pipe_file(where, path.read_bytes())
    return "memory://onnx/made.onnx"


def test_external_data_are_mapped_where_they_lie(serializer, write):
    path = write(*named(a=CUBE, b=np.arange(5)), external="data.bin")
    data = (path.parent / "data.bin").read_bytes()
    with serializer.open(path) as reader:
        info = reader["a"]
        assert info.file == str(path.parent / "data.bin")
        assert data[info.offset :][: info.nbytes] == CUBE.tobytes()
        assert reader.source("a") is reader.source("b")
        assert reader.tensor("a").data_ptr() == reader.tensor("a").data_ptr()
        kept = reader.tensor("b")
    assert kept.tolist() == [0, 1, 2, 3, 4]


def test_a_file_for_each_tensor_keeps_none_open(serializer, write):
    path = write(*named(**{f"w{i}": CUBE + i for i in range(30)}), external="x", one_file=False)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with serializer.open(path) as reader:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
        assert all(reader.tensor(f"w{i}")[0, 0, 0] == i for i in range(30))


def test_a_cache_made_of_links_reads(serializer, write, tmp_path):
    path = write(*named(w=CUBE), external="data.bin")
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots/abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name in (path.name, "data.bin"):
        (path.parent / name).rename(blobs / f"hash-of-{name}")
        (snapshot / name).symlink_to(f"../../blobs/hash-of-{name}")
    with serializer.open(snapshot / path.name) as reader:
        assert torch.equal(reader.tensor("w"), torch.from_numpy(CUBE))


def test_load_weights_gives_all_of_them(write):
    path = write(*named(w=CUBE, b=np.arange(5)), external="data.bin")
    for mode in ("map", "own"):
        loaded = hp.load_weights(path, mode=mode)
        assert torch.equal(loaded["w"], torch.from_numpy(CUBE))
        assert loaded["b"].tolist() == [0, 1, 2, 3, 4]


def test_external_data_that_change_after_opening_are_refused(serializer, write):
    path = write(*named(w=CUBE), external="data.bin")
    with serializer.open(path) as reader:
        (path.parent / "data.bin").write_bytes(bytes(8))
        with pytest.raises(WeightsError, match="changed while the model was open"):
            reader.tensor("w")


def test_a_model_that_torch_exports_reads_as_its_state_dict():
    golden = Path(__file__).parent / "golden/exported.onnx"
    assert set(hp.load_weights(golden)) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_metadata_are_those_of_the_model(serializer, write):
    path = write(*named(w=CUBE))
    made = onnx.load(path)
    helper.set_model_props(made, {"k": "größe", "empty": ""})
    onnx.save(made, path)
    with serializer.open(path) as reader:
        assert dict(reader.metadata) == {"k": "größe", "empty": ""}


def test_float4_is_packed_as_pytorch_packs_it(serializer, write):
    proto = helper.make_tensor("w", TensorProto.FLOAT4E2M1, (2, 4), [0.5, 1, -2, 6, 0, 1, 1, 1])
    with serializer.open(write(proto)) as reader:
        assert reader["w"].shape == (2, 2)
        assert bits(reader.tensor("w")) == bytes([0x21, 0x7C, 0x20, 0x22])


def test_models_are_known_by_content(serializer, write, tmp_path):
    path = write(*named(w=CUBE))
    whole = path.read_bytes()
    (tmp_path / "short").write_bytes(whole[:100])
    (tmp_path / "tensor").write_bytes(named(w=CUBE)[0].SerializeToString())
    (tmp_path / "graph").write_bytes(onnx.load(path).graph.SerializeToString())
    (tmp_path / "none").write_bytes(b"")
    known = {each.name: serializer.recognizes(each) for each in tmp_path.iterdir()}
    expected = {"short": True, "tensor": False, "graph": False, "none": False, path.name: True}
    assert known == expected


def test_saving_says_what_to_do_instead(serializer, tmp_path):
    with pytest.raises(WeightsError) as caught:
        serializer.save({"a": torch.ones(1)}, tmp_path / "a.onnx")
    assert "torch.onnx.export" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_without_the_library_it_says_what_to_install(serializer, write, monkeypatch):
    path = write(*named(w=CUBE))
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(WeightsError, match="remedy: pip install onnx"):
        serializer.open(path)


def test_a_closed_reader_says_so(serializer, write):
    reader = serializer.open(write(*named(w=CUBE), external="data.bin"))
    reader.close()
    reader.close()
    with pytest.raises(WeightsError, match="the reader is closed"):
        reader.tensor("w")
