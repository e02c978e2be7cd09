"""Directories that nobody may write to, writers that are killed, files larger than memory."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hardpoint as hp
from own_memory import GROWN

# -- a read-only directory -------------------------------------------------------------------------

# Prints, of each attempt, what it ended with; and whether anything in the folder is another.
ATTEMPTS = """
import json, os, subprocess, sys
from pathlib import Path
import torch
import hardpoint as hp
from hardpoint.cli import main
from hardpoint.registry.registry import default_registry
from hardpoint.weights import convert_weights

how, folder = sys.argv[1], Path(sys.argv[2])
if how == "file system":
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
old, new = {"array": torch.zeros(3)}, {"array": torch.ones(1000)}
files = [folder / name for name in ("model.safetensors", "model.npz", "model.npy")]
for file in files:
    hp.save_weights(old, file)
hp.save_weights(old, folder / "saved", format="dcp")
registry = default_registry()
convert_weights(files[0], folder / "set", registry=registry, shard_size=100)
source = Path(sys.argv[3])
hp.save_weights(new, source)

def content():
    return {str(p): p.is_file() and p.read_bytes() for p in sorted(folder.rglob("*"))}

before = content()
if how == "file system":
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
else:
    for place in (folder, folder / "set", folder / "saved"):
        place.chmod(0o555)
errors = {}

def attempt(what, work):
    try:
        work()
    except BaseException as error:
        errors[what] = [type(error).__name__, str(error)]
    else:
        errors[what] = ["nothing", ""]

for file in files:
    attempt(f"save {file.name}", lambda: hp.save_weights(new, file))
    attempt(f"convert {file.name}", lambda: convert_weights(source, file, registry=registry, force=True))
attempt("save saved", lambda: hp.save_weights(new, folder / "saved", format="dcp"))
attempt("convert set", lambda: convert_weights(source, folder / "set", registry=registry, shard_size=100, force=True))
attempt("convert another", lambda: convert_weights(source, folder / "another.npz", registry=registry))
print(json.dumps({"errors": errors, "unchanged": content() == before}))
"""


def mounting() -> list[str]:
    """What a command must begin with to mount file systems; skips where nobody may."""
    found = shutil.which("unshare")
    if found is None:
        pytest.skip("no unshare(1) here")
    inside = [found, "-rm"]
    tried = subprocess.run([*inside, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    if tried.returncode:
        pytest.skip("this machine lets nobody mount a file system")
    return inside


def obeying() -> list[str]:
    """What a command must begin with so that permissions hold for it, too; root has none to obey."""
    if os.geteuid():
        return []
    found = shutil.which("setpriv")
    if found is None:
        pytest.skip("no setpriv(1) here, and root may write everywhere")
    return [found, "--bounding-set", "-dac_override,-dac_read_search"]


@pytest.mark.skipif(sys.platform != "linux", reason="mounts and capabilities are Linux's")
@pytest.mark.parametrize("how", ["file system", "permissions"])
def test_in_a_directory_that_is_read_only_all_stays_and_the_error_is_one(tmp_path, how):
    first = mounting() if how == "file system" else obeying()
    folder, source = tmp_path / "folder", tmp_path / "source.safetensors"
    folder.mkdir()
    command = [*first, sys.executable, "-c", ATTEMPTS, how, str(folder), str(source)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["unchanged"]
    assert len(told["errors"]) == 9
    why = {"file system": errno.EROFS, "permissions": errno.EACCES}[how]
    for what, (kind, text) in told["errors"].items():
        assert kind == "WeightsError", what
        assert "cannot be written" in text.splitlines()[0], what
        assert f"cause: [Errno {why}] {os.strerror(why)}" in text, what
        assert "remedy: check the" in text, what
        assert what.partition(" ")[2] in text.splitlines()[0], what


# -- kill -9 ---------------------------------------------------------------------------------------

# Children are forked from a process that has imported all and computed nothing: no thread is lost.
KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from hardpoint.registry.registry import default_registry
from hardpoint.weights import convert_weights, load_weights
import hardpoint.storage.own, hardpoint.weights.provenance

torch.set_num_threads(1)
goal, *sources = map(Path, sys.argv[1:])
registry = default_registry()

def convert(number):
    convert_weights(sources[number % 2], goal, registry=registry, force=True)

def start(number):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)
            convert(number)
            status = 0
        finally:
            os._exit(status)
    return child

def held():
    values = load_weights(goal, registry=registry, mode="own").values()
    return sorted({float(bound) for each in values for bound in (each.min(), each.max())})

convert(0)  # all that is imported late is there
begun = time.monotonic()
assert os.waitstatus_to_exitcode(os.waitpid(start(0), 0)[1]) == 0
duration = time.monotonic() - begun
draw, there, outcomes = random.Random(int(os.environ["SEED"])), 0, {"old": 0, "new": 0}
for turn in range(KILLS):
    child = start(there + 1)
    # One in each part of the time that it takes, and somewhat past it.
    time.sleep(duration * 1.2 * (turn + draw.random()) / KILLS)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = held()
    assert found in ([float(there % 2)], [float((there + 1) % 2)]), (turn, found)
    new = found == [float((there + 1) % 2)]
    outcomes["new" if new else "old"] += 1
    there += new
convert(0)
print(json.dumps([outcomes, sorted(path.name for path in goal.parent.iterdir())]))
"""
KILLS = 24


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork(2)")
@pytest.mark.parametrize(
    ("source", "goal"),
    [("npz", "safetensors"), ("safetensors", "npz"), ("safetensors", "safetensors")],
)
def test_converting_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path, source, goal):
    """At random moments, one in each 24th of the time. The sources hold zeros and ones."""
    sources = [tmp_path / f"{number}.{source}" for number in range(2)]
    for number, path in enumerate(sources):
        hp.save_weights({f"t{at}": torch.full((500_000,), float(number)) for at in range(4)}, path)
    folder = tmp_path / "folder"
    folder.mkdir()
    program = KILLER.replace("KILLS", str(KILLS))
    command = [sys.executable, "-c", program, str(folder / f"goal.{goal}"), *map(str, sources)]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "SEED": "5"})
    assert ran.returncode == 0, ran.stderr
    outcomes, left = json.loads(ran.stdout)
    assert sum(outcomes.values()) == KILLS
    assert outcomes["old"] > 0
    assert left == [f"goal.{goal}"], "what dead writers left is swept by the next"


