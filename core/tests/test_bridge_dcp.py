"""``hardpoint.bridges.dcp``: DCP saves and loads through serializers, from and to any ranks."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata

import hardpoint as hp
from hardpoint.bridges.dcp import Reader, Writer
from hardpoint.bridges.dcp_index import NAME, Index
from hardpoint.bridges.dcp_values import decode, encode
from hardpoint.bridges.dcp_write import _index_of

RANKS = Path(__file__).with_name("dcp_ranks.py")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def run_ranks(world, folder, action):
    """All ranks at once; each must end well. What each said."""
    store = folder / f"store-{world}-{action}"
    command = [sys.executable, str(RANKS)]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(world), str(store), str(folder), action],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(world)
    ]  # fmt: skip
    said = [rank.communicate(timeout=100)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * world, "\n".join(said)[-4000:]
    return said


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What two ranks saved: FSDP2 with its optimizer, DTensors, values; in four ways."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(2, folder, "save")
    return folder


@pytest.mark.parametrize("world", [1, 3])
def test_another_number_of_ranks_loads_what_two_saved_bit_for_bit(saved, world):
    said = run_ranks(world, saved, "load")
    expected = torch.load(saved / "expected.pt", weights_only=True)
    # Three ways to read the whole, and one that reads a part.
    count = 3 * leaves(expected) + leaves(expected["placed"])
    assert [each.splitlines()[-1] for each in said] == [f"{count} values are equal"] * world


def leaves(tree):
    return sum(map(leaves, tree.values())) if isinstance(tree, dict) else 1


def test_each_rank_wrote_one_file_and_nothing_is_a_pickle(saved):
    names = sorted(path.name for path in (saved / "safetensors").iterdir())
    assert names[0] == NAME
    assert [name[:11] for name in names[1:]] == ["shard-00000", "shard-00001"]
    for path in (saved / "safetensors").glob("*.safetensors"):
        assert path.read_bytes()[8:9] == b"{"
    index = Index.read(saved / "safetensors")
    rows = index.tensors["placed.rows"]
    assert [piece.box for piece in rows.pieces] == [((0, 0), (4, 5)), ((4, 0), (3, 5))]
    assert len({piece.file for piece in rows.pieces}) == 2


def test_an_async_save_after_another_leaves_only_its_own_files(saved):
    index = Index.read(saved / "background")
    assert {p.name for p in (saved / "background").iterdir()} == {NAME, *index.files}
    assert index.values["step"] == 7


@pytest.fixture
def state():
    return {
        "w": torch.arange(12.0).reshape(4, 3),
        "t": torch.arange(6.0).reshape(2, 3).t(),
        "nothing": torch.empty(0, 3),
        "scalar": torch.tensor(3, dtype=torch.int16),
        "deep": {"list": [torch.ones(2), 5], "step": 3, "text": "größe"},
    }


def emptied(state):
    if isinstance(state, dict):
        return {key: emptied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [emptied(value) for value in state]
    return torch.zeros_like(state) if torch.is_tensor(state) else None


def save(state, path, **options):
    dcp.save(state, storage_writer=Writer(path, **options), no_dist=True)


def load(state, path, **options):
    got = emptied(state)
    dcp.load(got, storage_reader=Reader(path, **options), no_dist=True)
    return got


@pytest.mark.parametrize("format_", ["safetensors", "dcp"])
def test_one_process_saves_and_loads_without_ranks(tmp_path, state, format_):
    save(state, tmp_path / "new" / "step", format=format_)
    got = load(state, tmp_path / "new" / "step")
    for name in ("w", "t", "nothing", "scalar"):
        assert got[name].dtype == state[name].dtype
        assert torch.equal(got[name], state[name])
    assert torch.equal(got["deep"]["list"][0], torch.ones(2))
    assert got["deep"]["list"][1] == 5
    assert got["deep"]["step"] == 3
    assert got["deep"]["text"] == "größe"


def test_the_file_of_one_process_is_a_plain_one(tmp_path, state):
    save(state, tmp_path)
    (file,) = Index.read(tmp_path).files
    with hp.open_weights(tmp_path / file) as reader:
        assert torch.equal(reader.tensor("w"), state["w"])


def test_any_weights_that_hardpoint_opens_can_be_loaded(tmp_path):
    tensors = {"w": torch.arange(12.0).reshape(4, 3)}
    hp.save_weights(tensors, tmp_path / "plain.safetensors")
    assert torch.equal(load(tensors, tmp_path / "plain.safetensors")["w"], tensors["w"])
    dcp.save({**tensors, "step": 3}, checkpoint_id=tmp_path / "torchs", no_dist=True)
    assert torch.equal(load(tensors, tmp_path / "torchs")["w"], tensors["w"])


def test_a_dtype_that_differs_is_converted_as_torch_does(tmp_path):
    save({"w": torch.arange(3.0)}, tmp_path)
    got = {"w": torch.zeros(3, dtype=torch.float64)}
    dcp.load(got, storage_reader=Reader(tmp_path), no_dist=True)
    assert got["w"].tolist() == [0, 1, 2]


def test_a_part_of_a_state_can_be_loaded(tmp_path, state):
    save(state, tmp_path)
    got = load({"w": state["w"]}, tmp_path)
    assert torch.equal(got["w"], state["w"])


def test_only_the_slices_asked_for_are_read(tmp_path, monkeypatch):
    from hardpoint.storage.source import LocalFile

    save({"w": torch.arange(1_000_000.0).reshape(1000, 1000)}, tmp_path)
    mesh_like = {"w": torch.zeros(1000, 1000)}
    read = []
    original = LocalFile.read_into
    monkeypatch.setattr(
        LocalFile, "read_into", lambda s, at, b: (read.append(len(b)), original(s, at, b))[1]
    )

    class TenRows(dcp.DefaultLoadPlanner):
        def create_local_plan(self):
            (item,) = super().create_local_plan().items
            from dataclasses import replace

            part = replace(
                item,
                dest_offsets=torch.Size([5, 0]),
                storage_offsets=torch.Size([5, 0]),
                lengths=torch.Size([10, 1000]),
            )
            return dcp.LoadPlan([part])

    dcp.load(mesh_like, storage_reader=Reader(tmp_path), planner=TenRows(), no_dist=True)
    assert mesh_like["w"][5:15].equal(torch.arange(5000.0, 15000.0).reshape(10, 1000))
    assert not mesh_like["w"][15:].any()
    assert 40_000 <= sum(read) < 42_000


def test_async_save_works_without_ranks(tmp_path, state):
    dcp.async_save(state, storage_writer=Writer(tmp_path)).result()
    assert torch.equal(load(state, tmp_path)["w"], state["w"])


# --- what goes wrong


def message(error):
    return str(error.value)


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, torch.float32, 1 << 70])
def test_values_that_are_not_plain_are_refused_by_name(tmp_path, value):
    with pytest.raises(dcp.CheckpointException) as error:
        save({"w": torch.ones(1), "odd": [value]}, tmp_path)
    assert "'odd' cannot be saved" in message(error)
    assert "saved as JSON, never pickled" in message(error)
    assert not (tmp_path / NAME).exists()


def test_keys_that_are_neither_text_nor_numbers_are_refused():
    metadata = Metadata({}, planner_data={"w": ("w", (1, 2))})
    with pytest.raises(hp.WeightsError, match="neither text nor a number"):
        _index_of(metadata, [], "safetensors")


def test_saving_without_collectives_is_refused(tmp_path):
    with pytest.raises(hp.ConfigError, match="use_collectives=True"):
        dcp.save(
            {"w": torch.ones(1)}, storage_writer=Writer(tmp_path), no_dist=True,
            use_collectives=False,
        )  # fmt: skip


def test_loading_from_nothing_says_so(tmp_path):
    with pytest.raises(dcp.CheckpointException, match=r"no installed serializer reads"):
        load({"w": torch.ones(1)}, tmp_path)


def test_a_missing_shard_is_named(tmp_path, state):
    save(state, tmp_path)
    (file,) = Index.read(tmp_path).files
    (tmp_path / file).unlink()
    with pytest.raises(dcp.CheckpointException, match=f"there is no file .*{file}"):
        load(state, tmp_path)


def test_a_shard_that_is_not_what_the_index_says_is_refused(tmp_path, state):
    save(state, tmp_path)
    (file,) = Index.read(tmp_path).files
    hp.save_weights({"w": torch.zeros(4, 4)}, tmp_path / file)
    with pytest.raises(dcp.CheckpointException) as error:
        load({"w": torch.ones(4, 3)}, tmp_path)
    assert "does not hold what the index says of 'w'" in message(error)
    assert "float32 (4, 3) is announced, and it holds float32 (4, 4)" in message(error)


@pytest.mark.parametrize("format_", ["safetensors", "dcp"])
def test_a_save_that_is_killed_leaves_the_one_before(tmp_path, format_):
    """Killed when the files are written and the index is not."""
    first = {"w": torch.arange(3.0)}
    save(first, tmp_path, format=format_)
    code = (
        "import os, sys, torch, torch.distributed.checkpoint as dcp\n"
        "from hardpoint.bridges.dcp import Writer\n"
        "class Dies(Writer):\n"
        "    def finish(self, metadata, results):\n"
        "        os.kill(os.getpid(), 9)\n"
        "dcp.save({'w': torch.zeros(9)}, storage_writer=Dies(sys.argv[1], sys.argv[2]), no_dist=True)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path), format_], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 3
    assert torch.equal(load(first, tmp_path)["w"], first["w"])
    save(first, tmp_path, format=format_)  # sweeps what the dead one left
    assert len(list(tmp_path.iterdir())) == 2


def test_an_index_never_names_a_file_that_is_gone(tmp_path):
    class Loses(Writer):
        def finish(self, metadata, results):
            for path in self.path.glob("shard-*"):
                path.unlink()
            super().finish(metadata, results)

    with pytest.raises(dcp.CheckpointException, match="the save is not whole"):
        dcp.save({"w": torch.ones(1)}, storage_writer=Loses(tmp_path), no_dist=True)
    assert not (tmp_path / NAME).exists()


def index_of(tmp_path, **changes):
    save({"w": torch.arange(12.0).reshape(4, 3), "step": 3}, tmp_path)
    top = json.loads((tmp_path / NAME).read_text())
    top["tensors"]["w"].update({k: v for k, v in changes.items() if k in top["tensors"]["w"]})
    top.update({k: v for k, v in changes.items() if k in top})
    return top


FILE = "shard-00000-0000000000000000.safetensors"


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"format": "other"}, "it is no hardpoint.dcp"),
        ({"version": 2}, "its version is 2"),
        ({"serializer": 3}, "does not name the serializer"),
        ({"dtype": "float31"}, "has dtype 'float31'"),
        ({"dtype": "nn"}, "has dtype 'nn'"),
        ({"shape": [4, -3]}, "are no sizes"),
        ({"shape": [4, 1 << 62]}, "larger than any memory"),
        ({"shape": [5, 3]}, "overlap or leave a gap"),
        ({"chunks": []}, "overlap or leave a gap"),
        ({"chunks": [[[0, 0], [4, 3], FILE, "w"]] * 2}, "overlap or leave a gap"),
        ({"chunks": [[[1, 0], [4, 3], FILE, "w"]]}, "lies outside the shape"),
        ({"chunks": [[[0], [4], FILE, "w"]]}, "another number of dimensions"),
        ({"chunks": [[[0, 0], [4, 3], "../x", "w"]]}, "no file right beside"),
        ({"chunks": [[[0, 0], [4, 3], "/etc/passwd", "w"]]}, "no file right beside"),
        ({"chunks": [[[0, 0], [4, 3], "..", "w"]]}, "no file right beside"),
        ({"chunks": [[[0, 0], [4, 3], FILE, 1]]}, "no file right beside"),
        ({"chunks": 3}, "are no list"),
        ({"values": {"w": 1}}, "a tensor and a value of one name"),
        ({"values": {"v": {"float": "1"}}}, "is no value"),
        ({"values": {"v": {"dict": [[[1], 2]]}}}, "no plain one"),
        ({"paths": {"w": 3}}, "is no path"),
        ({"tensors": []}, "are no objects"),
    ],
)
def test_a_hostile_index_is_refused(tmp_path, changes, cause):
    top = index_of(tmp_path, **changes)
    (tmp_path / NAME).write_text(json.dumps(top))
    with pytest.raises(hp.WeightsError, match="the index is broken") as error:
        Index.read(tmp_path)
    assert cause in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a":1,"a":2}', "[" * 100_000, "\udcff", "NaN"])
def test_an_index_that_is_no_json_is_refused(tmp_path, text):
    (tmp_path / NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(hp.WeightsError, match="the index is broken"):
        Index.read(tmp_path)


@pytest.mark.parametrize(
    "value",
    [None, True, 3, -(1 << 63), 0.1, float("-inf"), "", "größe", [], (), {}, (1, [2, {"a": (3,)}]),
     {1: "int", "1": "text", None: 0}, {"tuple": [1]}],
)  # fmt: skip
def test_values_come_back_exactly(value):
    got = decode(json.loads(json.dumps(encode(value))))
    assert type(got) is type(value)
    assert got == value


@pytest.mark.parametrize("value", [1 << 63, [-(1 << 63) - 1], {"tuple": [1 << 70]}])
def test_a_whole_number_that_no_value_holds_is_refused(value):
    with pytest.raises(ValueError, match="a whole number has more than 64 bits"):
        decode(value)


def test_a_value_that_holds_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(ValueError, match="nested deeper"):
        encode(value)
