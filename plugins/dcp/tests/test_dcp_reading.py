"""Checkpoints that torch saved: read bit for bit, and no more of them than is asked for."""

import os
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given, settings, strategies as st

import hardpoint as hp
from hardpoint.storage.source import LocalFile
from hardpoint_dcp.dtypes import ITEMSIZE
from hardpoint_dcp.serializer import DcpSerializer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
RANKS = Path(__file__).with_name("dcp_two_ranks.py")
GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """(directory, expected tensors) that two real ranks saved under FSDP2."""
    folder = tmp_path_factory.mktemp("ranks")
    both = [
        subprocess.Popen(
            [sys.executable, str(RANKS), str(rank), str(folder / "store"), str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = [rank.communicate(timeout=100)[0] for rank in both]
    assert [rank.returncode for rank in both] == [0, 0], "\n".join(said)[-4000:]
    return folder / "ranks", torch.load(folder / "expected.pt", weights_only=True)


def test_what_two_ranks_saved_is_read_bit_for_bit(ranks, serializer):
    path, expected = ranks
    with serializer.open(path) as reader:
        assert set(reader) == set(expected)
        assert dict(reader.metadata) == {"step": "3"}
        for name, tensor in expected.items():
            assert reader[name].shape == tuple(tensor.shape)
            assert torch.equal(reader.tensor(name), tensor)
        assert reader["columns"].offset is None
        assert reader["columns"].nbytes == 280
        assert reader.source("columns") is None
        assert reader["one"].offset is not None  # the other rank's shard is empty


def test_every_way_to_load_gives_the_same(ranks):
    path, expected = ranks
    for mode in ("map", "own"):
        loaded = hp.load_weights(path, mode=mode)
        assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_slices_across_chunks_are_slices_of_the_whole(data):
    ints = st.integers(-8, 8)
    one = ints | st.builds(slice, st.none() | ints, st.none() | ints, st.none() | st.integers(1, 3))
    index = tuple(data.draw(st.lists(one, max_size=2)))
    name = data.draw(st.sampled_from(["rows", "columns", "uneven", "one", "replicated"]))
    with DcpSerializer().open(GOLDEN / "ranks.dcp") as reader:
        whole = reader.tensor(name)
        try:
            expected = whole[index]
        except IndexError:
            with pytest.raises(hp.WeightsError, match="has no slice"):
                reader.slice(name, index)
            return
        assert torch.equal(reader.slice(name, index), expected)


def test_only_chunks_that_a_slice_touches_are_read(tmp_path, serializer):
    path = shutil.copytree(GOLDEN / "ranks.dcp", tmp_path / "ranks.dcp")
    with serializer.open(path) as reader:
        whole = reader.tensor("rows").clone()
    # The second rank's file is now rubbish of the same size.
    other = path / "__1_0.distcp"
    other.write_bytes(bytes(other.stat().st_size))
    with serializer.open(path) as reader:
        assert torch.equal(reader.slice("rows", slice(0, 4)), whole[:4])
        with pytest.raises(hp.WeightsError, match="does not end as a zip does"):
            reader.slice("rows", slice(3, 5))


def test_a_run_of_a_chunk_is_read_and_no_byte_more(tmp_path, serializer, monkeypatch):
    big = torch.arange(1_000_000.0).reshape(1000, 1000)
    serializer.save({"w": big}, tmp_path / "big.dcp")
    assert serializer.open(tmp_path / "big.dcp")["w"].offset % 64 == 0
    read = []
    original = LocalFile.read_into
    monkeypatch.setattr(
        LocalFile, "read_into", lambda s, at, b: (read.append(len(b)), original(s, at, b))[1]
    )
    got = hp.load_weights(tmp_path / "big.dcp", mode="own", slices={"w": slice(5, 15)})
    assert torch.equal(got["w"], big[5:15])
    assert 40_000 <= sum(read) < 60_000


def test_every_dtype_is_read_bit_for_bit(saved, serializer):
    raw = torch.arange(256, dtype=torch.uint8)
    state = {
        name: (raw % 2).bool() if name == "bool" else raw.view(getattr(torch, name))
        for name in ITEMSIZE
    }
    with serializer.open(saved(state)) as reader:
        for name, tensor in state.items():
            got = reader.tensor(name)
            assert got.dtype is tensor.dtype
            assert torch.equal(got.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(3, 4).t(),
        torch.arange(120.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.arange(12.0)[::5],
        torch.arange(12.0).reshape(3, 4)[:, 1:3],
        torch.ones(1).expand(5),
        torch.nn.Parameter(torch.arange(3.0)),
        torch.empty(3, 0, 2),
        torch.tensor(5),
        torch.arange(6.0).reshape(1, 6)[:, ::2],
    ],
    ids=["transposed", "channels-last", "strided", "columns", "expanded", "parameter", "empty",
         "scalar", "row"],
)  # fmt: skip
def test_every_layout_is_read_as_it_was(saved, serializer, tensor):
    with serializer.open(saved({"t": tensor})) as reader:
        got = reader.tensor("t")
        assert got.shape == tensor.shape
        assert torch.equal(got, tensor)
        assert reader["t"].shape == tuple(tensor.shape)
        if tensor.dim() > 1 and tensor.numel():
            assert torch.equal(reader.slice("t", (slice(None), 1)), tensor[:, 1])
    assert torch.equal(hp.load_weights(saved({"t": tensor}), mode="own")["t"], tensor)


def test_values_are_json_text_and_text_is_itself(saved, serializer):
    values = {
        "step": 3, "lr": 0.1, "none": None, "yes": True, "text": "größe", "betas": (0.9, 0.95),
        "opts": {"a": {"2": None}}, "big": 1 << 100,
    }  # fmt: skip
    with serializer.open(saved({**values, "w": torch.ones(1)})) as reader:
        assert list(reader) == ["w"]
        assert dict(reader.metadata) == {
            "step": "3", "lr": "0.1", "none": "null", "yes": "true", "text": "größe",
            "betas": "[0.9, 0.95]", "opts.a.2": "null", "big": str(1 << 100),
        }  # fmt: skip


def test_nested_values_are_json_text_too(tmp_path, serializer):
    state = {"opts": OrderedDict(a=[1, {"2": None, 3: ((), "ö")}])}
    planner = dcp.DefaultSavePlanner(flatten_state_dict=False)
    dcp.save(state, checkpoint_id=tmp_path / "d", planner=planner, no_dist=True)
    with serializer.open(tmp_path / "d") as reader:
        assert reader.metadata["opts"] == '{"a": [1, {"2": null, "3": [[], "ö"]}]}'


@pytest.mark.parametrize("value", [{1, 2}, torch.float32, b"bytes", float("nan"), slice(1)])
def test_a_value_that_is_not_plain_is_named_and_the_tensors_are_read(saved, serializer, value):
    path = saved({"odd": value, "w": torch.ones(1)})
    with serializer.open(path) as reader:
        assert torch.equal(reader.tensor("w"), torch.ones(1))
        with pytest.raises(hp.WeightsError) as error:
            _ = reader.metadata
    assert "the value 'odd' is no plain one, and was not unpickled" in str(error.value)
    assert "its tensors can be read" in str(error.value)


def test_a_state_of_nothing_is_read(saved, serializer):
    with serializer.open(saved({})) as reader:
        assert len(reader) == 0
        assert dict(reader.metadata) == {}


def test_it_is_opened_by_its_metadata_too(saved, serializer):
    path = saved({"w": torch.ones(3)})
    assert serializer.recognizes(path)
    assert serializer.recognizes(path / ".metadata")
    with hp.open_weights(path / ".metadata") as reader:
        assert torch.equal(reader.tensor("w"), torch.ones(3))


def test_other_folders_and_files_are_not_recognized(tmp_path, serializer):
    assert not serializer.recognizes(tmp_path)
    assert not serializer.recognizes(tmp_path / "missing")
    (tmp_path / ".metadata").write_bytes(b"\x80\x04N.")
    assert not serializer.recognizes(tmp_path)


def test_tensors_outlive_their_reader_and_a_closed_reader_says_so(saved, serializer):
    reader = serializer.open(saved({"w": torch.ones(3)}))
    tensor = reader.tensor("w")
    reader.close()
    reader.close()
    assert torch.equal(tensor, torch.ones(3))
    with pytest.raises(hp.WeightsError, match="the reader is closed"):
        reader.tensor("w")


def test_a_name_that_is_not_there_suggests_one(saved, serializer):
    with serializer.open(saved({"weight": torch.ones(3)})) as reader:
        with pytest.raises(hp.WeightsError, match="did you mean 'weight'"):
            reader.tensor("wieght")
        with pytest.raises(KeyError):
            reader["wieght"]


def test_more_files_than_are_kept_open_are_read(tmp_path, serializer, monkeypatch):
    monkeypatch.setattr("hardpoint_dcp.files._MOST_OPEN", 2)
    state = {f"t{i}": torch.full((4,), float(i)) for i in range(9)}
    writer = dcp.FileSystemWriter(tmp_path / "many", single_file_per_rank=False)
    dcp.save(state, storage_writer=writer, no_dist=True)
    assert len(list((tmp_path / "many").glob("*.distcp"))) == 9
    with serializer.open(tmp_path / "many") as reader:
        for _ in range(2):
            assert all(torch.equal(reader.tensor(name), t) for name, t in state.items())


def test_a_checkpoint_that_was_replaced_while_open_says_so(tmp_path, serializer, monkeypatch):
    monkeypatch.setattr("hardpoint_dcp.files._MOST_OPEN", 0)
    serializer.save({"w": torch.ones(3)}, tmp_path / "w.dcp")
    with serializer.open(tmp_path / "w.dcp") as reader:
        serializer.save({"w": torch.zeros(3)}, tmp_path / "w.dcp")
        with pytest.raises(hp.WeightsError, match="replaced while it was open"):
            reader.tensor("w")


def test_a_checkpoint_behind_a_url_is_read_by_ranges(saved):
    pytest.importorskip("fsspec")
    path = saved({"w": torch.arange(6.0)})
    with hp.open_weights(f"file://{path}/.metadata") as reader:
        assert torch.equal(reader.tensor("w"), torch.arange(6.0))