# -- more than there is memory ---------------------------------------------------------------------

MIB = 1 << 20
TENSORS, EACH = 6, 48 * MIB  # 288 MiB in all
# Beside the tensor at hand. Less than the 64 MiB that are promised: a second one in memory would show.
MOST = 40 * MIB
UNSYNCED = {**os.environ, "HARDPOINT_FSYNC": "0"}
STACKS = 32 * MIB  # of the threads that hash

# Tensors that are made when they are asked for, under a limit that all of them together would break.
LIMITED = """
import re, resource, sys
from collections.abc import Mapping
from pathlib import Path
import torch
import hardpoint as hp

path, checksum = Path(sys.argv[1]), sys.argv[2] == "checksum"
count, each, most = map(int, sys.argv[3:])

class Made(Mapping):
    names = dict.fromkeys(f"{number:02}" for number in range(count))
    def __getitem__(self, name):
        self.names[name]
        return torch.full((each // 4,), float(name))
    def __iter__(self):
        return iter(self.names)
    def __len__(self):
        return count

hp.save_weights({"w": torch.ones(3)}, path, checksum=checksum)
status = Path("/proc/self/status").read_text()
limit = (int(re.search(r"VmData:\\s+(\\d+)", status)[1]) << 10) + most
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    list(Made().values())
except RuntimeError as error:
    assert "allocate memory" in str(error), error
else:
    raise SystemExit("the limit holds nobody back")
hp.save_weights(Made(), path, checksum=checksum)
"""
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc"
)


def counted(path) -> dict[str, float]:
    """Of each tensor, the one value that it is made of; each is looked at alone."""
    found = {}
    with hp.open_weights(path) as reader:
        for name, info in reader.items():
            assert info.nbytes == EACH
            low, high = reader.tensor(name).aminmax()
            assert low == high
            found[name] = low.item()
    return found


EXPECTED = {f"{number:02}": float(number) for number in range(TENSORS)}


@needs_proc
@pytest.mark.parametrize(
    ("suffix", "checksum"),
    [("safetensors", "none"), ("safetensors", "checksum"), ("npz", "none"), ("dcp", "none")],
)
def test_saving_more_than_fits_into_memory_needs_a_tensor_and_some(tmp_path, suffix, checksum):
    """The kernel holds the process to its limit. A checksum is made of up to four at a time."""
    path = tmp_path / f"model.{suffix}"
    limit = MOST + (4 * EACH + STACKS if checksum == "checksum" else EACH)
    words = [str(path), checksum, *map(str, (TENSORS, EACH, limit))]
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, *words], capture_output=True, text=True,
        env={**UNSYNCED, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert counted(path) == EXPECTED


CONVERTING = (
    GROWN
    + """
import sys
from hardpoint.registry.registry import default_registry
from hardpoint.weights import convert_weights

source, goal, small = map(Path, sys.argv[1:4])
registry, to = default_registry(), sys.argv[4]
convert_weights(small, goal, registry=registry, to=to)  # all that it imports is there
print(grown(lambda: convert_weights(source, goal, registry=registry, to=to, force=True)))
"""
)


@needs_proc
@pytest.mark.parametrize(
    ("source", "to"),
    [
        ("pt", "safetensors"),
        ("safetensors", "numpy"),
        ("npz", "safetensors"),
        ("safetensors", "dcp"),
    ],
)
def test_converting_takes_no_more_memory_than_a_tensor_and_some(tmp_path, source, to):
    tensors = {name: torch.full((EACH // 4,), value) for name, value in EXPECTED.items()}
    path, goal = tmp_path / f"model.{source}", tmp_path / {"numpy": "new.npz"}.get(to, f"new.{to}")
    if source == "pt":
        torch.save(tensors, path)
    else:
        hp.save_weights(tensors, path)
    del tensors
    small = tmp_path / f"small.{source}"
    (torch.save if source == "pt" else hp.save_weights)({"w": torch.ones(3)}, small)
    command = [sys.executable, "-c", CONVERTING, str(path), str(goal), str(small), to]
    ran = subprocess.run(command, capture_output=True, text=True, env=UNSYNCED)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) << 10 < MOST + EACH
    assert counted(goal) == EXPECTED
