"""Which files are mapped unasked: one's own, on this machine's disks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hardpoint as hp
from hardpoint.storage import trust
from hardpoint.storage.source import LocalFile
from hardpoint.storage.trust import shared_file_system, why_not_to_map

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.safetensors"
    hp.save_weights({"a": torch.arange(6.0), "b": torch.ones(2, 3)}, path)
    return path


def in_map(path, tensor):
    """Whether a tensor's memory is a map of the file."""
    at = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= at < end:
            return line.endswith(str(path))
    raise AssertionError("memory of nobody")


linux = pytest.mark.skipif(sys.platform != "linux", reason="maps are listed on Linux")


@linux
def test_ones_own_file_is_mapped(file):
    assert in_map(file, hp.load_weights(file)["a"])


@linux
@root
def test_another_users_file_is_read_unless_a_map_is_asked_for(file):
    os.chown(file, 12345, 12345)
    loaded = hp.load_weights(file)
    assert not any(in_map(file, tensor) for tensor in loaded.values())
    assert torch.equal(loaded["a"], torch.arange(6.0))
    assert in_map(file, hp.load_weights(file, mode="map")["a"])
    with hp.open_weights(file) as reader:
        assert not in_map(file, reader.tensor("a"))
        assert torch.equal(reader.slice("b", 1), torch.ones(3))


@linux
def test_a_file_that_everyone_may_write_to_is_read(file):
    file.chmod(0o666)
    assert not in_map(file, hp.load_weights(file)["a"])


@root
def test_anothers_file_that_shrinks_after_loading_kills_nobody(tmp_path):
    path = tmp_path / "large.safetensors"
    hp.save_weights({"a": torch.ones(1 << 20)}, path)
    os.chown(path, 12345, 12345)
    program = (
        "import os, sys, hardpoint as hp\n"
        "tensor = hp.load_weights(sys.argv[1])['a']\n"
        "os.truncate(sys.argv[1], 100)\n"
        "print(float(tensor.sum()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == 1 << 20


@root
def test_the_reason_is_told(file):
    os.chown(file, 12345, -1)
    with file.open("rb") as opened:
        why = why_not_to_map(opened.fileno(), os.fstat(opened.fileno()))
    assert why == "it belongs to another user (12345)"


@linux
def test_the_kind_of_file_system_is_the_systems_own_answer(file):
    said = subprocess.run(["stat", "-f", "-c", "%t", file], capture_output=True, text=True)
    with file.open("rb") as opened:
        assert trust._kind(opened.fileno()) == int(said.stdout, 16)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(0x6969, "NFS"), (0xFF534D42, "CIFS"), (-0xACB2BE, "CIFS"), (0x65735546, "FUSE"),
     (0xEF53, None), (0x01021994, None), (0, None)],
)  # fmt: skip
def test_network_mounts_are_told_from_disks(kind, name):
    assert shared_file_system(kind) == name


def test_a_file_on_a_network_mount_is_read(file, monkeypatch):
    monkeypatch.setattr(trust, "_kind", lambda descriptor: 0x6969)
    source = LocalFile(file)
    assert source.map() is None
    assert source.map(anyway=True) is not None
    assert torch.equal(hp.load_weights(file)["a"], torch.arange(6.0))


def test_an_unknown_mode_is_named_with_those_that_are(file):
    with pytest.raises(hp.WeightsError, match="'mapped' is no mode"):
        hp.load_weights(file, mode="mapped")
