"""Damaged and hostile models: each is refused with one error that says why."""

import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper

from hardpoint import WeightsError
from hardpoint_onnx import model as parsing
from hardpoint_onnx.dtypes import FIELDS
from hardpoint_onnx.serializer import OnnxSerializer


def model(*initializers, **more):
    graph = helper.make_graph([], "weights", [], [], initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    for key, value in more.items():
        setattr(made, key, value)
    return made


def packed(*initializers, **more):
    return model(*initializers, **more).SerializeToString()


def raw(data=bytes(8), dims=(2,), kind=TensorProto.FLOAT, name="w"):
    return TensorProto(name=name, data_type=kind, dims=dims, raw_data=data)


def external(location="data.bin", *, dims=(2,), entries=(), **numbers):
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    proto.data_location = TensorProto.EXTERNAL
    for key, value in [("location", location), *numbers.items(), *entries]:
        if value is not None:
            proto.external_data.add(key=key, value=str(value))
    return proto


def fields(kind, dims, **values):
    proto = TensorProto(name="w", data_type=kind, dims=dims)
    for field, numbers in values.items():
        getattr(proto, field).extend(numbers)
    return proto


def changed(proto, **values):
    for key, value in values.items():
        setattr(proto, key, value)
    return proto


def both():
    made = raw()
    made.float_data.extend([1, 2])
    return made


def external_and_raw():
    made = external()
    made.raw_data = bytes(8)
    return made


def external_said_inline():
    return changed(external(), data_location=TensorProto.DEFAULT)


def segmented():
    made = raw()
    made.segment.begin = 0
    return made


def sparse():
    made = model(raw())
    made.graph.sparse_initializer.append(SparseTensorProto(values=raw(), dims=[9]))
    return made.SerializeToString()


def metadata_twice():
    made = model(raw())
    for value in "xy":
        made.metadata_props.add(key="k", value=value)
    return made.SerializeToString()


GOOD = packed(raw())
DATA = bytes(range(64))
HUGE = 1 << 62

# name of the case -> (file, part of the message); data.bin of 64 bytes lies beside it
REFUSED = {
    "nothing": (b"", "its ir_version is 0"),
    "another format": (b"\x93NUMPY" + bytes(64), "which a model does not have"),
    "two models in one": (GOOD + GOOD, "field 1 stands there twice"),
    "a graph after the graph": (
        GOOD + model(raw(name="v")).SerializeToString()[2:],
        "field 7 stands there twice",
    ),
    "a zero after it": (GOOD + b"\0", "no field begins"),
    "an unknown field": (GOOD + b"\x4a\x00", "field 9 of kind 2"),
    "a field of another kind": (GOOD + b"\x10\x01", "field 2 of kind 0"),
    "a group": (GOOD + b"\x73\x74", "field 14 of kind 3"),
    "a length past the end": (GOOD + b"\x72\xff\xff\xff\xff\x0f", "field 14 ends at byte"),
    "a length of 2^64-1": (GOOD + b"\x72" + b"\xff" * 9 + b"\x01", "field 14 ends at byte"),
    "a number that does not end": (GOOD + b"\x72" + b"\xff" * 11, "no field begins"),
    "a number of 65 bits": (GOOD + b"\x72" + b"\xff" * 9 + b"\x03", "no field begins"),
    "no graph": (GOOD[:2] + b"\x42\x02\x10\x15", "it has no graph"),
    "no version": (GOOD[2:], "its ir_version is 0"),
    "a version of 2^40": (packed(raw(), ir_version=1 << 40), "its ir_version is 1099511627776"),
    "no opset": (GOOD[: GOOD.rindex(b"\x42")], "it names no opset"),
    "a graph that is none": (b"\x08\x0a\x3a\x04\xff\xff\xff\xff\x42\x02\x10\x15", "protobuf says"),
    "graphs in graphs": (
        b"\x08\x0a\x3a\x82\x02" + b"\x0a\x80\x02" + b"\x0b" * 256 + b"\x42\x02\x10\x15",
        "a damaged one",
    ),
    "two weights of one name": (packed(raw(), raw()), "two of its weights are called 'w'"),
    "sparse weights": (sparse(), "1 sparse_initializer(s)"),
    "metadata twice": (metadata_twice(), "the key 'k' stands there twice"),
    "a name that is not UTF-8": (GOOD.replace(b"\x42\x01w", b"\x42\x01\xff"), "is not UTF-8"),
    "metadata that are not UTF-8": (GOOD + b"\x72\x06\x0a\x01k\x12\x01\xff", "is not UTF-8"),
    "a location that is not UTF-8": (
        packed(external()).replace(b"data.bin", b"data\xffbin"),
        "is not UTF-8",
    ),
    "strings": (packed(helper.make_tensor("w", 8, (1,), [b"x"])), "type STRING"),
    "int4": (packed(raw(b"\1", kind=TensorProto.INT4)), "type INT4, which PyTorch cannot hold"),
    "uint4": (packed(raw(b"\1", kind=TensorProto.UINT4)), "type UINT4"),
    "an unknown type": (packed(raw(kind=99)), "its data_type is 99"),
    "no type": (packed(raw(kind=0)), "its data_type is 0"),
    "float4 of odd rows": (
        packed(raw(b"ab", dims=(3,), kind=TensorProto.FLOAT4E2M1)),
        "a multiple of 2",
    ),
    "a segment": (packed(segmented()), "one segment"),
    "rank 65": (packed(raw(bytes(4), dims=(1,) * 65)), "65 dimensions"),
    "a negative size": (packed(raw(dims=(-2,))), "are no sizes"),
    "two negative sizes": (packed(raw(dims=(-1, -2))), "are no sizes"),
    "sizes that overflow": (packed(raw(dims=(HUGE, HUGE))), "larger than any memory"),
    "sizes that overflow, times 0": (packed(raw(b"", dims=(HUGE, 9, 0))), "larger than any memory"),
    "four terabytes": (packed(raw(dims=(1 << 40,))), "takes 4398046511104 bytes, and its raw_data have 8"),
    "one byte short": (packed(raw(bytes(7))), "its raw_data have 7"),
    "one byte more": (packed(raw(bytes(9))), "its raw_data have 9"),
    "no data": (packed(fields(1, (2,))), "its float_data have 0"),
    "too few values": (packed(fields(1, (2,), float_data=[1])), "its float_data have 1"),
    "too many values": (packed(fields(1, (2,), float_data=[1, 2, 3])), "its float_data have 3"),
    "half a complex number": (packed(fields(14, (1,), float_data=[1])), "takes 2 values"),
    "values in another field": (packed(fields(1, (2,), int32_data=[1, 2])), "its int32_data have 2"),
    "data twice": (packed(both()), "in float_data and raw_data"),
    "a value too large for its type": (packed(fields(3, (1,), int32_data=[128])), "outside -128 to 127"),
    "a value too small for its type": (packed(fields(2, (1,), int32_data=[-1])), "outside 0 to 255"),
    "a half of 17 bits": (packed(fields(10, (1,), int32_data=[65536])), "outside 0 to 65535"),
    "a uint32 of 33 bits": (packed(fields(12, (1,), uint64_data=[1 << 32])), "outside 0 to 4294967295"),
    "a bool of 7": (packed(raw(b"\7\1", kind=9)), "neither 0 nor 1"),
    "a bool of 2 in its field": (packed(fields(9, (1,), int32_data=[2])), "outside 0 to 1"),
    "external and inline": (packed(external_and_raw()), "also in raw_data"),
    "external and said not to be": (packed(external_said_inline()), "said not to have any"),
    "external and nowhere": (packed(external(None)), "no file is named"),
    "the parent": (packed(external("../data.bin")), "no plain path"),
    "a parent inside": (packed(external("a/../../data.bin")), "no plain path"),
    "a parent that comes back": (packed(external("a/../data.bin")), "no plain path"),
    "absolute": (packed(external("/etc/passwd")), "no plain path"),
    "a home": (packed(external("~/x")), "cannot be opened"),
    "an empty location": (packed(external("")), "no plain path"),
    "a dot": (packed(external(".")), "no plain path"),
    "backslashes": (packed(external("..\\data.bin")), "no plain path"),
    "a drive": (packed(external("C:data.bin")), "no plain path"),
    "a URL": (packed(external("http://example.com/x")), "no plain path"),
    "two slashes": (packed(external("a//data.bin")), "no plain path"),
    "a NUL": (packed(external("data.bin\0x")), "no plain path"),
    "a line break": (packed(external("data\n.bin")), "no plain path"),
    "5,000 characters": (packed(external("x" * 5000)), "no plain path"),
    "300 characters": (packed(external("x" * 300)), "cannot be opened"),
    "a folder": (packed(external("folder")), "cannot be opened"),
    "a pipe": (packed(external("pipe")), "cannot be opened"),
    "a missing file": (packed(external("missing")), "into one folder"),
    "a link to itself": (packed(external("loop")), "cannot be opened"),
    "a folder that leads out": (packed(external("out/secret")), "leads out of the model's folder"),
    "a length too short": (packed(external(length=4)), "its length is 4"),
    "a length too long": (packed(external(length=16)), "its length is 16"),
    "no length, and more data": (packed(external()), "the file has 64"),
    "an offset past the end": (packed(external(offset=60, length=8)), "from byte 60 on"),
    "an offset of 2^62": (packed(external(offset=HUGE, length=8)), "and the file has 64"),
    "an offset of 2^64-8": (packed(external(offset=(1 << 64) - 8, length=8)), "the offset of"),
    "a negative offset": (packed(external(offset=-8, length=8)), "the offset of"),
    "an offset in words": (packed(external(offset="0x10", length=8)), "the offset of"),
    "an offset with blanks": (packed(external(offset=" 8", length=8)), "the offset of"),
    "an offset in other digits": (packed(external(offset="\u0663", length=8)), "the offset of"),
    "an offset of 5,000 digits": (packed(external(offset="1" * 5000, length=8)), "the offset of"),
    "a float as a length": (packed(external(length=8.0)), "the length of"),
    "two locations": (packed(external(entries=[("location", "x")])), "the key 'location' stands there twice"),
    "two offsets": (packed(external(offset=0, entries=[("offset", "8")])), "the key 'offset' stands there twice"),
    "giant dims, external": (packed(external(dims=(1 << 40,), length=1 << 42)), "and the file has 64"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "data.bin").write_bytes(DATA)
    (home / "folder").mkdir()
    os.mkfifo(home / "pipe")
    (home / "loop").symlink_to("loop")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret").write_bytes(bytes(8))
    (home / "out").symlink_to(tmp_path / "elsewhere")
    return home


def read_all(path):
    with OnnxSerializer().open(path) as reader:
        dict(reader.metadata)
        return {name: reader.tensor(name) for name in reader}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_the_reason(folder, case):
    data, words = REFUSED[case]
    path = folder / "hostile.onnx"
    path.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        read_all(path)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(folder))
    assert "provider: serializer:onnx" in message or "neither 0 nor 1" in message
    assert len(message) < 2000


def test_what_is_in_order_is_read(folder):
    path = folder / "good.onnx"
    for proto in (
        external(length=8, offset=8),
        external(offset=56),
        external("./data.bin", length=8, offset=8),
        external(length=8, entries=[("checksum", "x")]),
        raw(b"", dims=(0, 3)),
        fields(1, (0,)),
        raw(bytes(4), dims=()),
    ):
        path.write_bytes(packed(proto))
        assert list(read_all(path)) == ["w"]
    path.write_bytes(packed(external(offset=8, length=8)))
    assert bytes(read_all(path)["w"].view(torch.uint8).tolist()) == DATA[8:16]


def test_a_refusal_reads_well(folder):
    path = folder / "a.onnx"
    path.write_bytes(packed(external("../../etc/passwd")))
    with pytest.raises(WeightsError) as caught:
        read_all(path)
    assert str(caught.value) == (
        f"{path}: tensor 'w' is broken\n"
        "  provider: serializer:onnx (from hardpoint-onnx 0.1.0)\n"
        "  cause: its data are said to be in '../../etc/passwd', which is no plain path from the"
        " model's folder on\n"
        "  remedy: get the file again from where it came from: it is damaged, or made to mislead"
    )


def test_a_file_past_protobufs_limit_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(parsing.MAX_FILE + 1)
    with pytest.raises(WeightsError, match="save the model with external data"):
        read_all(path)


def test_a_location_cannot_change_a_url(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/evil/a.onnx", packed(external("x?y=z", length=8)))
    from hardpoint.storage.remote import open_url

    with pytest.raises(WeightsError, match="cannot be named in a URL"):
        OnnxSerializer().open_source(open_url("memory://evil/a.onnx"))


def holds_together(path, data):
    """``None``: refused with our error; or a right result in memory of the files' sizes."""
    path.write_bytes(data)
    OnnxSerializer().recognizes(path)
    try:
        tensors = read_all(path)
    except WeightsError as error:
        assert len(str(error)) < 4000
        return None
    for tensor in tensors.values():
        # A value of a field may be one byte of the file, and eight in memory.
        assert tensor.numel() * tensor.element_size() <= 8 * len(data) + len(DATA)
        tensor.clone()
    return tensors


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "data.bin").write_bytes(DATA)
    return folder / "file.onnx"


SEEDS = [
    GOOD,
    packed(
        numpy_helper.from_array(np.arange(6.0).reshape(2, 3), "a"), external(offset=8, length=8)
    ),
    packed(fields(10, (2, 2), int32_data=[1, 2, 3, 65535]), raw(b"\1\0", kind=9, name="flags")),
]
FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=6)


