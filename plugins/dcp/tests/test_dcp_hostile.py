"""Checkpoints made to mislead: each is refused with its reason, and nothing in them runs."""

import io
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)

from hardpoint import WeightsError
from hardpoint_dcp.metadata import MAX_BYTES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
HUGE = 1 << 62


def tensor(metadata):
    return metadata.state_dict_metadata["w"]


def info(metadata):
    return next(v for k, v in metadata.storage_data.items() if k.fqn == "w")


def chunk(offsets, sizes):
    return ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))


def chunks(*boxes):
    def change(metadata):
        tensor(metadata).chunks = [chunk(*box) for box in boxes]

    return change


def place(**fields):
    return lambda metadata: vars(info(metadata)).update(fields)


def size(*sizes):
    def change(metadata):
        tensor(metadata).size = torch.Size(sizes)

    return change


def dtype(name):
    def change(metadata):
        tensor(metadata).properties = TensorProperties(dtype=getattr(torch, name))

    return change


def replaced(name, value):
    return lambda metadata: setattr(metadata, name, value)


def moved_value(metadata):
    """The value's item is where the tensor's is."""
    key = MetadataIndex("step")
    metadata.storage_data[key] = info(metadata)


def other(metadata):
    metadata.storage_data[MetadataIndex("ghost", [0])] = _StorageInfo("__0_0.distcp", 1 << 20, 5)


def unplaced(metadata):
    metadata.storage_data = {k: v for k, v in metadata.storage_data.items() if k.fqn != "w"}


def unplaced_value(metadata):
    del metadata.storage_data[MetadataIndex("step")]


def numbered(metadata):
    metadata.state_dict_metadata[3] = BytesStorageMetadata()


def bad_properties(metadata):
    tensor(metadata).properties = 3


def many_dimensions(metadata):
    tensor(metadata).size = torch.Size([1] * 65)


REFUSED = {
    "absolute path": (place(relative_path="/etc/passwd"), "no *.distcp file right beside"),
    "absolute path of a distcp": (place(relative_path="/tmp/a.distcp"), "right beside"),
    "parent": (place(relative_path="../x.distcp"), "'../x.distcp', which is no *.distcp file"),
    "folder": (place(relative_path="a/x.distcp"), "right beside"),
    "backslash": (place(relative_path="a\\x.distcp"), "right beside"),
    "drive": (place(relative_path="C:x.distcp"), "right beside"),
    "NUL": (place(relative_path="x\0.distcp"), "right beside"),
    "metadata itself": (place(relative_path=".metadata"), "right beside"),
    "only the suffix": (place(relative_path=".distcp"), "right beside"),
    "path of another type": (place(relative_path=3), "is said to be in 3"),
    "offset past the end": (place(offset=HUGE), "__0_0.distcp is cut short"),
    "length past the end": (place(length=HUGE), "__0_0.distcp is cut short"),
    "negative offset": (place(offset=-1), "no range"),
    "no length": (place(length=0), "no range"),
    "float offset": (place(offset=0.0), "no range"),
    "bool length": (place(length=True), "no range"),
    "huge number": (place(offset=1 << 300), "a whole number has 38 bytes; at most 32 may be"),
    "extension": (place(transform_descriptors=["zstd"]), "an extension of torch's writer"),
    "item over item": (moved_value, "overlap in '__0_0.distcp'"),
    "missing chunk": (chunks(([0, 0], [1, 4])), "overlap or leave a gap"),
    "no chunk": (chunks(), "overlap or leave a gap"),
    "chunk twice": (chunks(([0, 0], [2, 4]), ([0, 0], [2, 4])), "overlap or leave a gap"),
    "overlap": (chunks(([0, 0], [2, 3]), ([0, 2], [2, 2])), "overlap or leave a gap"),
    "chunk outside": (chunks(([0, 1], [2, 4])), "lies outside the shape"),
    "chunk negative": (chunks(([0, -1], [2, 5])), "are no sizes"),
    "chunk of another rank": (chunks(([0], [2])), "another number of dimensions"),
    "chunk nowhere": (
        chunks(([0, 0], [1, 4]), ([1, 0], [1, 4])), "nothing says in which file its chunk at [1, 0]"
    ),
    "chunks no list": (lambda m: setattr(tensor(m), "chunks", 3), "are no list"),
    "larger shape": (size(3, 4), "overlap or leave a gap"),
    "huge shape": (size(HUGE, HUGE), "larger than any memory"),
    "huge shape of nothing": (size(0, HUGE, HUGE), "larger than any memory"),
    "negative shape": (size(-2, 4), "are no sizes"),
    "shape no size": (lambda m: setattr(tensor(m), "size", (2, 4)), "a torch.Size should stand"),
    "65 dimensions": (many_dimensions, "has 65 dimensions; at most 64"),
    "unplaced": (unplaced, "nothing says in which file"),
    "unplaced value": (unplaced_value, "does not say where 'step' is"),
    "ghost": (other, "a chunk of 'ghost' is that no tensor has"),
    "name no text": (numbered, "it names a tensor 3"),
    "quantized dtype": (dtype("qint8"), "it names torch.qint8"),
    "properties": (bad_properties, "the properties of 'w' are none"),
    "no tensors": (replaced("state_dict_metadata", None), "no list of tensors"),
    "no places": (replaced("storage_data", None), "no list of tensors"),
    "tensor no tensor": (lambda m: m.state_dict_metadata.update(w=3), "should stand where 3"),
    "a list": (lambda m: [1], "a Metadata should stand where [1] stands"),
    "a function": (replaced("planner_data", print), "it names builtins.print"),
    "a path that is a command": (replaced("storage_meta", Path.cwd), "it names builtins.getattr"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_metadata_is_refused(bent, serializer, name):
    change, cause = REFUSED[name]
    path = bent(change)
    with pytest.raises(WeightsError) as error:
        serializer.open(path)
    assert cause in str(error.value)
    assert "serializer:dcp" in str(error.value)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (dtype("int32"), "int32 (2, 4) is announced, and __0_0.distcp holds float32 (2, 4)"),
        (dtype("float64"), "float64 (2, 4) is announced"),
        (place(length=1), "it has only 1 bytes"),
        (place(length=1000), "it does not end as a zip does"),
    ],
)
def test_items_that_are_not_what_the_metadata_says_are_refused(bent, serializer, change, cause):
    with serializer.open(bent(change)) as reader, pytest.raises(WeightsError) as error:
        reader.tensor("w")
    assert cause in str(error.value)


