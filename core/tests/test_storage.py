"""The storage engine: sources, gathering, layouts, slices, private and mapped tensors, atomic files."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st

from hardpoint import TensorInfo, WeightsError
from hardpoint.storage import atomic, buffers, direct, directory
from hardpoint.storage.gather import Piece, gather, piece
from hardpoint.storage.layout import Layout
from hardpoint.storage.mapped import MappedSource
from hardpoint.storage.own import own
from hardpoint.storage.refusal import Refusal
from hardpoint.storage.slices import block_of, checked, is_run, result_shape, rows_of
from hardpoint.storage.source import LocalFile, Source
from hardpoint.storage.table import TableReader
from hardpoint.storage.typed import fits
from hardpoint.weights.bulk import take
from hardpoint.weights.opened import Opened


class InMemory(Source):
    """A source that cannot be mapped, as a remote one is."""

    def __init__(self, data: bytes) -> None:
        self.name, self.size, self.data = "memory", len(data), data
        self.reads: list[tuple[int, int]] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reads.append((offset, len(buffer)))
        buffer[:] = self.data[offset : offset + len(buffer)]

    def beside(self, name: str) -> Source:
        raise AssertionError(name)


def info(name, dtype, shape, offset):
    nbytes = torch.empty(shape, dtype=dtype, device="meta").nbytes
    return TensorInfo(
        name, str(dtype).removeprefix("torch."), tuple(shape), nbytes, "memory", offset
    )


# -- sources ---------------------------------------------------------------------------------------


def test_a_file_that_is_replaced_stays_the_one_that_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    source = LocalFile(path)
    (tmp_path / "new").write_bytes(b"NEW")
    (tmp_path / "new").replace(path)
    assert source.read(0, 3) == b"old"
    assert LocalFile(path).read(0, 3) == b"NEW"


def test_a_file_that_is_cut_short_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    source = LocalFile(path)
    os.truncate(path, 10)
    with pytest.raises(WeightsError, match="the file changed while it was open") as caught:
        source.read(0, 100)
    assert caught.value.cause == "another program is writing to it: it has become shorter"


def test_bytes_beyond_the_end_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    with pytest.raises(WeightsError, match="the file is cut short") as caught:
        LocalFile(tmp_path / "f").read(0, 1 << 60)
    assert caught.value.cause == f"{1 << 60} bytes are wanted at 0, and it has 3"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "the file cannot be opened"),
        (lambda p: p.mkdir(), "this is no regular file"),
        (lambda p: os.mkfifo(p), "this is no regular file"),
    ],
    ids=["missing", "directory", "pipe"],
)
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, make, says):
    make(tmp_path / "f")
    with pytest.raises(WeightsError, match=says):
        LocalFile(tmp_path / "f")


def test_an_open_file_holds_one_descriptor_and_lets_it_go(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    before = len(list(Path("/proc/self/fd").iterdir()))
    source = LocalFile(tmp_path / "f")
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    del source
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- gathering -------------------------------------------------------------------------------------


@given(st.data())
def test_any_pieces_arrive_whatever_the_number_of_threads(data):
    content = bytes(range(256)) * 8
    source = InMemory(content)
    goals, pieces = [], []
    for _ in range(data.draw(st.integers(0, 8))):
        begin = data.draw(st.integers(0, len(content)))
        count = data.draw(st.integers(0, len(content) - begin))
        goal = torch.zeros(count, dtype=torch.uint8)
        goals.append((goal, content[begin : begin + count]))
        pieces.append(piece(source, begin, goal))
    gather(pieces, threads=data.draw(st.integers(1, 4)))
    assert all(bytes(goal.tolist()) == expected for goal, expected in goals)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("cached", [False, True])
@given(data=st.data())
def test_rows_arrive_however_they_are_read(tmp_path_factory, local, cached, data):
    content = random.Random(0).randbytes(300_000)
    source = InMemory(content)
    if local:
        path = tmp_path_factory.mktemp("rows") / "file"
        path.write_bytes(content)
        source = LocalFile(path)
    length = data.draw(st.sampled_from([1, 7, 512, 4096]))
    pitch = length + data.draw(st.sampled_from([1, 100, 5000, 70_000]))
    rows = data.draw(st.integers(2, min(700, (len(content) - length) // pitch + 1)))
    begin = data.draw(st.integers(0, len(content) - (rows - 1) * pitch - length))
    goal = torch.zeros(rows * length, dtype=torch.uint8)
    with pytest.MonkeyPatch.context() as patch:
        if not cached:
            patch.setattr(LocalFile, "_read_cached", lambda *_: 0)
        gather([piece(source, begin, goal)._replace(rows=rows, pitch=pitch)])
    begins = range(begin, begin + rows * pitch, pitch)
    assert bytes(goal.tolist()) == b"".join(content[at : at + length] for at in begins)


def test_pieces_that_follow_each_other_here_and_there_are_one_read():
    source, goal = InMemory(bytes(100)), torch.empty(60, dtype=torch.uint8)
    base = goal.data_ptr()
    gather([Piece(source, 40, base + 30, 30), Piece(source, 10, base, 30)])
    assert source.reads == [(10, 60)]


def test_progress_adds_up_to_all_bytes():
    source, goal = InMemory(bytes(20 << 20)), torch.empty(20 << 20, dtype=torch.uint8)
    ticks: list[int] = []
    gather([piece(source, 0, goal)], threads=3, tick=ticks.append)
    assert sum(ticks) == 20 << 20
    assert len(ticks) == 3


def test_a_disk_that_must_be_waited_for_is_asked_for_more_at_a_time(tmp_path, monkeypatch):
    file = tmp_path / "weights"
    file.write_bytes(bytes(100))
    source = LocalFile(file)
    monkeypatch.setattr(direct, "is_cached", lambda *_: True)
    assert source.parallel <= 4
    monkeypatch.setattr(direct, "is_cached", lambda *_: False)
    assert source.parallel == 16


def test_what_a_reader_lists_is_held_against_the_file_before_any_memory_is():
    class Lying(TableReader):
        def items(self):
            longer = TensorInfo("a", "uint8", (1 << 20,), 8, "memory", 0)
            return {"a": longer}.items()

    table = {"a": info("a", torch.uint8, (8,), 0)}
    reader = Lying(InMemory(bytes(range(8))), table, refuse=Refusal("test", "mend it"))
    found = take(Opened("lying", "a test", reader), "own", torch.device("cpu"))
    assert found["a"].tolist() == list(range(8))


def test_an_error_in_any_thread_is_raised_and_no_thread_is_left():
    class Broken(InMemory):
        def read_into(self, offset, buffer):
            if offset >= 16 << 20:
                raise WeightsError("the disk is gone")

    source, goal = Broken(bytes(40 << 20)), torch.empty(40 << 20, dtype=torch.uint8)
    with pytest.raises(WeightsError, match="the disk is gone"):
        gather([piece(source, 0, goal)], threads=3)
    for thread in threading.enumerate():
        if thread.name == "hardpoint-read":  # has ended its work, and is about to end
            thread.join(5)
            assert not thread.is_alive()


def test_a_file_that_is_written_to_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(100))
    source = LocalFile(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(WeightsError, match="the file changed while it was open"):
        gather([piece(source, 0, torch.empty(100, dtype=torch.uint8))])


# -- private memory --------------------------------------------------------------------------------


@given(st.data())
def test_own_tensors_are_what_the_file_holds_and_share_what_they_share_in_it(data):
    content = torch.arange(6000, dtype=torch.int16).view(torch.uint8)
    source, placed, expected = InMemory(bytes(content.tolist())), [], {}
    for number in range(data.draw(st.integers(0, 6))):
        dtype = data.draw(st.sampled_from([torch.uint8, torch.int16, torch.float32, torch.int64]))
        shape = data.draw(st.lists(st.integers(0, 5), max_size=3))
        nbytes = torch.empty(shape, dtype=dtype, device="meta").nbytes
        offset = data.draw(st.integers(0, content.numel() - nbytes))
        placed.append((info(f"t{number}", dtype, shape, offset), source))
        expected[f"t{number}"] = content[offset : offset + nbytes].clone().view(dtype).view(shape)
    found = own(placed)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(
            tensor.view(torch.uint8) if tensor.dim() else tensor,
            expected[name].view(torch.uint8) if tensor.dim() else expected[name],
        )
        assert tensor.data_ptr() % tensor.element_size() == 0
    assert sum(count for _, count in source.reads) <= content.numel()


def test_tied_tensors_are_read_once_and_stay_tied():
    source = InMemory(bytes(64))
    tied = [(info(name, torch.float32, [4], 16), source) for name in "ab"]
    found = own(tied)
    found["a"].fill_(7)
    assert found["b"].tolist() == [7, 7, 7, 7]
    assert source.reads == [(16, 16)]


def test_far_apart_tensors_leave_the_bytes_between_unread():
    source = InMemory(bytes(1 << 20))
    own(
        [(info("a", torch.uint8, [16], 0), source), (info("b", torch.uint8, [16], 900_000), source)]
    )
    assert source.reads == [(0, 16), (900_000, 16)]


def test_a_broken_bool_is_refused():
    with pytest.raises(WeightsError, match="a BOOL byte is neither 0 nor 1"):
        own([(info("flags", torch.bool, [2], 0), InMemory(b"\x01\x07"))])


def test_alignment_in_the_file_is_alignment_in_memory():
    source = InMemory(bytes(1 << 14))
    infos = [info("a", torch.float32, [3], 64), info("b", torch.float32, [3], 8000)]
    found = own([(each, source) for each in infos])
    assert found["b"].data_ptr() % 64 == 8000 % 64


@pytest.mark.parametrize("switch", ["0", "1"])
@pytest.mark.parametrize("nbytes", [0, 1, 4096, (2 << 20) + 5])
def test_buffers_are_of_the_size_asked_for_with_and_without_huge_pages(monkeypatch, switch, nbytes):
    monkeypatch.setenv(buffers.SWITCH, switch)
    buffer = buffers.allocate(nbytes)
    assert (buffer.dtype, tuple(buffer.shape)) == (torch.uint8, (nbytes,))
    assert buffer.data_ptr() % 64 == 0
    buffer.fill_(255)
    assert int(buffer.sum(dtype=torch.int64)) == 255 * nbytes


def test_a_layout_holds_every_byte_once():
    source = InMemory(bytes(1000))
    placed = [
        (info(n, torch.uint8, [c], o), source)
        for n, o, c in (("a", 0, 100), ("b", 50, 100), ("c", 10, 5))
    ]
    layout = Layout(placed)
    assert [(run.begin, run.end) for run in layout.runs] == [(0, 150)]
    assert layout.places == {"a": 0, "c": 10, "b": 50}
    assert layout.nbytes == 150


# -- maps ------------------------------------------------------------------------------------------


def test_mapped_tensors_outlive_the_file_and_never_write_to_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(16))
    memory = MappedSource(LocalFile(path))
    tensor = memory.tensor(info("a", torch.float32, [4], 0))
    del memory
    path.unlink()
    tensor.fill_(1.0)
    assert tensor.tolist() == [1.0] * 4


def test_what_the_file_does_not_align_is_copied(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\0" + torch.arange(6, dtype=torch.float32).numpy().tobytes())
    memory = MappedSource(LocalFile(tmp_path / "f"))
    entry = info("a", torch.float32, [2, 3], 1)
    assert memory.tensor(entry).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert memory.tensor(entry, (1, slice(1, None))).tolist() == [4, 5]
    assert memory.tensor(entry).data_ptr() % 4 == 0


def test_an_entry_fits_if_its_sizes_are_its_bytes_and_these_are_in_the_file():
    good = info("a", torch.float32, [2, 3], 8)
    assert fits(good, 32)
    assert not fits(good, 31)
    for bad in (
        TensorInfo("a", "float32", (2, 3), 23, "f", 8),
        TensorInfo("a", "float33", (2, 3), 24, "f", 8),
        TensorInfo("a", "float32", (2, 3), 24, "f", -1),
        TensorInfo("a", "float32", (2, 3), 24, "f"),
    ):
        assert not fits(bad, 1000)


# -- slices ----------------------------------------------------------------------------------------


@st.composite
def indexed(draw):
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    parts = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        ends = st.none() | st.integers(-6, 6)
        steps = st.none() | st.integers(1, 3)
        part = st.builds(slice, ends, ends, steps)
        parts.append(draw(part | st.integers(-size, size - 1) if size else part))
    return shape, tuple(parts)


@given(indexed())
def test_a_block_holds_exactly_the_rows_that_an_index_needs(case):
    shape, index = case
    whole = torch.arange(int(torch.empty(shape, device="meta").numel())).view(shape)
    block = block_of(shape, checked(index, len(shape)))
    count = int(torch.empty(block.shape, device="meta").numel())
    run = whole.reshape(-1)[block.begin : block.begin + count].view(block.shape)
    assert torch.equal(run[block.part], whole[index])
    assert result_shape(shape, index) == tuple(whole[index].shape)
    if is_run(block):
        assert torch.equal(run.reshape(-1), whole[index].reshape(-1))
    if rows := rows_of(block):
        flat = whole.reshape(-1)
        begins = [rows.begin + number * rows.pitch for number in range(rows.number)]
        taken = [flat[begin : begin + rows.length] for begin in begins]
        assert torch.equal(torch.cat([flat[:0], *taken]), whole[index].reshape(-1))


@pytest.mark.parametrize(
    ("index", "number"),
    [
        ((slice(1, 2),), 1),
        ((slice(None), slice(1, 2)), 4),
        ((slice(None), 2), 4),
        ((1, slice(None), slice(0, 3)), 6),
        ((slice(None), slice(None), slice(2, 5)), 24),
        ((slice(0, 4, 2),), None),
        ((slice(0, 2), slice(0, 2), slice(0, 2)), None),
    ],
)
def test_columns_are_rows_of_the_file(index, number):
    rows = rows_of(block_of((4, 6, 5), index))
    assert (rows and rows.number) == number


@pytest.mark.parametrize(
    ("index", "error"),
    [
        ((0, 0, 0), "3 indices for 2 dimensions"),
        ((True,), "True is no whole number"),
        ((slice(0, 1.5),), "1.5 is no whole number"),
        (("a",), "'a' is no whole number"),
        ((slice(None, None, -1),), "has a step that is not positive"),
    ],
)
def test_an_index_that_torch_would_take_for_more_is_an_error(index, error):
    with pytest.raises((IndexError, ValueError), match=error):
        checked(index, 2)


# -- atomic files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", ["0", "1"])
def test_a_file_is_replaced_whole_with_and_without_syncing(monkeypatch, tmp_path, switch):
    monkeypatch.setenv(atomic.SWITCH, switch)
    path, data = tmp_path / "f", bytes(range(256)) * (1 << 16)  # two chunks
    path.write_bytes(b"old")

    def fill(write):
        for at in range(0, len(data), 1 << 20):
            assert path.read_bytes() == b"old"
            write(memoryview(data)[at : at + (1 << 20)])

    atomic.replace(path, len(data), fill)
    assert path.read_bytes() == data
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_syncing_is_left_out_only_where_that_was_asked_for(monkeypatch, tmp_path):
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setenv(atomic.SWITCH, "0")
    atomic.replace(tmp_path / "f", 1, lambda write: write(memoryview(b"x")))
    assert synced == []
    monkeypatch.delenv(atomic.SWITCH)
    atomic.replace(tmp_path / "f", 1, lambda write: write(memoryview(b"x")))
    assert len(synced) == 2, "the file, and the directory"


@pytest.mark.parametrize("moment", ["mkdir", "open"])
def test_a_temporary_directory_that_another_rank_takes_for_stale_is_made_anew(
    tmp_path, monkeypatch, moment
):
    # Ranks save side by side, and each sweeps the folder first: a new directory is not locked yet.
    other, opens = [], os.open

    def swept_before(path, *flags):
        if not other:
            other.append(path)
            directory._sweep(tmp_path)
        return opens(path, *flags)

    def swept_after(path, *flags):
        descriptor = opens(path, *flags)
        if not other:
            other.append(path)
            directory._sweep(tmp_path)
        return descriptor

    monkeypatch.setattr(directory.os, "open", swept_before if moment == "mkdir" else swept_after)
    directory.replace(tmp_path / "made", lambda made: (made / "file").write_bytes(b"content"))
    assert (tmp_path / "made" / "file").read_bytes() == b"content"
    assert [each.name for each in tmp_path.iterdir()] == ["made"]
    assert other
