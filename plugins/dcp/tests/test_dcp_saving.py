"""Saving: torch reads it, all or nothing, and the same bytes each time."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
import torch.distributed.checkpoint as dcp

from hardpoint import WeightsError
from hardpoint.storage import directory as replace
from hardpoint.storage.directory import aside
from hardpoint_dcp.dtypes import ITEMSIZE

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.dcp"


def torchs(path, state):
    """What torch's own reader makes of it, into tensors like those of ``state``."""
    got = {
        name: torch.zeros(value.numel() * value.element_size(), dtype=torch.uint8)
        .view(value.dtype)
        .reshape(value.shape)
        for name, value in state.items()
    }
    dcp.load(got, storage_reader=dcp.FileSystemReader(path), no_dist=True)
    return got


def raw(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8) if tensor.numel() else tensor


def leftovers(path):
    return [each.name for each in path.parent.iterdir() if each != path]


def test_torch_reads_every_dtype_bit_for_bit(serializer, path):
    bits = torch.arange(256, dtype=torch.uint8)
    state = {
        name: (bits % 2).bool() if name == "bool" else bits.view(getattr(torch, name))
        for name in ITEMSIZE
    }
    serializer.save(state, path)
    got = torchs(path, state)
    for name, tensor in state.items():
        assert got[name].dtype is tensor.dtype
        assert torch.equal(raw(got[name]), raw(tensor))


def test_torch_reads_every_shape_and_name(serializer, path):
    state = {
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "rank7": torch.arange(12.0).reshape(1, 2, 1, 3, 1, 2, 1),
        "größe.\U0001f600": torch.ones(2),
        "": torch.zeros(1),
        "../../etc/passwd": torch.full((1,), 2.0),
    }
    serializer.save(state, path)
    got = torchs(path, state)
    assert all(torch.equal(got[name], tensor) for name, tensor in state.items())
    with serializer.open(path) as reader:
        assert set(reader) == set(state)
        assert all(torch.equal(reader.tensor(name), tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.arange(12.0).reshape(3, 4).t(),
        lambda: torch.arange(12.0)[::5],
        lambda: torch.ones(1).expand(5),
        lambda: torch.arange(4).to(torch.complex64).mul(1j).conj(),
        lambda: torch.arange(4).to(torch.complex64).conj().imag,
        lambda: torch.nn.Parameter(torch.arange(3.0)),
        lambda: torch.arange(3.0, requires_grad=True) * 2,
    ],
    ids=["transposed", "strided", "expanded", "conj", "neg", "parameter", "graph"],
)
def test_the_values_are_what_the_tensor_shows(serializer, path, make):
    tensor = make().detach()
    serializer.save({"t": make()}, path)
    assert torch.equal(torchs(path, {"t": tensor.resolve_conj().resolve_neg()})["t"], tensor)


def test_metadata_is_text_that_torch_gives_too(serializer, path):
    serializer.save({"w": torch.ones(1)}, path, metadata={"format": "pt", "größe": "\U0001f600"})
    state = {"format": None, "größe": None}
    dcp.load(state, checkpoint_id=path, no_dist=True)
    assert state == {"format": "pt", "größe": "\U0001f600"}
    with serializer.open(path) as reader:
        assert dict(reader.metadata) == state


def test_two_hundred_tensors_round_trip(serializer, path):
    torch.manual_seed(0)
    state = {f"layers.{i}.weight": torch.randn(i % 7 + 1, 33) for i in range(200)}
    state["large"] = torch.randn(1 << 20)
    serializer.save(state, path)
    with serializer.open(path) as reader:
        assert all(torch.equal(reader.tensor(name), tensor) for name, tensor in state.items())
        assert all(reader[name].offset % 64 == 0 for name in state)


