"""Defects that a cold review of the storage engine found, each with what holds instead."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import hardpoint as hp
from hardpoint import ContractViolation, TensorInfo, WeightsError
from hardpoint.storage import atomic
from hardpoint.storage.gather import gather, piece
from hardpoint.storage.source import LocalFile, Source
from hardpoint.weights.checksum import checksum
from hardpoint.weights.opened import Opened


class Slow(Source):
    """Hands out bytes slowly, and counts who is at it."""

    def __init__(self, size: int) -> None:
        self.name, self.size = "slow", size
        self.reading: list[int] = []
        self.calls: list[int] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reading.append(offset)
        self.calls.append(offset)
        try:
            time.sleep(0.1)
            buffer[:1] = b"x"
        finally:
            self.reading.remove(offset)

    def beside(self, name: str) -> Source:
        raise AssertionError(name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


# -- nobody writes to memory that is no longer ours ------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_while_threads_read_waits_for_them():
    source, goal = Slow(24 << 20), torch.empty(24 << 20, dtype=torch.uint8)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            gather([piece(source, 0, goal)], threads=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert source.reading == []


def test_where_no_more_threads_are_to_be_had_fewer_do_the_work(monkeypatch):
    def none_left(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    source, goal = Slow(24 << 20), torch.empty(24 << 20, dtype=torch.uint8)
    gather([piece(source, 0, goal)], threads=3)
    assert (len(source.calls), source.reading) == (3, [])


def test_an_index_error_of_a_source_is_no_end_of_work():
    class Broken(Slow):
        def read_into(self, offset, buffer):
            raise IndexError("of the driver")

    with pytest.raises(IndexError, match="of the driver"):
        gather([piece(Broken(10), 0, torch.empty(10, dtype=torch.uint8))])


def shrunk(size: int = 4096) -> torch.Tensor:
    """A tensor as FSDP leaves it: of its old shape, its storage made smaller."""
    tensor = torch.zeros(size)
    tensor.untyped_storage().resize_(16)
    return tensor


def test_a_parameter_whose_storage_was_freed_is_not_filled(path):
    hp.save_weights({"w": torch.ones(4096)}, path)
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(shrunk())
    with pytest.raises(WeightsError, match="w: its storage was freed or made smaller"):
        hp.load_weights(path, into=module)


def test_nor_is_it_saved_with_whatever_lies_behind_it(path):
    for save in (hp.save_weights, lambda *a: hp.save_weights(*a, checksum=True)):
        with pytest.raises(WeightsError, match="its storage was freed or made smaller"):
            save({"w": shrunk()}, path)
    with pytest.raises(WeightsError, match="freed"), hp.save_in_background() as saver:
        saver.save({"w": shrunk()}, path)
    assert not path.exists()


def test_the_memory_of_a_save_that_waits_is_not_used_again(tmp_path, monkeypatch):
    from hardpoint.weights import background

    go, real = threading.Event(), background.save_weights

    def held(*args, **options):
        go.wait(10)
        real(*args, **options)

    monkeypatch.setattr(background, "save_weights", held)
    saver = hp.save_in_background()
    first = saver.save({"w": torch.ones(1000)}, tmp_path / "one.safetensors")

    def interrupted(timeout=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(first, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saver.save({"w": torch.full((1000,), 99.0)}, tmp_path / "two.safetensors")
    monkeypatch.undo()
    go.set()
    saver.save({"w": torch.full((1000,), 99.0)}, tmp_path / "two.safetensors")
    saver.close()
    assert hp.load_weights(tmp_path / "one.safetensors")["w"].unique().tolist() == [1.0]


def test_metadata_may_change_as_soon_as_save_returns(path):
    facts = {"step": "1"}
    with hp.save_in_background() as saver:
        saver.save({"w": torch.ones(10)}, path, metadata=facts)
        facts["step"] = "2"
    with hp.open_weights(path) as reader:
        assert reader.metadata == {"step": "1"}


# -- memory that several tensors share -------------------------------------------------------------


def test_memory_that_two_tensors_share_in_part_is_refused(path):
    base = torch.zeros(6)
    module = torch.nn.Module()
    module.register_buffer("a", base[:4])
    module.register_buffer("b", base[2:])
    hp.save_weights({"a": torch.ones(4), "b": torch.full((4,), 2.0)}, path)
    with pytest.raises(WeightsError, match="a and b share a part of their memory"):
        hp.load_weights(path, into=module)
    assert base.tolist() == [0.0] * 6


def test_a_transposed_tie_is_refused(path):
    module = torch.nn.Module()
    module.enc = torch.nn.Parameter(torch.zeros(2, 2))
    module.dec = torch.nn.Parameter(module.enc.detach().t())
    hp.save_weights({"enc": torch.ones(2, 2), "dec": torch.zeros(2, 2)}, path)
    with pytest.raises(WeightsError, match="share a part of their memory"):
        hp.load_weights(path, into=module)


def test_sparse_buffers_are_refused_in_words(path):
    module = torch.nn.Module()
    module.register_buffer("s", torch.eye(2).to_sparse())
    hp.save_weights({"s": torch.eye(2)}, path)
    with pytest.raises(WeightsError, match="s: it is sparse or nested"):
        hp.load_weights(path, into=module)


# -- what a provider says is checked ---------------------------------------------------------------


class Liar(hp.Reader):
    metadata = {}

    def __init__(self, name="w", given=None):
        self.name, self.given = name, given

    def __getitem__(self, name):
        return TensorInfo(self.name, "float32", (2, 4), 32, "f")

    def __iter__(self):
        return iter(["w"])

    def __len__(self):
        return 1

    def tensor(self, name):
        return torch.zeros(2, 4)

    def slice(self, name, index):
        return self.given

    def close(self):
        """Nothing."""


def test_a_slice_of_another_shape_is_a_broken_promise():
    opened = Opened("liar", "liar 1", Liar(given=torch.tensor([5.0])))
    with pytest.raises(ContractViolation, match="is not what its reader announced"):
        opened.part("w", slice(0, 2))


def test_a_tensor_under_another_name_is_a_broken_promise():
    with pytest.raises(ContractViolation, match="tensor w is announced as x"):
        Opened("liar", "liar 1", Liar(name="x")).tensor("w")


def test_negative_sizes_fit_nothing():
    from hardpoint.storage.typed import fits

    assert not fits(TensorInfo("a", "float32", (-2, -2), 16, "f", 0), 100)


# -- hostile and unlucky files ---------------------------------------------------------------------


def test_many_sizes_are_refused_before_they_are_multiplied(path):
    entry = {"dtype": "F32", "shape": [(1 << 62)] * 60_000, "data_offsets": [0, 0]}
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    code = f"import hardpoint as hp; hp.open_weights({str(path)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "it has 60000 dimensions; at most 64 may be" in done.stderr


def test_a_file_larger_than_memory_is_mapped(path):
    size = 60 << 30
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + size)
    tensor = hp.load_weights(path)["w"]
    assert (tensor.numel(), int(tensor[-1])) == (size, 0)


def test_memory_that_is_not_to_be_had_is_said_in_words():
    from hardpoint.storage.buffers import allocate

    with pytest.raises(WeightsError, match=f"there is no memory for {1 << 60} bytes of weights"):
        allocate(1 << 60)


def test_a_file_that_changes_before_it_is_mapped_is_an_error(tmp_path):
    (tmp_path / "f").write_bytes(bytes(100))
    source = LocalFile(tmp_path / "f")
    os.utime(tmp_path / "f", ns=(1, 1))
    with pytest.raises(WeightsError, match="the file changed while it was open"):
        source.map()


@pytest.mark.parametrize("mode", ["map", "own"])
def test_a_number_outside_its_dimension_is_an_error_behind_an_empty_slice_too(path, mode):
    hp.save_weights({"w": torch.ones(4, 4)}, path)
    with pytest.raises(WeightsError, match="has no slice"):
        hp.load_weights(path, mode=mode, slices={"w": (slice(0, 0), 99)})


def test_a_directory_that_cannot_be_synced_is_told_apart(path, monkeypatch):
    def broken(directory):
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(atomic, "_sync_directory", broken)
    with pytest.raises(WeightsError, match="the file is written, but may be lost if the machine"):
        hp.save_weights({"w": torch.ones(2)}, path)
    assert path.exists()


# -- checksums -------------------------------------------------------------------------------------


def test_the_checksum_is_what_its_page_says():
    import hashlib

    tensors = {"b": torch.tensor([1, 2], dtype=torch.int16), "aa": torch.tensor(1.0)}
    lines = [
        f"2 aa float32 [] {hashlib.sha256(bytes.fromhex('0000803f')).hexdigest()}\n",
        f"1 b int16 [2] {hashlib.sha256(bytes([1, 0, 2, 0])).hexdigest()}\n",
    ]
    assert checksum(tensors) == hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (3, "it is int, not a tensor"),
        (torch.empty(2, device="meta"), "it is on the meta device"),
        (torch.eye(2).to_sparse(), "it is sparse or nested"),
        (torch.nn.UninitializedParameter(), "it has no shape yet"),
    ],
    ids=["int", "meta", "sparse", "lazy"],
)
def test_what_has_no_bytes_has_no_checksum(value, says):
    with pytest.raises(WeightsError, match="tensor 'w' has no checksum") as caught:
        checksum({"w": value})
    assert caught.value.cause == says
