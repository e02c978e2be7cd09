"""Saving: all or nothing, the same bytes each time, and no surprise in what is written."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from hardpoint import WeightsError
from hardpoint.storage import atomic


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def leftovers(directory):
    return [path for path in directory.iterdir() if path.name.startswith(".")]


def test_the_file_is_exactly_these_bytes(serializer, path):
    tensors = {
        "b": torch.tensor([1, 2], dtype=torch.uint8),
        "z": torch.tensor([1.0]),
        "a": torch.tensor(-2.0),
        "w": torch.tensor([[3]], dtype=torch.int64),
    }
    serializer.save(tensors, path, metadata={"y": "2", "x": "ö"})
    text = (
        '{"__metadata__":{"x":"ö","y":"2"},'
        '"w":{"dtype":"I64","shape":[1,1],"data_offsets":[0,8]},'
        '"a":{"dtype":"F32","shape":[],"data_offsets":[8,12]},'
        '"z":{"dtype":"F32","shape":[1],"data_offsets":[12,16]},'
        '"b":{"dtype":"U8","shape":[2],"data_offsets":[16,18]}}'
    ).encode()
    assert path.read_bytes() == (
        (312).to_bytes(8, "little")
        + text.ljust(312)
        + bytes.fromhex("0300000000000000 000000c0 0000803f 0102")
    )


def test_six_saves_have_one_hash(serializer, tmp_path):
    tensors = {f"t{i}": torch.full((i,), i) for i in range(9)}
    metadata = {f"k{i}": str(i) for i in range(9)}
    hashes = set()
    for turn in range(6):
        order = sorted(tensors, key=lambda name: hash((name, turn)))
        path = tmp_path / f"{turn}.safetensors"
        serializer.save(
            {name: tensors[name] for name in order},
            path,
            metadata=dict(sorted(metadata.items(), key=lambda item: hash((item, turn)))),
        )
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_tensors_lie_aligned_in_the_file(serializer, path):
    tensors = {
        "odd": torch.zeros(3, dtype=torch.uint8),
        "wide": torch.zeros(5, dtype=torch.float64),
        "half": torch.zeros(7, dtype=torch.bfloat16),
    }
    serializer.save(tensors, path)
    with serializer.open(path) as reader:
        assert list(reader) == ["wide", "half", "odd"]
        assert reader.tensor("wide").data_ptr() % 64 == 0
        assert all(reader.tensor(n).data_ptr() % t.element_size() == 0 for n, t in tensors.items())


def test_nothing_but_a_header_is_saved_of_no_tensors(serializer, path):
    serializer.save({}, path)
    assert path.stat().st_size == 64
    assert load_file(path) == {}


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
        lambda: torch.empty(3, 0, 2),
        lambda: torch.tensor(5),
    ],
    ids=["transposed", "strided", "expanded", "conj", "neg", "parameter", "graph", "empty", "scalar"],
)  # fmt: skip
def test_the_values_are_what_the_tensor_shows(serializer, path, make):
    tensor = make()
    serializer.save({"t": tensor}, path)
    assert torch.equal(load_file(path)["t"], tensor.detach().resolve_conj().resolve_neg())


def test_tensors_that_share_memory_are_each_written_whole(serializer, path):
    base = torch.arange(6.0)
    serializer.save({"all": base, "same": base, "part": base[2:4]}, path)
    loaded = load_file(path)
    assert torch.equal(loaded["same"], base)
    assert torch.equal(loaded["part"], torch.tensor([2.0, 3.0]))


def test_a_file_can_be_saved_over_itself_while_it_is_mapped(serializer, path):
    serializer.save({"a": torch.arange(1000)}, path)
    with serializer.open(path) as reader:
        mapped = reader.tensor("a")
        serializer.save({"a": mapped, "b": torch.zeros(1)}, path)
        assert torch.equal(mapped, torch.arange(1000))
    assert torch.equal(load_file(path)["a"], torch.arange(1000))


class Wrapper(torch.Tensor):
    """A tensor that is not plain memory."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError("saving must not compute on it")


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch says that these kinds are not final
@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda: {"t": torch.empty(2, device="meta")}, "meta device"),
        (lambda: {"t": torch.eye(2).to_sparse()}, "sparse"),
        (lambda: {"t": torch.eye(2).to_sparse_csr()}, "sparse"),
        (lambda: {"t": torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)}, "quantized"),
        (lambda: {"t": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, "nested"),
        (lambda: {"t": torch.ones(2, dtype=torch.complex128)}, "no dtype for torch.complex128"),
        (
            lambda: {"t": torch.ones((), dtype=torch.uint8).view(torch.float4_e2m1fn_x2)},
            "a scalar of",
        ),
        (lambda: {"t": Wrapper(torch.ones(2))}, "Wrapper is not plain memory"),
        (lambda: {"t": torch.nn.LazyLinear(3).weight}, "no shape yet"),
        (lambda: {"t": 1.0}, "it is float, not a tensor"),
        (lambda: {"t": None}, "it is NoneType, not a tensor"),
        (lambda: {"__metadata__": torch.ones(1)}, "no name"),
        (lambda: {"\ud800": torch.ones(1)}, "no name"),
        (lambda: {1: torch.ones(1)}, "no name"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_and_nothing_is_written(
    serializer, path, make, cause
):
    path.write_bytes(b"old")
    with pytest.raises(WeightsError, match="cannot be saved") as caught:
        serializer.save({"good": torch.ones(1), **make()}, path)
    assert cause in caught.value.cause
    assert caught.value.remedy
    assert path.read_bytes() == b"old"
    assert leftovers(path.parent) == []


@pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, {"a": "\ud800"}, {"\ud800": "a"}])
def test_metadata_is_text(serializer, path, metadata):
    with pytest.raises(WeightsError, match="is not text"):
        serializer.save({}, path, metadata=metadata)