def test_a_rendered_refusal_reads_like_this(bent, serializer):
    path = bent(place(relative_path="../secret.distcp"))
    with pytest.raises(WeightsError) as error:
        serializer.open(path)
    assert str(error.value).splitlines() == [
        f"{path}/.metadata: the metadata is broken",
        "  provider: serializer:dcp (from hardpoint-dcp 0.1.0)",
        "  cause: 'w' is said to be in '../secret.distcp', which is no *.distcp file right beside",
        "  remedy: get the file again from where it came from: it is damaged, or made to mislead",
    ]


# --- code


class Runs:
    def __init__(self, code):
        self.code = code

    def __reduce__(self):
        return exec, (self.code,)


WHERE = ["top", "planner", "key", "item", "value"]
_READ_ALL = """
import sys
from pathlib import Path
from hardpoint import WeightsError
from hardpoint_dcp.serializer import DcpSerializer

for path in sorted(Path(sys.argv[1]).glob("*.dcp")):
    print("#", path.stem)
    try:
        DcpSerializer().recognizes(path)
        reader = DcpSerializer().open(path)
    except WeightsError as error:
        print(error)
        continue
    for read in (lambda: reader.metadata, lambda: reader.tensor("w")):
        try:
            read()
        except WeightsError as error:
            print(error)
"""


def trapped(path, trap, where, protocol):
    metadata = pickle.loads((path / ".metadata").read_bytes())
    if where == "top":
        metadata = trap
    elif where == "planner":
        metadata.planner_data = {"w": trap}
    elif where == "key":
        metadata.state_dict_metadata = {trap: 1}
    else:
        item = io.BytesIO()
        torch.save(trap, item, pickle_protocol=max(protocol, 2))
        (path / "__9_0.distcp").write_bytes(item.getvalue())
        key = "w" if where == "item" else "step"
        (at,) = (v for k, v in metadata.storage_data.items() if k.fqn == key)
        vars(at).update(relative_path="__9_0.distcp", offset=0, length=len(item.getvalue()))
    (path / ".metadata").write_bytes(pickle.dumps(metadata, protocol))


