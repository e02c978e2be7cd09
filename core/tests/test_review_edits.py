"""What a review found in cutting, converting and reading past the cache."""

import os
import sys

import pytest
import torch

import hardpoint as hp
from hardpoint.storage import direct
from hardpoint.storage.direct import DirectFile
from hardpoint.storage.source import LocalFile
from hardpoint.weights import convert_weights

REGISTRY = hp.default_registry()
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads past the cache are Linux's")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.safetensors"
    hp.save_weights({f"t{i}": torch.full((1000,), float(i)) for i in range(4)}, path)
    return path


@linux
def test_forked_children_read_into_memory_of_their_own(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(b"".join(bytes([i]) * 4096 for i in range(200)))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        opened = DirectFile(descriptor)
    except OSError as error:
        pytest.skip(f"this file system has no reads past the cache: {error}")
    opened.read_into(1, memoryview(bytearray(100)))  # the scratch exists before the fork
    children = []
    for first in (0, 100):
        child = os.fork()
        if child == 0:
            good = True
            for _ in range(30):
                for block in range(first, first + 100):
                    found = bytearray(2000)
                    opened.read_into(block * 4096 + 7, memoryview(found))
                    good &= found == bytes([block]) * 2000
            os._exit(0 if good else 1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]


@linux
def test_a_thread_that_learns_late_that_there_are_no_such_reads_reads_plainly(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(direct, "WORTH", 1)
    path = tmp_path / "bytes"
    path.write_bytes(os.urandom(2 << 20))
    source = LocalFile(path)

    def is_cached(descriptor, offset, nbytes):
        source._past_cache = False  # what another thread has found meanwhile
        return False

    monkeypatch.setattr(direct, "is_cached", is_cached)
    found = bytearray(2 << 20)
    source.read_into(0, memoryview(found))
    assert found == path.read_bytes()


def test_a_source_that_is_written_to_meanwhile_makes_no_file(file, tmp_path):
    goal = tmp_path / "b.safetensors"

    def meddle(done, total, name):
        if name == "t1":
            with file.open("r+b") as opened:
                opened.seek(-100, 2)
                opened.write(bytes(100))
            os.utime(file, ns=(1, 1))

    with pytest.raises(hp.WeightsError, match="changed while it was open"):
        convert_weights(file, goal, registry=REGISTRY, progress=meddle)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_what_takes_the_name_meanwhile_is_not_replaced(file, tmp_path):
    goal = tmp_path / "b.safetensors"
    with pytest.raises(hp.WeightsError, match="exists"):
        convert_weights(
            file, goal, registry=REGISTRY, progress=lambda *_: goal.write_text("precious")
        )
    assert goal.read_text() == "precious"


def test_a_directory_that_is_called_like_a_shard_is_not_taken_for_one(file, tmp_path):
    mine = tmp_path / "set" / "model-00001-of-00009.safetensors"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(hp.WeightsError, match="holds other things than a set"):
        convert_weights(file, tmp_path / "set", registry=REGISTRY, shard_size=1 << 20, force=True)
    assert (mine / "thesis.txt").read_text() == "mine"


def test_what_is_put_into_the_directory_meanwhile_stays(file, tmp_path):
    goal = tmp_path / "set"
    convert_weights(file, goal, registry=REGISTRY, shard_size=5000)
    before = {path.name for path in goal.iterdir()}
    with pytest.raises(hp.WeightsError, match=r"config\.json"):
        convert_weights(
            file, goal, registry=REGISTRY, shard_size=1 << 20, force=True,
            progress=lambda *_: (goal / "config.json").write_text("{}"),
        )  # fmt: skip
    assert {path.name for path in goal.iterdir()} == before | {"config.json"}
    assert {path.name for path in tmp_path.iterdir()} == {file.name, "set"}
