"""Reading and writing the container of a package."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from hardpoint.errors import PackageError
from hardpoint.package import strict_json, writer, zip_layout
from hardpoint.package.archive import Archive
from hardpoint.package.refusal import MalformedError
from hardpoint.package.writer import ArchiveWriter
from package_forge import Part, forge, standard

names = st.lists(
    st.text("abcXYZ019_.-é", min_size=1, max_size=8).filter(lambda t: t not in (".", "..")),
    min_size=1,
    max_size=3,
).map("/".join)


def write(path: Path, entries: dict[str, bytes]) -> Path:
    with ArchiveWriter(path) as made:
        for name, data in entries.items():
            made.add(name, data)
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


# -- what is written is read -----------------------------------------------------------------------


@given(entries=st.dictionaries(names, st.binary(max_size=300), max_size=8))
def test_every_entry_reads_back_as_it_was_written(entries, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("a") / "a.pt2", {f"x/{n}": d for n, d in entries.items()})
    with Archive.open(path) as archive:
        got = {n: bytes(archive.view(n)) for n in archive.entries if n.startswith("x/")}
        assert got == {f"x/{n}": d for n, d in entries.items()}
        assert all(e.offset % 64 == 0 for e in archive.entries.values())


def test_the_same_entries_give_the_same_bytes(tmp_path):
    one = write(tmp_path / "one.pt2", {"a": b"1", "b": b"2" * 5000})
    two = write(tmp_path / "two.pt2", {"a": b"1", "b": b"2" * 5000})
    assert one.read_bytes() == two.read_bytes()


def test_the_size_and_hash_of_each_entry_are_known_when_written(tmp_path):
    with ArchiveWriter(tmp_path / "a.pt2") as made:
        made.add("x", memoryview(bytearray(b"abc")))
        assert made.digests["x"].bytes == 3
        assert made.digests["x"].sha256.startswith("ba7816bf8f01cfea")


def test_any_contiguous_buffer_is_accepted(tmp_path):
    import array

    path = tmp_path / "a.pt2"
    with ArchiveWriter(path) as made:
        made.add("doubles", memoryview(array.array("d", [1.0, 2.0])))
        made.add("none", memoryview(array.array("d", [])))
    with Archive.open(path) as archive:
        assert (len(archive.view("doubles")), len(archive.view("none"))) == (16, 0)


def test_pythons_and_pytorchs_readers_open_what_we_write(tmp_path):
    import torch

    path = write(tmp_path / "a.pt2", {"x/y": b"hello", "empty": b"", "big": bytes(200_000)})
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("hardpoint/x/y") == b"hello"
    reader = torch._C.PyTorchFileReader(str(path))
    assert reader.get_record("x/y") == b"hello"
    assert reader.get_record("empty") == b""
    assert reader.get_record("big") == bytes(200_000)


def test_we_open_what_pytorch_writes(tmp_path):
    from torch.export.pt2_archive._package import PT2ArchiveWriter

    path = tmp_path / "theirs.pt2"
    with PT2ArchiveWriter(str(path)) as made:
        made.write_bytes("data/x", bytes(range(200)))
        made.write_string("extra/note", "hello")
        made.write_bytes("data/none", b"")
    with Archive.open(path) as archive:
        assert archive.root == "theirs"
        assert bytes(archive.view("data/x")) == bytes(range(200))
        assert archive.entries["data/none"].size == 0


def test_an_entry_of_more_than_4_gib_is_written_and_read(tmp_path):
    # The file is sparse: only its headers take room on the disk.
    path = write(tmp_path / "a.pt2", {})
    size = 5 << 30
    with path.open("r+b") as file:
        with Archive.open(path) as small:
            parts = {n: bytes(small.view(n)) for n in small.entries}
        file.truncate(0)
        records, at = [], 0
        for name, data in [*parts.items(), ("big", b""), ("after", b"end")]:
            length = size if name == "big" else len(data)
            crc = 0 if name == "big" else zlib_crc(data)
            record = writer._Written(f"hardpoint/{name}".encode(), crc, length, at)
            header = writer._local_header(record)
            file.seek(at)
            file.write(header + data)
            at += len(header) + length
            records.append(record)
        directory = b"".join(map(writer._central_header, records))
        file.seek(at)
        file.write(directory + writer._end(len(records), at, len(directory)))
    with Archive.open(path) as archive:
        assert archive.entries["big"].size == size
        assert archive.entries["after"].offset > size
        assert bytes(archive.view("after")) == b"end"
    with zipfile.ZipFile(path) as other:
        assert other.getinfo("hardpoint/big").file_size == size
        assert other.read("hardpoint/after") == b"end"


def zlib_crc(data: bytes) -> int:
    import zlib

    return zlib.crc32(data)


# -- views -----------------------------------------------------------------------------------------


def test_a_view_is_read_only_and_copies_nothing(tmp_path):
    with Archive.open(write(tmp_path / "a.pt2", {"x": b"abc", "y": b"def"})) as archive:
        with pytest.raises(TypeError, match="read-only"):
            archive.view("x")[0] = 1
        offsets = archive.entries["y"].offset - archive.entries["x"].offset
        assert address(archive.private("y")) - address(archive.private("x")) == offsets


def test_writing_into_private_memory_never_reaches_the_file(tmp_path):
    path = write(tmp_path / "a.pt2", {"x": b"abc"})
    with Archive.open(path) as archive:
        archive.private("x")[0] = ord("z")
        assert bytes(archive.view("x")) == b"zbc"
    with Archive.open(path) as again:
        assert bytes(again.view("x")) == b"abc"


def test_a_view_outlives_the_archive(tmp_path):
    archive = Archive.open(write(tmp_path / "a.pt2", {"x": b"abc"}))
    view = archive.view("x")
    archive.close()
    archive.close()
    assert bytes(view) == b"abc"
    with pytest.raises(PackageError) as error:
        archive.view("x")
    assert str(error.value) == (
        f"{archive.path} is closed\n"
        "  cause: an entry was asked for after close()\n"
        "  remedy: open the package again"
    )


def test_an_entry_that_is_not_there_is_named(tmp_path):
    path = write(tmp_path / "a.pt2", {})
    with Archive.open(path) as archive, pytest.raises(PackageError) as error:
        archive.view("models/model.json")
    assert str(error.value) == (
        f"{path} is not a usable package\n"
        "  cause: it has no entry 'models/model.json'\n"
        "  remedy: get the file again from where it was made; if it is bad there too, save it again"
    )


def test_a_file_that_is_not_there_or_not_readable_is_reported(tmp_path):
    wrong = {tmp_path / "no.pt2": "No such file or directory", tmp_path: "Is a directory"}
    for path, cause in wrong.items():
        with pytest.raises(PackageError) as error:
            Archive.open(path)
        assert str(error.value) == (
            f"{path} is not a usable package\n"
            f"  cause: it cannot be read: {cause}\n"
            "  remedy: check the path and its permissions"
        )


def test_reading_an_archive_imports_no_torch(tmp_path):
    path = write(tmp_path / "a.pt2", {"x": b"abc"})
    script = (
        "import sys; from hardpoint.package.archive import Archive; "
        "from hardpoint.package import integrity, summary, writer, verification; "
        f"Archive.open({str(path)!r}).view('x'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# -- atomic writing --------------------------------------------------------------------------------


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write(tmp_path / "a.pt2", {"x": b"old"})
    before = path.read_bytes()

    def interrupted():
        with ArchiveWriter(path) as made:
            made.add("x", b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == before
    assert files(tmp_path) == ["a.pt2"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = write(tmp_path / "a.pt2", {"x": b"old"})
    before = path.read_bytes()
    script = (
        "import os, signal; from hardpoint.package.writer import ArchiveWriter\n"
        f"with ArchiveWriter({str(path)!r}) as made:\n"
        "    made.add('x', bytes(1_000_000)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == before


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.pt2"
    script = (
        "import resource, signal; from hardpoint.package.writer import ArchiveWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        f"    with ArchiveWriter({str(path)!r}) as made: made.add('x', bytes(1_000_000))\n"
        "except Exception as error: print(type(error).__name__, error, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == (
        "PackageError\n"
        f"{path} could not be written\n"
        "  cause: File too large\n"
        "  remedy: check the folder, its permissions and the free space, then save again\n"
    )
    assert files(tmp_path) == []


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path):
    with pytest.raises(PackageError, match="could not be written\n  cause: No such file"):
        ArchiveWriter(tmp_path / "no" / "a.pt2").__enter__()


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_files_mode_follows_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        path = write(tmp_path / "a.pt2", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize(
    "name",
    ["", "/a", "a//b", "a/", "../a", "a/../b", "./a", "a\\b", "a\0b", "a\nb", "C:/a", "x" * 2000],
)
def test_an_unusable_name_is_refused(tmp_path, name):
    with pytest.raises(PackageError, match="could not be written"):
        write(tmp_path / "a", {name: b""})
    assert files(tmp_path) == []


def test_a_name_is_written_once(tmp_path):
    with pytest.raises(PackageError, match="entry 'byteorder' is written twice"):
        write(tmp_path / "a", {"byteorder": b"big"})


def test_a_closed_writer_takes_nothing(tmp_path):
    made = ArchiveWriter(tmp_path / "a.pt2")
    with made:
        pass
    with pytest.raises(PackageError, match="it is not open for writing"):
        made.add("x", b"")


# -- JSON ------------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | finite | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


def parse(data: bytes):
    return strict_json.parse(data, what="it", max_bytes=100_000)


@given(values)
def test_json_reads_back_and_its_canonical_form_is_one(value):
    try:
        data = strict_json.canonical(value)
    except UnicodeEncodeError:  # lone surrogates have no UTF-8
        return
    assert parse(data) == value
    assert strict_json.canonical(parse(data)) == data


@given(st.binary(max_size=200))
def test_json_is_what_the_standard_library_reads_or_refused(data):
    try:
        value = parse(data)
    except MalformedError:
        return
    assert value == json.loads(data.decode())


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b'{"a": 1, "a": 2}', "it is not valid JSON: the key 'a' stands twice in one object"),
        (b"[NaN]", "it is not valid JSON: NaN is not a number"),
        (b"[-Infinity]", "it is not valid JSON: -Infinity is not a number"),
        (b"[1e999]", "it is not valid JSON: 1e999 is too large a number"),
        (b"[" * 300 + b"]" * 300, "it is nested deeper than 200 levels"),
        (b"[" * 49_000 + b"]" * 49_000, "it is nested deeper than 200 levels"),
        (b" " * 100_001, "it has 100001 bytes; at most 100000 are read as JSON"),
        (b"{", "it is not valid JSON: Expecting property name enclosed in double quotes"),
        (b"\xff", "it is not valid JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"1" * 5000, "it is not valid JSON: Exceeds the limit"),
    ],
    ids=range(10),
)
def test_json_that_is_not_strict_is_refused(data, cause):
    with pytest.raises(MalformedError) as error:
        parse(data)
    assert error.value.cause.startswith(cause)


# -- the layout ------------------------------------------------------------------------------------


def test_the_forge_of_these_tests_makes_archives_that_are_accepted():
    root, entries = zip_layout.parse(memoryview(forge(standard(Part("x", b"abc")))))
    assert (root, entries["x"].size) == ("r", 3)


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data):
    with pytest.raises(MalformedError):
        zip_layout.parse(memoryview(data))


# -- pages are given back --------------------------------------------------------------------------


def resident_of(path: Path) -> int:
    """Bytes of a file's mappings that are in this process's memory."""
    found, counting = 0, False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            counting = line.endswith(str(path))
        elif counting and first == "Rss:":
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and madvise(2) is Linux's")
def test_pages_that_are_given_back_leave_memory_and_come_again_from_the_file(tmp_path):
    data = {f"x/{i}": bytes([i]) * (100_000 + i) for i in range(20)}
    kept = {"y/kept": b"k" * 300_000, "y/small": b"s" * 200}
    first = {name: data[name] for name in list(data)[:10]}
    path = write(tmp_path / "a.pt2", {**first, **kept, **data})
    with Archive.open(path) as archive:
        views = {name: archive.private(name) for name in (*data, *kept)}
        assert all(bytes(views[name]) == content for name, content in data.items())
        for name in kept:
            views[name][150] = ord("w")  # private: it never reaches the file
        before = resident_of(path)
        assert before > 2_000_000
        archive.give_back(data)
        assert resident_of(path) < before - 1_900_000
        assert all(bytes(views[name]) == content for name, content in data.items())
        assert all(views[name][150] == ord("w") for name in kept)
        with pytest.raises(PackageError, match="has no entry 'z'"):
            archive.give_back(["z"])
        views.clear()
    archive.give_back(data)  # closed: there is nothing to give back


@pytest.mark.skipif(sys.platform != "linux", reason="mlock(2) and madvise(2) are Linux's")
def test_pages_that_are_locked_stay_and_nothing_fails(tmp_path):
    """As all of a process are that called mlockall(2): madvise(2) refuses them."""
    path = write(tmp_path / "a.pt2", {"x": b"x" * 40_000})
    with Archive.open(path) as archive:
        view = archive.private("x")
        page = -(-address(view) // mmap.PAGESIZE) * mmap.PAGESIZE
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mlock(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE)):
            pytest.skip(f"this process may lock no memory: {os.strerror(ctypes.get_errno())}")
        archive.give_back(["x"])
        assert bytes(view) == b"x" * 40_000
        del view


def test_a_key_that_stands_twice_among_very_many_is_found_at_once():
    """Counting each name over all others took 25 s for 429 kB, and hours for what may be read."""
    many = ", ".join(f'"{i}": 0' for i in range(400_000))
    with pytest.raises(MalformedError, match="the key '399999' stands twice in one object"):
        strict_json.parse(f'{{{many}, "399999": 1}}'.encode(), what="entry 'x'", max_bytes=1 << 28)