def test_no_pickle_of_a_checkpoint_runs(tmp_path, saved):
    """Each would make a marker; opening and reading them all, in a process of its own, does not."""
    marker = tmp_path / "marker"
    trap = Runs(f"open({str(marker)!r}, 'w').close()")
    cases = [("top", 0), ("top", 1), *((where, p) for where in WHERE for p in range(2, 6))]
    for where, protocol in cases:
        path = saved({"w": torch.arange(8.0), "step": 3}, f"{where}-{protocol}.dcp")
        trapped(path, trap, where, protocol)
    command = [sys.executable, "-c", _READ_ALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not marker.exists()
    said = done.stdout.split("# ")[1:]
    assert len(said) == len(cases)
    for each in said:
        assert re.search(r"it names (builtins|__builtin__)\.exec|operation 0x", each), each
    # The traps are traps: torch's own reader runs one.
    with pytest.raises(dcp.CheckpointException):
        dcp.load({"x": torch.ones(1)}, checkpoint_id=tmp_path / "planner-4.dcp", no_dist=True)
    assert marker.exists()


# --- items


def zipped(path, members, *, compression=zipfile.ZIP_STORED):
    """Let ``w`` be in a file of its own, the zip of ``members``."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
    return put(path, raw.getvalue())


def put(path, data, name="w"):
    metadata = pickle.loads((path / ".metadata").read_bytes())
    (path / "__9_0.distcp").write_bytes(data)
    (at,) = (v for k, v in metadata.storage_data.items() if k.fqn == name)
    vars(at).update(relative_path="__9_0.distcp", offset=0, length=len(data))
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    return path


def pkl(*, kind="FloatStorage", key="0", numel=8, first=0, shape=(8,), strides=(1,), rest=()):
    """The pickle of a tensor as torch.save writes it."""

    class Stored(pickle.Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, Storage):
                return ("storage", getattr(torch, kind), key, "cpu", numel)
            return None

    raw = io.BytesIO()
    Stored(raw, 2).dump(Tensor((Storage(), first, shape, strides, False, {}, *rest)))
    return raw.getvalue()


class Storage:
    """Stands for the storage."""


class Tensor:
    def __init__(self, arguments):
        self.arguments = arguments

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


DATA = torch.arange(8.0).numpy().tobytes()
ITEMS = {
    "good": ({"data.pkl": pkl(), "data/0": DATA}, None),
    "no pickle": ({"data/0": DATA}, "it has no data.pkl"),
    "no data": ({"data.pkl": pkl()}, "it has no 'data/0'"),
    "short data": ({"data.pkl": pkl(), "data/0": DATA[:-1]}, "are said to be 31 bytes"),
    "long data": ({"data.pkl": pkl(), "data/0": DATA + b"x"}, "are said to be 33 bytes"),
    "other storage": ({"data.pkl": pkl(kind="DoubleStorage"), "data/0": DATA * 2}, "is announced"),
    "unknown storage": ({"data.pkl": pkl(kind="QInt8Storage"), "data/0": DATA}, "QInt8Storage"),
    "path as key": ({"data.pkl": pkl(key="../x"), "data/0": DATA}, "is said to be '../x'"),
    "huge storage": ({"data.pkl": pkl(numel=1 << 60), "data/0": DATA}, "are said to be 32 bytes"),
    "negative storage": ({"data.pkl": pkl(numel=-8), "data/0": DATA}, "of -8"),
    "first beyond": ({"data.pkl": pkl(first=1), "data/0": DATA}, "goes beyond 8 elements"),
    "negative first": ({"data.pkl": pkl(first=-1), "data/0": DATA}, "no whole numbers"),
    "stride beyond": ({"data.pkl": pkl(strides=(2,)), "data/0": DATA}, "goes beyond 8 elements"),
    "huge stride": ({"data.pkl": pkl(strides=(1 << 62,)), "data/0": DATA}, "goes beyond"),
    "blown up": (
        {"data.pkl": pkl(shape=(1 << 40,), strides=(0,)), "data/0": DATA}, "goes beyond 8 elements"
    ),
    "two strides": ({"data.pkl": pkl(strides=(1, 1)), "data/0": DATA}, "do not belong together"),
    "shape a list": ({"data.pkl": pkl(shape=[8]), "data/0": DATA}, "no whole numbers"),
    "other shape": ({"data.pkl": pkl(shape=(7,)), "data/0": DATA}, "holds float32 (7,)"),
    "conjugated": (
        {"data.pkl": pkl(rest=({"conj": True},)), "data/0": DATA}, "that plain ones have not"
    ),
    "a list": ({"data.pkl": pickle.dumps([1], 2), "data/0": DATA}, "it holds [1], not a tensor"),
    "big-endian": (
        {"data.pkl": pkl(), "data/0": DATA, "byteorder": "big"}, "by a big-endian machine"
    ),
    "huge pickle": (
        {"data.pkl": pkl() + bytes(1 << 17), "data/0": DATA}, "131072 bytes|at most 65536 are read"
    ),
    "many members": (
        {"data.pkl": pkl(), "data/0": DATA, **{f"x{i}": "" for i in range(99)}}, "101 members"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ITEMS)
def test_hostile_items_are_refused(saved, serializer, name):
    members, cause = ITEMS[name]
    path = zipped(saved({"w": torch.arange(8.0)}), members)
    with serializer.open(path) as reader:
        if cause is None:
            assert torch.equal(reader.tensor("w"), torch.arange(8.0))
            return
        with pytest.raises(WeightsError) as error:
            reader.tensor("w")
    assert any(each in str(error.value) for each in cause.split("|"))


def test_compressed_items_are_refused(saved, serializer):
    path = saved({"w": torch.arange(8.0)})
    zipped(path, ITEMS["good"][0], compression=zipfile.ZIP_DEFLATED)
    with serializer.open(path) as reader, pytest.raises(WeightsError, match="compressed"):
        reader.tensor("w")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(saved, serializer):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name in ("data.pkl", "data.pkl", "data/0"):
            archive.writestr(f"archive/{name}", ITEMS["good"][0][name])
    path = put(saved({"w": torch.arange(8.0)}), raw.getvalue())
    with serializer.open(path) as reader, pytest.raises(WeightsError, match="two members"):
        reader.tensor("w")


@pytest.mark.parametrize("field", [16, 20, 10, 12])
def test_a_zip_whose_end_lies_is_refused(saved, serializer, field):
    """Start, size or counts of its directory are 0xFF...: nothing is allocated for them."""
    raw = io.BytesIO()
    torch.save(torch.arange(8.0), raw)
    data = bytearray(raw.getvalue())
    struct.pack_into("<H" if field < 12 else "<I", data, len(data) - 22 + min(field, 16), 0xFFF0)
    at = data.rfind(b"PK\x06\x07")
    data[at : at + 4] = b"gone"  # so that the first end counts
    path = put(saved({"w": torch.arange(8.0)}), bytes(data))
    with serializer.open(path) as reader, pytest.raises(WeightsError, match="w', at byte 0"):
        reader.tensor("w")


def test_a_value_that_shares_its_parts_a_billion_times_is_refused(saved, serializer):
    value = [1]
    for _ in range(60):
        value = [value, value]
    raw = io.BytesIO()
    torch.save(value, raw)
    path = put(saved({"w": torch.ones(1), "step": 3}), raw.getvalue(), "step")
    with serializer.open(path) as reader, pytest.raises(WeightsError, match="or too large"):
        _ = reader.metadata


# --- whole files


def test_metadata_that_is_too_large_is_not_read(saved, serializer):
    path = saved({"w": torch.ones(1)})
    with (path / ".metadata").open("r+b") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(WeightsError, match=f"at most {MAX_BYTES} are read"):
        serializer.open(path)


def test_every_truncation_of_the_metadata_is_refused(saved, serializer):
    path = saved({"w": torch.arange(8.0), "step": 3})
    whole = (path / ".metadata").read_bytes()
    for count in range(len(whole)):
        (path / ".metadata").write_bytes(whole[:count])
        with pytest.raises(WeightsError):
            serializer.open(path)
    (path / ".metadata").write_bytes(whole + b"\0")
    with pytest.raises(WeightsError, match="1 bytes follow its end"):
        serializer.open(path)


def test_every_truncation_of_the_data_is_refused(saved, serializer):
    path = saved({"w": torch.arange(8.0)})
    data = path / "__0_0.distcp"
    whole = data.read_bytes()
    for count in range(0, len(whole), 7):
        data.write_bytes(whole[:count])
        with pytest.raises(WeightsError, match="is cut short"):
            serializer.open(path)


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda p: (p / ".metadata").unlink(), "the checkpoint is not finished"),
        (lambda p: (p / ".metadata").rename(p / "__0.metadata"), "each rank wrote metadata of its"),
        (lambda p: (p / "__0_0.distcp").unlink(), "the file cannot be opened"),
    ],
)
def test_what_is_missing_is_said(saved, serializer, make, cause):
    path = saved({"w": torch.ones(1)})
    make(path)
    with pytest.raises(WeightsError, match=cause):
        serializer.open(path)


def test_a_folder_of_something_else_is_no_checkpoint(tmp_path, serializer):
    with pytest.raises(WeightsError, match="this is no checkpoint"):
        serializer.open(tmp_path)
    with pytest.raises(WeightsError, match="this is no checkpoint"):
        serializer.open(tmp_path / "missing")