@given(
    seed=st.sampled_from(SEEDS),
    flips=FLIPS,
    cut=st.none() | st.floats(0, 1),
    more=st.binary(max_size=8),
)
@settings(max_examples=2000, deadline=None)
def test_flips_cuts_and_tails_do_no_harm(path, seed, flips, cut, more):
    data = bytearray(seed)
    for place, bit in flips:
        data[int(place * len(data))] ^= 1 << bit
    made = bytes(data[: None if cut is None else int(cut * len(data))]) + more
    assert holds_together(path, made) is not None or made != seed


@given(
    pieces=st.lists(
        st.binary(max_size=12) | st.sampled_from([GOOD, GOOD[:2], b"\x3a\x00"]), max_size=5
    )
)
@settings(max_examples=1500, deadline=None)
def test_any_bytes_do_no_harm(path, pieces):
    made = b"\x08\x0a" + b"".join(pieces)
    read = holds_together(path, made) or {}
    assert all(name.encode() in made for name in read)


NUMBERS = {"float_data": st.floats(width=32), "double_data": st.floats(), "string_data": st.binary(max_size=2),
           "int32_data": st.integers(-(1 << 31), (1 << 31) - 1), "int64_data": st.integers(-HUGE, HUGE),
           "uint64_data": st.integers(0, (1 << 64) - 1)}  # fmt: skip
