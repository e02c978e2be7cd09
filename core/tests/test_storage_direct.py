"""Reading past the page cache: the same bytes, wherever they lie and are to go."""

import ctypes
import os
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

import hardpoint as hp
from hardpoint.storage import direct
from hardpoint.storage.buffers import allocate
from hardpoint.storage.direct import BLOCK, DirectFile, is_cached
from hardpoint.storage.layout import congruent
from hardpoint.storage.source import LocalFile

pytestmark = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no O_DIRECT")
SIZE = 5 * BLOCK + 1234


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("direct") / "bytes"
    path.write_bytes(random.Random(0).randbytes(SIZE))
    return path


@pytest.fixture(scope="module")
def opened(file):
    descriptor = os.open(file, os.O_RDONLY)
    try:
        yield DirectFile(descriptor)
    except OSError as error:
        pytest.skip(f"this file system has no reads past the cache: {error}")
    finally:
        os.close(descriptor)


def forget(path):
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    offset=st.integers(0, SIZE),
    count=st.integers(1, SIZE),
    shift=st.sampled_from([0, 0, 1, 64, 100, BLOCK - 1]),
)
def test_any_stretch_arrives_at_any_address(file, opened, offset, count, shift):
    memory = allocate(4 << 20)
    begin = (offset + shift) % BLOCK if shift else offset % BLOCK
    goal = memory[begin : begin + count]
    guard = memory[begin + count : begin + count + 64].fill_(7)
    goal.zero_()
    view = memoryview((ctypes.c_char * count).from_address(goal.data_ptr())).cast("B")
    whole = opened.read_into(offset, view)
    expected = file.read_bytes()[offset : offset + count]
    assert whole == (offset + count <= SIZE)
    if whole:
        assert bytes(view) == expected
    assert bool((guard == 7).all()), "nothing beyond it is written to"


def test_looking_whether_bytes_are_cached_brings_none_in(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(8 << 20))
    with path.open("rb") as file:
        file.read()
        assert is_cached(file.fileno(), 0, 8 << 20)
        forget(path)
        if is_cached(file.fileno(), 0, 8 << 20):
            pytest.skip("this file system keeps what it is told to forget")
        assert not is_cached(file.fileno(), 12345, 4 << 20)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file large enough to be read past the cache, as this test counts, and its tensors."""
    monkeypatch.setattr(direct, "WORTH", 1 << 20)
    torch.manual_seed(0)
    tensors = {"odd": torch.randn(3), "a": torch.randn(700, 1000), "b": torch.randn(900, 999)}
    path = tmp_path / "weights.safetensors"
    hp.save_weights(tensors, path)
    return path, tensors


@pytest.fixture
def reads(monkeypatch):
    """How many bytes are read past the cache."""
    counted = []
    real = DirectFile.read_into

    def read_into(self, offset, buffer):
        counted.append(len(buffer))
        return real(self, offset, buffer)

    monkeypatch.setattr(DirectFile, "read_into", read_into)
    return counted


def test_a_large_file_that_is_not_cached_is_read_past_the_cache(weights, reads):
    path, tensors = weights
    forget(path)
    with path.open("rb") as file:
        if is_cached(file.fileno(), 0, path.stat().st_size):
            pytest.skip("this file system keeps what it is told to forget")
    loaded = hp.load_weights(path, mode="own")
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert sum(reads) > 5_000_000
    forget(path)
    module = torch.nn.Module()
    for name, tensor in tensors.items():
        module.register_parameter(name, torch.nn.Parameter(torch.zeros_like(tensor)))
    hp.load_weights(path, into=module)
    assert all(torch.equal(getattr(module, name), tensors[name]) for name in tensors)
    forget(path)
    rows = hp.load_weights(path, mode="own", slices={"b": slice(100, 800)})
    assert torch.equal(rows["b"], tensors["b"][100:800])
    assert torch.equal(rows["a"], tensors["a"])


def test_one_that_is_cached_or_small_or_not_to_be_is_read_through_it(weights, reads, monkeypatch):
    path, tensors = weights
    hp.load_weights(path, mode="own")
    path.read_bytes()
    reads.clear()
    hp.load_weights(path, mode="own")
    assert reads == []
    forget(path)
    monkeypatch.setenv(direct.SWITCH, "0")
    hp.load_weights(path, mode="own")
    assert reads == []
    monkeypatch.delenv(direct.SWITCH)
    monkeypatch.setattr(direct, "WORTH", 1 << 30)
    forget(path)
    loaded = hp.load_weights(path, mode="own")
    assert reads == []
    assert torch.equal(loaded["a"], tensors["a"])


def test_where_the_disk_takes_no_such_reads_the_plain_way_is_taken(weights, monkeypatch):
    path, tensors = weights

    def refused(self, offset, buffer):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(DirectFile, "read_into", refused)
    forget(path)
    loaded = hp.load_weights(path, mode="own")
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_a_file_that_became_shorter_is_an_error(weights):
    path, _ = weights
    source = LocalFile(path)
    os.truncate(path, 4 << 20)
    forget(path)
    with pytest.raises(hp.WeightsError, match="changed while it was open"):
        source.read_into(1 << 20, memoryview(bytearray(4 << 20)))


def test_long_runs_lie_in_memory_as_in_the_file_counted_in_disk_blocks():
    assert congruent(100, 3 * BLOCK + 72, 2 << 20) % BLOCK == 72
    assert congruent(100, 3 * BLOCK + 72, 1 << 10) == 136


def test_what_is_not_cached_is_not_asked_of_the_cache(tmp_path, monkeypatch):
    # Even a read that does not wait makes the kernel read ahead what then comes twice.
    path = tmp_path / "file"
    path.write_bytes(bytes(4 << 20))
    source = LocalFile(path)
    source._past_cache = True
    asked = []
    preadv = os.preadv

    def recorded(descriptor, buffers, offset, flags=0):
        asked.append(flags)
        return preadv(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", recorded)
    monkeypatch.setattr(direct, "is_cached", lambda *_: False)
    source.read_into(0, memoryview(bytearray(4 << 20)))
    assert asked
    assert os.RWF_NOWAIT not in asked
