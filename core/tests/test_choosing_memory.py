"""What is remembered of measurements: for whom it holds, and what happens to the files."""

import os
import re
import sqlite3
import subprocess
import sys

import pytest
import torch
from torch import nn

import hardpoint as hp
from hardpoint.choosing import identity
from hardpoint.choosing.cache import cache_folder, open_cache, size_limit
from hardpoint.choosing.database import NAME, Database, Known

KEY = ("program", "machine", "environment", "candidate")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HARDPOINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def linear(**changes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval()
    with torch.no_grad():
        for name, value in changes.items():
            model.get_parameter(name.replace("_", "."))[0] = value
    return model


def captured(model, x=None):
    return hp.capture(model, (torch.ones(3, 8) if x is None else x,), dynamic={"input": {0: "n"}})


def test_the_same_program_has_the_same_hash_however_often_it_is_captured():
    assert identity.of_program(captured(linear())) == identity.of_program(captured(linear()))


def test_one_weight_one_input_or_one_operator_more_is_another_program():
    found = {
        identity.of_program(program)
        for program in (
            captured(linear()),
            captured(linear(**{"0_bias": 7.0})),
            captured(linear(), torch.full((3, 8), 2.0)),
            captured(nn.Sequential(*linear(), nn.ReLU()).eval()),
            hp.capture(linear(), (torch.ones(3, 8),)),
        )
    }
    assert len(found) == 5


def test_the_hash_is_the_same_in_another_process(tmp_path):
    code = (
        "import torch, hardpoint as hp\n"
        "from torch import nn\n"
        "from hardpoint.choosing import identity\n"
        "torch.manual_seed(0)\n"
        "model = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval()\n"
        "program = hp.capture(model, (torch.ones(3, 8),), dynamic={'input': {0: 'n'}})\n"
        "print(identity.of_program(program), identity.of_machine(2))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [identity.of_program(captured(linear())), identity.of_machine(2)]


def test_threads_and_configuration_are_part_of_what_figures_hold_for():
    assert identity.of_machine(1) != identity.of_machine(2)
    registry = hp.Registry()
    before = identity.of_backends(registry, ["cpu"])
    registry.configure("backend", "cpu", {"operators": ["torchvision"]})
    assert identity.of_backends(registry, ["cpu"]) != before


def test_what_is_kept_comes_back():
    cache = open_cache()
    assert cache.database.candidate(*KEY) is None
    known = Known({"label": "x"}, "abc", 2, {"seconds": 3.0})
    cache.database.keep_candidate(KEY, known)
    cache.database.keep_choice(KEY, {"winner": "x"}, "abc")
    cache.close()
    cache = open_cache()
    assert cache.database.candidate(*KEY) == known
    assert cache.database.choice(*KEY) == ({"winner": "x"}, "abc")
    cache.close()


def corrupted(path):
    path.write_bytes(b"SQLite format 3\0" + b"rubbish" * 1000)


def foreign(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")


def newer(path):
    Database(path).close()
    with sqlite3.connect(path) as ours:
        ours.execute("PRAGMA user_version = 99")


def torn(path):
    database = Database(path)
    for i in range(500):
        database.keep_candidate((*KEY[:3], str(i)), Known({"a": "b" * 200}, None, 1, {}))
    database.close()
    data = bytearray(path.read_bytes())
    data[8192:40960] = os.urandom(40960 - 8192)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (corrupted, "file is not a database|malformed"),
        (foreign, "it is another program's database"),
        (newer, "it is of version 99, and this hardpoint keeps version 1"),
        (torn, "malformed|[Tt]ree|page"),
    ],
)
def test_an_unusable_database_is_put_aside_with_one_warning(folder, spoil, says):
    folder.mkdir(mode=0o700)
    spoil(folder / NAME)
    with pytest.warns(hp.HardpointWarning) as caught:
        cache = open_cache()
    [message] = [str(w.message) for w in caught]
    assert message.startswith(f"the database of measurements {folder / NAME} cannot be used: ")
    assert re.search(says, message), message
    assert message.endswith(f"it was renamed to {NAME}.unusable, and measuring starts anew")
    assert (folder / f"{NAME}.unusable").exists()
    cache.database.keep_candidate(KEY, Known({}, None, 1, {}))
    cache.close()
    open_cache().close()  # and no warning any more


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX permissions")
def test_a_folder_that_others_may_write_to_is_not_used(folder):
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.warns(hp.HardpointWarning, match="others may write to it; name another folder with HARDPOINT_CACHE"):  # fmt: skip
        assert open_cache() is None


def test_a_folder_that_cannot_be_made_is_one_warning(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARDPOINT_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(hp.HardpointWarning, match="measurements are not remembered: .*below cannot be used"):  # fmt: skip
        assert open_cache() is None


WRITE = """
import sys
from hardpoint.choosing.cache import open_cache
from hardpoint.choosing.database import Known

cache = open_cache()
for i in range(40):
    cache.database.keep_candidate(("p", "m", "e", f"{sys.argv[1]} {i}"), Known({"i": i}, None, 1, {}))
cache.close()
"""


def test_several_processes_may_write_at_a_time():
    writers = [subprocess.Popen([sys.executable, "-W", "error", "-c", WRITE, str(n)]) for n in range(3)]  # fmt: skip
    assert [w.wait() for w in writers] == [0, 0, 0]
    cache = open_cache()
    for n in range(3):
        for i in range(40):
            assert cache.database.candidate("p", "m", "e", f"{n} {i}").row == {"i": i}
    cache.close()


def test_one_measures_at_a_time(tmp_path):
    cache, other, waited = open_cache(), open_cache(), []
    with cache.lock(0.0, lambda: None) as alone:
        assert alone
        with other.lock(0.0, lambda: waited.append(1)) as second:
            assert not second
        assert waited == [1]
    with other.lock(0.0, lambda: waited.append(2)) as second:
        assert second
    assert waited == [1]
    cache.close()
    other.close()


def test_a_package_that_was_changed_is_not_used(folder, tmp_path):
    cache = open_cache()
    (tmp_path / "a").write_bytes(b"one")
    digest = cache.put(tmp_path / "a")
    assert cache.get(digest).read_bytes() == b"one"
    cache.path(digest).write_bytes(b"two")
    with pytest.warns(hp.HardpointWarning, match="was changed since it was written"):
        assert cache.get(digest) is None
    assert cache.get(digest) is None  # it is gone
    cache.close()


def test_what_was_not_used_for_longest_goes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("HARDPOINT_CACHE_SIZE", "0.00000025")  # 250 bytes
    cache, digests = open_cache(), []
    for i in range(4):
        (tmp_path / "a").write_bytes(bytes([i]) * 100)
        digests.append(cache.put(tmp_path / "a"))
        os.utime(cache.path(digests[i]), (1000 + i, 1000 + i))
    assert cache.get(digests[1]) is not None  # used just now
    cache.trim(keep=digests[0])
    assert [cache.path(d).exists() for d in digests] == [True, True, False, False]
    cache.close()


def test_the_limit_must_be_a_number(monkeypatch):
    monkeypatch.setenv("HARDPOINT_CACHE_SIZE", "lots")
    with pytest.raises(hp.ConfigError, match="'lots', which is no number of gigabytes"):
        size_limit()
    with pytest.raises(hp.ConfigError):  # before anything is measured
        open_cache()
    monkeypatch.setenv("HARDPOINT_CACHE_SIZE", "inf")
    with pytest.raises(hp.ConfigError, match="'inf', which is no number of gigabytes"):
        open_cache()


def test_the_folder_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("HARDPOINT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "hardpoint"


def test_what_a_killed_measurement_left_is_removed():
    cache = open_cache()
    (cache.work() / "left.pt2").write_bytes(b"x")
    assert list(cache.work().iterdir()) == []
    cache.close()