LOCATIONS = st.sampled_from(["data.bin", "./data.bin", "../data.bin", "/x", "", "a/b", "file.onnx"])
SIZES = st.integers(-1, 4) | st.sampled_from([HUGE, (1 << 63) - 1, 1 << 32])


@st.composite
def tensors(draw):
    made = TensorProto(
        name=draw(st.sampled_from("ab")),
        data_type=draw(st.integers(0, 30)),
        dims=draw(st.lists(SIZES, max_size=4)),
    )
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=2)):
        getattr(made, field).extend(draw(st.lists(NUMBERS[field], max_size=8)))
    if draw(st.booleans()):
        made.raw_data = draw(st.binary(max_size=32))
    if draw(st.booleans()):
        made.data_location = draw(st.integers(0, 1))
        keys = st.sampled_from(["location", "offset", "length", "checksum"])
        values = LOCATIONS | st.sampled_from(["0", "8", "64", "-1", str(1 << 63)])
        for key, value in draw(st.lists(st.tuples(keys, values), max_size=3)):
            made.external_data.add(key=key, value=value)
    return made


@given(protos=st.lists(tensors(), max_size=2))
@settings(max_examples=2000, deadline=None)
def test_any_weights_do_no_harm(path, protos):
    found = holds_together(path, packed(*protos))
    assert found is None or set(found) == {proto.name for proto in protos}


KINDS = {1: "float_data", 6: "int32_data", 7: "int64_data", 11: "double_data", 13: "uint64_data"}


@given(
    data=st.data(),
    kind=st.sampled_from(sorted(KINDS)),
    shape=st.lists(st.integers(0, 3), max_size=3),
)
@settings(max_examples=500, deadline=None)
def test_what_the_library_reads_is_what_we_read(path, data, kind, shape):
    count = math.prod(shape)
    values = data.draw(st.lists(NUMBERS[KINDS[kind]], min_size=count, max_size=count))
    proto = fields(kind, shape, **{KINDS[kind]: values})
    path.write_bytes(packed(proto))
    tensor = read_all(path)["w"]
    assert tuple(tensor.shape) == tuple(shape)
    assert tensor.numpy().tobytes() == numpy_helper.to_array(proto).tobytes()
