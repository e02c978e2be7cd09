"""Pickles as data: plain ones are read as Python reads them, and nothing is ever called."""

import collections
import io
import pickle
import struct
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given, settings, strategies as st

from hardpoint.storage.pickles import Call, Name, Persistent, PickleRefused, read

MOST = 100_000
keys = st.one_of(
    st.text(max_size=5), st.integers(), st.booleans(), st.none(), st.binary(max_size=3)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
plain = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(1 << 250), 1 << 250), texts,
        st.floats(allow_nan=False), st.binary(max_size=300),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(texts, inner, max_size=4),
    ),
    max_leaves=20,
)  # fmt: skip


@given(plain, st.integers(2, 5))
def test_plain_data_is_what_python_makes_of_it(value, protocol):
    if (protocol == 2 and b"bytes" in pickle.dumps(value, 0)) or _has_bytes(value):
        protocol = max(protocol, 3)
    assert read(pickle.dumps(value, protocol), names=(), most=MOST) == value


def _has_bytes(value):
    if isinstance(value, dict):
        return any(map(_has_bytes, value.values()))
    return isinstance(value, bytes) or (
        isinstance(value, list | tuple) and any(map(_has_bytes, value))
    )


class _NoNames(pickle._Unpickler):
    """Python's own machine, which may look up nothing.

    The one in Python: the one in C sets memory aside for as many objects as the number under which
    one is remembered, and a file may state two thousand million.
    """

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"{module}.{name}")


def _shown_by_python(raw):
    # Python's machine stumbles over a frame of a wrong length; what it holds is what counts.
    if raw[2] == 0x95:
        raw = raw[:2] + raw[11:]
    # By repr: a NaN is not equal to itself, and 1 is equal to True.
    return repr(_NoNames(io.BytesIO(raw)).load())


@settings(max_examples=2000)
@example(b"M\x00\x00r\x00\x00\x00a")  # remembered under number 0x61000000
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read_as_python_reads_them(data):
    raw = b"\x80\x04" + data + b"."
    try:
        got = read(raw, names=(), most=MOST)
    except PickleRefused:
        return
    assert repr(got) == _shown_by_python(raw)


@settings(max_examples=1000)
@given(plain, st.data())
def test_damaged_pickles_are_refused_or_read_as_python_reads_them(value, data):
    raw = bytearray(pickle.dumps(value, 4))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        got = read(bytes(raw), names=(), most=MOST)
    except PickleRefused:
        return
    assert repr(got) == _shown_by_python(raw)


def test_objects_are_calls_that_nobody_made():
    ordered = collections.OrderedDict(a=1)
    got = read(pickle.dumps(ordered, 4), names={("collections", "OrderedDict")}, most=MOST)
    assert isinstance(got, Call)
    assert got.name == Name("collections", "OrderedDict")
    assert str(got.name) == "collections.OrderedDict"
    assert got.arguments == ()
    assert got.items == [("a", 1)]


def test_a_shared_object_is_one_and_a_list_may_hold_itself():
    shared = [1]
    shared.append(shared)
    got = read(pickle.dumps((shared, shared), 4), names=(), most=MOST)
    assert got[0] is got[1] is got[0][1]


def test_persistent_objects_are_told_by_their_id():
    data = b"\x80\x02X\x01\x00\x00\x00aQ."
    assert read(data, names=(), most=MOST, persistent=True) == Persistent("a")


class Boom:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


DEEP = b"\x80\x04)" + b"\x85" * 50_000


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "cut short or broken at byte 0"),
        (pickle.dumps(Boom()), "it names builtins.exec, which plain data does not need"),
        (pickle.dumps(PurePosixPath("a")), "it names pathlib.PurePosixPath"),
        (b"\x80\x04c\x1b[2J\nx\xc2\x9b\n.", r"it names \x1b[2J.x\x9b, which plain"),
        (pickle.dumps([1, 2], 3)[:-1], "cut short"),
        (pickle.dumps([1, 2]) + b"x", "1 bytes follow its end"),
        (pickle.dumps([1, 2], 0), "is not known"),
        (b"\x80\x09N.", "its protocol is none of 2 to 5"),
        (b"\x80\x04.", "does not end with one object"),
        (b"\x80\x04NN.", "does not end with one object"),
        (b"\x80\x04(N.", "does not end with one object"),
        (b"\x80\x04X\xff\xff\xff\xffa.", "4294967295 bytes are announced"),
        (b"\x80\x04\x8d" + b"\xff" * 8 + b"a.", "are announced"),
        (b"\x80\x04\x8b\x00\x00\x00\x40.", "a whole number has 1073741824 bytes"),
        (b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.", "a frame is longer than the file"),
        (b"\x80\x04X\x01\x00\x00\x00\xff.", "is not UTF-8"),
        (b"\x80\x04h\x05.", "recalls number 5"),
        (b"\x80\x04Nq\x00q\x00.", "remembers two objects as number 0"),
        (b"\x80\x04NNR.", "it calls something that is no name"),
        (b"\x80\x04NNb.", "it sets a state where none belongs"),
        (b"\x80\x04NNa.", "appends to something that is no list"),
        (b"\x80\x04NNNs.", "sets a key of something that is no dict"),
        (b"\x80\x04}(K\x01u.", "a key without a value"),
        (b"\x80\x04}(K\x01NK\x01Nu.", "a key stands twice"),
        (b"\x80\x04}(]Nu.", "has a key that is a list"),
        (b"\x80\x04}()Nu.", "has a key that is a tuple"),
        (b"\x80\x04NN\x93.", "named by something that is not text"),
        (b"\x80\x04N\x86.", "takes more objects than there are"),
        (b"\x80\x04NQ.", "objects that stand outside"),
        (b"\x80\x04c" + b"a" * 5000, "a line without end"),
        (b"\x80\x04\x82\x01.", "operation 0x82 at byte 2 is not known"),
        (b"\x80\x04ios\nsystem\n.", "operation 0x69"),
        (b"\x80\x04" + b"]" * (MOST + 5) + b".", f"more than {MOST} operations"),
        (DEEP + b"q\x00}h\x00Ns.", "has a key that is a tuple"),
    ],
)
def test_what_is_no_plain_data_is_refused(data, cause):
    with pytest.raises(PickleRefused) as error:
        read(data, names=(), most=MOST)
    assert cause in str(error.value)


def test_the_deepest_nesting_that_fits_is_read_and_freed():
    value = read(DEEP + b".", names=(), most=MOST)
    depth = 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == 50_000