def test_a_header_past_its_limit_is_not_written(serializer, path):
    with pytest.raises(WeightsError, match="header is too large"):
        serializer.save({}, path, metadata={"a": "x" * 100_000_000})
    assert not path.exists()


def test_an_index_is_not_written(serializer, tmp_path):
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        with pytest.raises(WeightsError, match="saved to one file"):
            serializer.save({}, path)


def test_a_tensor_that_changes_while_it_is_saved_stops_the_save(serializer, path):
    class Restless(dict):
        asked = 0

        def __getitem__(self, name):
            self.asked += 1
            return torch.ones(self.asked)

        def items(self):
            return ((name, self[name]) for name in self)

    path.write_bytes(b"old")
    with pytest.raises(WeightsError, match="changed while it was saved"):
        serializer.save(Restless(t=None), path)
    assert path.read_bytes() == b"old"
    assert leftovers(path.parent) == []


# --- the file system


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_the_umask_leaves(serializer, path, umask):
    before = os.umask(umask)
    try:
        serializer.save({}, path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_replaced_file_keeps_its_mode(serializer, path):
    path.write_bytes(b"old")
    path.chmod(0o604)
    serializer.save({}, path)
    assert path.stat().st_mode & 0o777 == 0o604


def test_a_link_is_replaced_and_what_it_points_to_is_left_alone(serializer, path, tmp_path):
    target = tmp_path / "blob"
    target.write_bytes(b"shared")
    path.symlink_to(target)
    serializer.save({}, path)
    assert target.read_bytes() == b"shared"
    assert not path.is_symlink()


def test_a_missing_directory_is_an_error(serializer, tmp_path):
    with pytest.raises(WeightsError, match="cannot be written") as caught:
        serializer.save({}, tmp_path / "missing" / "model.safetensors")
    assert "No such file or directory" in caught.value.cause


def test_what_only_looks_like_a_temporary_file_of_ours_keeps_nobody_from_saving(serializer, path):
    os.mkfifo(path.parent / ".hardpoint-weights-0.tmp")
    (path.parent / ".hardpoint-weights-1.tmp").mkdir()
    (path.parent / ".hardpoint-weights-2.tmp").symlink_to(path)
    serializer.save({}, path)
    assert len(leftovers(path.parent)) == 3


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_can_be_saved_to_and_is_not_swept(
    serializer, path, monkeypatch, code
):
    def no_locks(descriptor, operation):
        raise OSError(code, os.strerror(code))

    other = path.parent / ".hardpoint-weights-0123456789abcdef.tmp"
    other.write_bytes(b"perhaps being written")
    monkeypatch.setattr("fcntl.flock", no_locks)
    serializer.save({}, path)
    assert path.exists()
    assert leftovers(path.parent) == [other]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from hardpoint_safetensors.serializer import SafetensorsSerializer

class Deadly(dict):
    "Kills the process when the tensor is asked for to be written, half of the file being written."
    def __getitem__(self, name):
        if name == "z":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(name)

tensors = Deadly(a=torch.ones(1000), z=torch.ones(1000))
SafetensorsSerializer().save(tensors, Path(sys.argv[1]))
"""


def test_kill_9_leaves_the_old_file_and_the_next_save_sweeps_the_rest(serializer, path):
    serializer.save({"a": torch.zeros(3)}, path)
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    (stale,) = leftovers(path.parent)
    assert stale.stat().st_size > 8000
    serializer.save({"a": torch.ones(3)}, path)
    assert leftovers(path.parent) == []
    assert load_file(path)["a"].sum() == 3


def test_only_temporary_files_of_dead_writers_of_ours_are_swept(serializer, path):
    theirs = path.parent / ".tmpAbCdEf"
    theirs.write_bytes(b"another program's")
    stale = path.parent / ".hardpoint-weights-0123456789abcdef.tmp"
    stale.write_bytes(b"a dead writer's")
    with atomic._temporary(path.parent) as (_, living):
        serializer.save({}, path)
        assert living.exists()
        assert not stale.exists()
        assert theirs.exists()
        living.unlink()


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from hardpoint import WeightsError
from hardpoint_safetensors.serializer import SafetensorsSerializer

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    SafetensorsSerializer().save({"a": torch.ones(10_000)}, Path(sys.argv[1]))
except WeightsError as error:
    print(error)
"""


def test_a_file_that_does_not_fit_fails_before_the_first_byte(path):
    """The limit on file sizes stands in for a full disk: the same call meets it first."""
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, path], capture_output=True, text=True, check=False
    )
    assert "the file cannot be written" in done.stdout
    assert os.strerror(errno.EFBIG) in done.stdout
    assert path.read_bytes() == b"old"
    assert leftovers(path.parent) == []


FULL_DISK = """
import sys
from pathlib import Path
import torch
from hardpoint import WeightsError
from hardpoint_safetensors.serializer import SafetensorsSerializer

path, serializer = Path(sys.argv[1]) / "model.safetensors", SafetensorsSerializer()
serializer.save({"a": torch.zeros(3)}, path)
try:
    serializer.save({"a": torch.ones(100_000)}, path)
except WeightsError as error:
    print(error.cause)
print(serializer.open(path).tensor("a").tolist(), [p.name for p in path.parent.iterdir()])
"""


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """On a real file system of 64 KiB, where the machine lets us mount one in a namespace."""
    mount = 'mount -t tmpfs -o size=64k none "$1"'
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare(1) here")
    inside = [unshare, "-rm", "sh", "-c"]
    if subprocess.run(
        [*inside, mount, "sh", tmp_path], check=False, capture_output=True
    ).returncode:
        pytest.skip("this machine lets nobody mount a small file system")
    run = [*inside, f'{mount} && "$2" -c "$3" "$1"', "sh", tmp_path, sys.executable, FULL_DISK]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert os.strerror(errno.ENOSPC) in done.stdout
    assert done.stdout.endswith("[0.0, 0.0, 0.0] ['model.safetensors']\n")
