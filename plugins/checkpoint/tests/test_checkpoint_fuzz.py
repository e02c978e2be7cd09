"""Any bytes, any opcodes, any damage: a WeightsError, or tensors that lie within the file."""

import io

import pytest
import torch
from checkpoint_forge import (
    checkpoint,
    dictionary,
    members,
    name,
    number,
    storage,
    tensor,
    text,
    tup,
    zipped,
)
from hypothesis import given, settings, strategies as st

from hardpoint import WeightsError
from hardpoint_checkpoint import others
from hardpoint_checkpoint.globals import ALLOWED
from hardpoint_checkpoint.opcodes import OPCODES
from hardpoint_checkpoint.scan import scan
from hardpoint_checkpoint.serializer import CheckpointSerializer

SERIALIZER = CheckpointSerializer()


@pytest.fixture(autouse=True, scope="module")
def no_other_scanners():
    """They are processes, a second each, and decide nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(others, "TOOLS", {})
        yield


def survives(folder, data):
    """Whether it is refused; what is not is coherent."""
    path = folder.getbasetemp() / "fuzz.pt"
    path.write_bytes(data)
    assert isinstance(SERIALIZER.recognizes(path), bool)
    try:
        reader = SERIALIZER.open(path)
    except WeightsError as error:
        told(error)
        assert scan(path)["refused"] is True
        return True
    assert scan(path)["refused"] is False
    with reader:
        assert all(isinstance(value, str) for value in reader.metadata.values())
        for key in reader:
            info = reader[key]
            try:
                found = reader.tensor(key)
            except WeightsError as error:  # a bool that is neither: seen when it is read
                told(error)
                assert info.dtype == "bool"
                continue
            assert (info.shape, f"torch.{info.dtype}") == (tuple(found.shape), str(found.dtype))
            if info.offset is not None:
                assert info.offset + info.nbytes <= len(data)
            found.clone()
    return False


def told(error):
    assert error.remedy
    assert len(str(error)) < 2000


def good_files():
    base = torch.arange(6.0).reshape(2, 3)
    state = {"w": base, "t": base.t(), "n": {"flag": torch.tensor([True, False]), "epoch": 3}}
    for new in (True, False):
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=new)
        yield buffer.getvalue()
    yield checkpoint(dictionary(w=tensor(), n=number(3)))


GOOD = list(good_files())
SMALL = st.sampled_from([0, 1, 2, 3, 4, 5, 16, 1 << 31, 1 << 62, (1 << 64) - 1, -1])
SNIPPETS = st.one_of(
    st.sampled_from([name(*pair) for pair in ALLOWED]),
    st.sampled_from([bytes([code]) for code in OPCODES]),
    st.sampled_from([tensor(), storage(), text("a"), b"}", b"]", b"(", b")", b"NN\x86", b"q\x00",
                     b"h\x00", name("posix", "system"), b"R", b"Q", b"b"]),
    SMALL.map(number),
    st.binary(max_size=3),
)  # fmt: skip
COUNTS = st.lists(SMALL, max_size=3).map(tuple)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes(tmp_path_factory, data):
    assert survives(tmp_path_factory, data)
    survives(tmp_path_factory, zipped(members(data)))
    assert survives(tmp_path_factory, b"\x80\x02\x8a\x0a" + GOOD[1][4:14] + b"." + data)


@given(st.lists(SNIPPETS, max_size=30).map(b"".join))
@settings(max_examples=1000, deadline=None)
def test_any_opcodes(tmp_path_factory, body):
    survives(tmp_path_factory, checkpoint(body))


@given(COUNTS, COUNTS, SMALL, SMALL, st.sampled_from(["FloatStorage", "BoolStorage", "Tensor"]))
@settings(max_examples=600, deadline=None)
def test_any_view(tmp_path_factory, size, stride, offset, count, kind):
    within = storage(count=count, kind=kind)
    body = dictionary(w=tensor(size, stride, offset, within), v=tensor((4,), (1,)))
    survives(tmp_path_factory, checkpoint(body))
    flags = b"}" + text("conj") + b"\x88s" + text("neg") + b"\x88s"
    body = dictionary(w=tensor(size, stride, offset, more=flags), v=tup())
    survives(tmp_path_factory, checkpoint(body))


@given(st.data())
@settings(max_examples=1000, deadline=None)
def test_good_files_with_bytes_changed_and_parts_moved(tmp_path_factory, data):
    raw = bytearray(data.draw(st.sampled_from(GOOD)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        how = data.draw(st.sampled_from(["byte", "bit", "cut", "drop", "double", "number"]))
        if how == "byte":
            raw[at] = data.draw(st.integers(0, 255))
        elif how == "bit":
            raw[at] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del raw[at + 1 :]
        elif how == "drop":
            del raw[at : at + data.draw(st.integers(1, 40))]
            raw = raw or bytearray(1)
        elif how == "double":
            raw[at:at] = raw[at : at + data.draw(st.integers(1, 40))]
        else:
            value = data.draw(SMALL) % (1 << 64)
            raw[at : at + 4] = value.to_bytes(8, "little")[:4]
    refused = survives(tmp_path_factory, bytes(raw))
    assert refused or SERIALIZER.recognizes(tmp_path_factory.getbasetemp() / "fuzz.pt")
