"""A file is written whole or not at all."""

import os
import stat
import subprocess
import sys
import time

import pytest

from hardpoint.files import write_atomically


def test_text_and_bytes_are_written_and_replace_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, "gr\u00fc\u00df\n")
    assert path.read_bytes() == b"gr\xc3\xbc\xc3\x9f\n"
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_it_gets_the_mode_that_the_umask_leaves(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    path = tmp_path / ("n" * 255)
    write_atomically(path, "x")
    assert path.read_text() == "x"


def test_a_folder_is_not_replaced_and_nothing_is_left_behind(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(folder, "x")
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "a", "x")
    assert list(tmp_path.iterdir()) == [folder]


def test_text_that_has_no_bytes_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    source = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from hardpoint.files import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_atomically(Path(sys.argv[1]), bytes(5000))\n"
    )
    ran = subprocess.run([sys.executable, "-c", source, str(path)], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "OSError: [Errno 27] File too large" in ran.stderr
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_at_any_moment_it_leaves_the_old_file_or_the_whole_new_one(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0" * 4_000_000)
    source = (
        "import sys\nfrom pathlib import Path\nfrom hardpoint.files import write_atomically\n"
        "print('go', flush=True)\n"
        "while True:\n"
        "    for digit in b'0123456789':\n"
        "        write_atomically(Path(sys.argv[1]), bytes([digit]) * 4_000_000)\n"
    )
    for moment in range(8):
        child = subprocess.Popen([sys.executable, "-c", source, str(path)], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"go\n"
        time.sleep(0.013 * moment)
        child.kill()
        child.wait()
        child.stdout.close()
        found = path.read_bytes()
        assert len(found) == 4_000_000
        assert len({*found}) == 1