def test_saves_in_several_processes_have_one_hash(path, tmp_path):
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from hardpoint_dcp.serializer import DcpSerializer\n"
        "names = sorted({'fqn', 'a' * 3, 'torch', 'Size', 'w'}, key=hash)\n"
        "state = {n: torch.arange(7.0).reshape(1, 7) for n in names}\n"
        "meta = {k: k for k in sorted({'x', 'metadata', 'float32'}, key=hash)}\n"
        "DcpSerializer().save(state, Path(sys.argv[1]), metadata=meta)\n"
    )
    hashes = set()
    for turn in range(3):
        where = tmp_path / f"{turn}.dcp"
        environment = {**os.environ, "PYTHONHASHSEED": str(turn)}
        command = [sys.executable, "-W", "ignore", "-c", code, str(where)]
        subprocess.run(command, check=True, env=environment)
        data = b"".join(each.read_bytes() for each in sorted(where.iterdir()))
        hashes.add(hashlib.sha256(data).hexdigest())
    assert len(hashes) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda: {"t": torch.empty(2, device="meta")}, "meta device"),
        (lambda: {"t": torch.eye(2).to_sparse()}, "sparse"),
        (lambda: {"t": torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8)}, "quantized"),
        (lambda: {"t": [1.0]}, "it is list, not a tensor"),
        (lambda: {3: torch.ones(1)}, "no name for a tensor"),
        (lambda: {"\ud800": torch.ones(1)}, "no name for a tensor"),
        (lambda: {"t": torch.nn.parameter.UninitializedParameter()}, "has no shape yet"),
        (lambda: {"t": torch.empty(2, dtype=torch.bits8)}, "no reading torch.bits8 back"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(serializer, path, make, cause):
    serializer.save({"old": torch.ones(1)}, path)
    with pytest.raises(WeightsError) as error:
        serializer.save(make(), path)
    assert cause in str(error.value)
    assert leftovers(path) == []
    assert list(serializer.open(path)) == ["old"]


def test_one_name_for_a_tensor_and_a_value_is_refused(serializer, path):
    with pytest.raises(WeightsError, match="a tensor has that name"):
        serializer.save({"w": torch.ones(1)}, path, metadata={"w": "x"})
    with pytest.raises(WeightsError, match="is not text"):
        serializer.save({"w": torch.ones(1)}, path, metadata={"k": 3})


def test_only_a_checkpoint_is_replaced(serializer, path):
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(WeightsError, match=r"more than a checkpoint: 'thesis\.tex'"):
        serializer.save({"w": torch.ones(1)}, path)
    assert (path / "thesis.tex").read_text() == "years of work"
    shutil.rmtree(path)
    path.write_text("a file")
    with pytest.raises(WeightsError, match="a checkpoint is a directory"):
        serializer.save({"w": torch.ones(1)}, path)
    assert path.read_text() == "a file"


def test_a_replaced_checkpoint_is_gone_whole_and_keeps_its_mode(serializer, path):
    state = {f"t{i}": torch.full((4,), float(i)) for i in range(3)}
    writer = dcp.FileSystemWriter(path, single_file_per_rank=False)
    dcp.save(state, storage_writer=writer, no_dist=True)
    path.chmod(0o750)
    serializer.save({"w": torch.ones(1)}, path)
    assert sorted(each.name for each in path.iterdir()) == [".metadata", "__0_0.distcp"]
    assert path.stat().st_mode & 0o777 == 0o750
    assert leftovers(path) == []


def test_a_link_is_itself_replaced(serializer, path, tmp_path):
    serializer.save({"old": torch.ones(1)}, tmp_path / "shared.dcp")
    path.symlink_to("shared.dcp")
    serializer.save({"new": torch.ones(1)}, path)
    assert not path.is_symlink()
    assert list(serializer.open(path)) == ["new"]
    assert list(serializer.open(tmp_path / "shared.dcp")) == ["old"]
    assert leftovers(path) == ["shared.dcp"]


def test_a_failed_write_leaves_the_old_one(serializer, path, monkeypatch):
    serializer.save({"old": torch.ones(1)}, path)

    def full(self, data):
        self.error = OSError(28, "No space left on device")
        raise self.error

    monkeypatch.setattr("hardpoint_dcp.write._Stream.write", full)
    with pytest.raises(WeightsError, match="No space left"):
        serializer.save({"new": torch.ones(1000)}, path)
    assert leftovers(path) == []
    assert list(serializer.open(path)) == ["old"]


def test_a_missing_folder_is_named(serializer, tmp_path):
    with pytest.raises(WeightsError, match="cannot be written"):
        serializer.save({"w": torch.ones(1)}, tmp_path / "none" / "w.dcp")


# --- killed, at any step


_STEPS = ["mkdir", "fsync", "renameat2", "rename", "rmtree"]
_KILLED = """
import os, shutil, sys, torch
from pathlib import Path
from hardpoint.storage import directory as replace
from hardpoint_dcp.serializer import DcpSerializer

step, count, exchange, where = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
left = [count]

def deadly(call):
    def run(*args, **kwargs):
        if left[0] == 0:
            os.kill(os.getpid(), 9)
        left[0] -= 1
        return call(*args, **kwargs)
    return run

torch.save(torch.ones(1), "/dev/null")
import hardpoint_dcp.write
if exchange == "no":
    replace._exchange = lambda one, other: False
if step == "mkdir":
    Path.mkdir = deadly(Path.mkdir)
if step == "fsync":
    os.fsync = deadly(os.fsync)
if step == "renameat2":
    replace._exchange = deadly(replace._exchange)
if step == "rename":
    Path.rename = deadly(Path.rename)
if step == "rmtree":
    shutil.rmtree = deadly(shutil.rmtree)
DcpSerializer().save({"w": torch.full((1000,), 2.0)}, where)
"""


@pytest.mark.parametrize("exchange", ["yes", "no"])
@pytest.mark.parametrize(
    ("step", "count"),
    [("mkdir", 0), ("fsync", 0), ("fsync", 1), ("fsync", 2), ("fsync", 3), ("renameat2", 0),
     ("rename", 0), ("rename", 1), ("rmtree", 0)],
)  # fmt: skip
def test_a_killed_save_leaves_the_old_or_the_new(serializer, path, step, count, exchange):
    serializer.save({"w": torch.full((1000,), 1.0)}, path)
    command = [sys.executable, "-W", "ignore", "-c", _KILLED, step, str(count), exchange, str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    never = (exchange == "yes" and step == "rename") or (exchange == "no" and step == "renameat2")
    if not never:
        assert done.returncode == -signal.SIGKILL, done.stderr
    if path.exists():
        with serializer.open(path) as reader:
            assert reader.tensor("w").unique().tolist() in ([1.0], [2.0])
    else:
        # Between the two renames of a file system that cannot exchange: it says where it is.
        assert (exchange, step, count) == ("no", "rename", 1)
        with pytest.raises(WeightsError, match="about to be replaced") as error:
            serializer.open(path)
        assert f"rename {aside(path)} to {path}" in str(error.value)
        with serializer.open(aside(path)) as reader:
            assert reader.tensor("w").unique().tolist() == [1.0]
    serializer.save({"w": torch.zeros(1)}, path)
    assert leftovers(path) == []


def test_a_save_that_cannot_begin_puts_back_what_was_set_aside(serializer, path):
    serializer.save({"w": torch.ones(1)}, path)
    path.rename(aside(path))

    def fails(folder):
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        replace.replace(path, fails)
    assert torch.equal(serializer.open(path).tensor("w"), torch.ones(1))
    assert leftovers(path) == []


def test_a_second_rename_that_fails_puts_the_old_one_back(serializer, path, monkeypatch):
    serializer.save({"w": torch.ones(1)}, path)
    monkeypatch.setattr(replace, "_exchange", lambda one, other: False)
    original = type(path).rename

    def rename(self, target):
        if self.name.endswith(".tmp"):
            raise OSError("no")
        return original(self, target)

    monkeypatch.setattr(type(path), "rename", rename)
    with pytest.raises(WeightsError, match="what was there before still is"):
        serializer.save({"w": torch.zeros(1)}, path)
    assert torch.equal(serializer.open(path).tensor("w"), torch.ones(1))
    assert leftovers(path) == []
