"""Damaged and hostile files: each is refused with one error that says why."""

import io
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hardpoint import WeightsError
from hardpoint_numpy.serializer import NumpySerializer


def crafted(descr="'<f4'", shape="(2,)", data=bytes(8), order="False", version=1, text=None):
    text = text or f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    body = text.encode("utf-8") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(body))
    return b"\x93NUMPY" + bytes([version, 0]) + length + body + data


def npy(array, **how):
    made = io.BytesIO()
    np.lib.format.write_array(made, array, **how)
    return made.getvalue()


FIELDS = "'descr': '<f4', 'fortran_order': False, 'shape': (2,)"

# name of the case -> (file, part of the message)
ARRAYS = {
    "objects": (npy(np.array([{}], object), allow_pickle=True), "a pickle, which can run code"),
    "structured": (npy(np.zeros(2, [("a", "<f4")])), "a structured array"),
    "nested structure": (crafted("[('a', [('b', '<f4')])]"), "a structured array"),
    "dates": (npy(np.zeros(1, "M8[s]")), "is dates"),
    "time spans": (npy(np.zeros(1, "m8[s]")), "is time spans"),
    "bytes": (npy(np.zeros(1, "S3")), "is text"),
    "characters": (npy(np.zeros(1, "U3")), "is text"),
    "void": (npy(np.zeros(1, "V2")), "bfloat16"),
    "long double": (npy(np.zeros(1, np.longdouble)), "floats of another size"),
    "an unknown kind": (crafted("'<q4'"), "does not have"),
    "an unknown size": (crafted("'<i3'"), "does not have"),
    "native order": (crafted("'=f4'"), "is floats"),
    "no order of bytes": (crafted("'|f4'"), "does not tell the order"),
    "no type": (crafted("''"), "no type of NumPy's"),
    "a type of 5,000 digits": (crafted("'<f" + "1" * 5000 + "'"), "floats of another size"),
    "a type by name": (crafted("'float32'"), "no type of NumPy's"),
    "a repeated type": (crafted("'2<f4'"), "no type of NumPy's"),
    "an expression as the type": (crafted("str('<f4')"), "its descr is"),
    "an escape in the type": (crafted("'\\x3cf4'"), "its descr is"),
    "an expression as a size": (crafted(shape="(__import__('os').getpid(),)"), "its shape is"),
    "a product as a size": (crafted(shape="(1*2,)"), "its shape is"),
    "a negative size": (crafted(shape="(-2,)"), "its shape is"),
    "a hexadecimal size": (crafted(shape="(0x2,)"), "its shape is"),
    "a float as a size": (crafted(shape="(2.0,)"), "its shape is"),
    "true as a size": (crafted(shape="(True,)"), "its shape is"),
    "a list as the shape": (crafted(shape="[2]"), "its shape is"),
    "a number as the shape": (crafted(shape="2"), "its shape is"),
    "a number in brackets": (crafted(shape="(2)"), "no tuple"),
    "two commas": (crafted(shape="(2,,)"), "no size"),
    "nothing but a comma": (crafted(shape="(,)"), "no size"),
    "a size of 5,000 digits": (crafted(shape="(" + "1" * 5000 + ",)"), "no size"),
    "four terabytes": (crafted(shape="(1000000000000,)"), "takes 4000000000000 bytes, and 8"),
    "sizes that overflow": (crafted(shape="(4294967296, 4294967296, 4)"), "any memory"),
    "sizes that overflow, times 0": (
        crafted(shape="(9223372036854775807, 2, 0)", data=b""),
        "any memory",
    ),
    "rank 65": (crafted(shape="(" + "1," * 64 + "2)"), "65 dimensions"),
    "one byte short": (crafted(data=bytes(7)), "the array is cut short"),
    "one byte more": (crafted(data=bytes(9)), "bytes after its end"),
    "an array after the array": (crafted() + crafted(), "bytes after its end"),
    "an order that is none": (crafted(order="0"), "its fortran_order is"),
    "an order as text": (crafted(order="'False'"), "its fortran_order is"),
    "a field twice": (crafted(text=f"{{{FIELDS}, 'descr': '<f4'}}"), "twice"),
    "a further field": (crafted(text=f"{{{FIELDS}, 'more': 1}}"), "is none of the fields"),
    "a missing field": (crafted(text="{'descr': '<f4', 'shape': (2,)}"), "lacks fortran_order"),
    "no field": (crafted(text="{}"), "lacks descr, fortran_order, shape"),
    "no comma": (crafted(text=f"{{{FIELDS.replace(', ', ' ', 1)}}}"), "follows its descr"),
    "no dictionary": (crafted(text="[1, 2]"), "is no dictionary"),
    "no text": (crafted(text=" " * 40), "is no dictionary"),
    "deep brackets": (crafted(text="{" + "(" * 9000 + "}"), "none of the fields"),
    "a call": (crafted(text="__import__('os').system('true')"), "is no dictionary"),
    "a long header": (crafted(text="{" + " " * 20_000 + "}"), "at most 10000"),
    "a header of 4 GB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "at most 10000"),
    "a header past the end": (b"\x93NUMPY\x01\x00\xff\x00{}", "states a header of 255 bytes, and 2"),
    "no length": (b"\x93NUMPY\x01\x00\x01", "fewer than a header"),
    "version 0": (crafted(version=0), "version"),
    "version 4": (crafted(version=4), "(4, 0); there are (1, 0)"),
    "bad UTF-8": (
        b"\x93NUMPY\x03\x00\x04\x00\x00\x00{\xff}\n",
        "not UTF-8 at byte 1",
    ),
    "a pickle": (pickle.dumps(print), "does not end as an archive"),
    "nothing": (b"", "does not end as an archive"),
}  # fmt: skip


def archive(*members, comment=b"", method=zipfile.ZIP_STORED):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as zipped:
        for name, data in members:
            zipped.writestr(name, data)
        zipped.comment = comment
    return made.getvalue()


GOOD = archive(("a.npy", crafted()), ("b.npy", crafted("'|u1'", data=b"\1\2")))
PACKED = archive(("a.npy", crafted()), method=zipfile.ZIP_DEFLATED)
CENTRAL = GOOD.index(b"PK\x01\x02")


def patched(at, data, good=GOOD):
    return good[:at] + data + good[at + len(data) :]


def twice(good=GOOD):
    """Both members called ``a.npy``, everywhere."""
    return good.replace(b"b.npy", b"a.npy")


def overlapping():
    """The directory lists the first member again under another name."""
    raw = bytearray(GOOD)
    second = GOOD.index(b"PK\x01\x02", CENTRAL + 4)
    raw[second + 42 : second + 46] = struct.pack("<L", 0)
    return bytes(raw)


def bomb(stated=8):
    """A megabyte of zeros behind a header that states eight bytes; the zip says so too."""
    content = crafted(data=bytes(1 << 20))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    size = len(crafted())
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 8, 0, 33, 7, len(packed), size, 5, 0)
    central = struct.pack(
        "<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, 7, len(packed), size, 5, 0, 0, 0, 0, 0, 0
    )
    body = local + b"a.npy" + packed
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(central) + 5, len(body), 0)
    return body + central + b"a.npy" + end


ARCHIVES = {
    "bytes before it": (b"x" + GOOD, "its directory"),
    "bytes after it": (GOOD + b"x", "does not end as an archive"),
    "itself twice": (GOOD + GOOD, "its directory"),
    "two ends": (
        archive(("a.npy", crafted()), comment=b"x" + GOOD[-22:]),
        "more than one end",
    ),
    "a comment that is no text": (archive(("a.npy", crafted()), comment=b"\xff"), "not UTF-8"),
    "a hole before the directory": (
        GOOD[:CENTRAL]
        + b"xxxx"
        + GOOD[CENTRAL:-6]
        + struct.pack("<L", CENTRAL + 4)
        + GOOD[-2:],
        "its members end at byte",
    ),
    "two members of one name": (twice(), "two members are called 'a.npy'"),
    "overlapping members": (overlapping(), "overlaps what comes after"),
    "another name in the directory": (patched(CENTRAL + 46, b"x"), "something else does"),
    "another size in the directory": (patched(CENTRAL + 24, b"\xff"), "is stored as it is"),
    "another checksum in the directory": (patched(CENTRAL + 16, b"\0\0\0\0"), "not the same"),
    "another method in the directory": (patched(CENTRAL + 10, b"\x08"), "not the same"),
    "both sizes larger": (
        patched(CENTRAL + 20, struct.pack("<LL", 1 << 30, 1 << 30)),
        "reach past byte",
    ),
    "a member past the end": (patched(CENTRAL + 42, struct.pack("<L", 1 << 30)), "begins at byte"),
    "a count too large": (patched(len(GOOD) - 14, struct.pack("<HH", 9, 9)), "its directory of 9"),
    "a count too small": (patched(len(GOOD) - 14, struct.pack("<HH", 1, 1)), "follow the last"),
    "an offset near 2^32": (patched(len(GOOD) - 6, struct.pack("<L", 0xFFFFFFFE)), "its directory"),
    "large numbers that are not there": (
        patched(len(GOOD) - 6, b"\xff\xff\xff\xff"),
        "the record of large archives",
    ),
    "several disks": (patched(len(GOOD) - 18, b"\1"), "one part of several"),
    "encrypted": (patched(CENTRAL + 8, b"\1", patched(6, b"\1")), "it is encrypted"),
    "packed by LZMA": (archive(("a.npy", crafted()), method=zipfile.ZIP_LZMA), "method 14"),
    "packed by bzip2": (archive(("a.npy", crafted()), method=zipfile.ZIP_BZIP2), "method 12"),
    "a name of no encoding": (GOOD.replace(b"a.npy", b"\xff.npy"), "does not tell its encoding"),
    "a NUL in a name": (GOOD.replace(b"a.npy", b"a\0npy"), "holds a NUL"),
    "no array among arrays": (archive(("a.npy", crafted()), ("b", b"x")), "'b' is no array"),
    "a member that is no array": (archive(("a.npy", b"x" * 99)), "tensor 'a' is no NumPy array"),
    "an empty member": (archive(("a.npy", b"")), "tensor 'a' is no NumPy array"),
    "a folder": (archive(("a/", b"")), "is no array"),
    "an object inside": (archive(("a.npy", ARRAYS["objects"][0])), "which can run code"),
    "bytes after an array": (archive(("a.npy", crafted(data=bytes(9)))), "after its end"),
    "a packed array and more": (
        archive(("a.npy", crafted(data=bytes(1 << 20))), method=zipfile.ZIP_DEFLATED),
        "after its end",
    ),
    "a packed four terabytes": (
        archive(("a.npy", crafted(shape="(1000000000000,)")), method=zipfile.ZIP_DEFLATED),
        "is cut short",
    ),
    "a bomb": (bomb(), "unpacks to more than its"),
    "a packed size past any ratio": (
        patched(
            PACKED.index(b"PK\x01\x02") + 24,
            struct.pack("<L", 1 << 30),
            patched(22, struct.pack("<L", 1 << 30), PACKED),
        ),
        "cannot hold",
    ),
    "rubbish that is said to be packed": (
        PACKED.replace(PACKED[35:45], b"\xff" * 10),
        "cannot be unpacked",
    ),
    "packed, and another checksum": (
        patched(
            PACKED.index(b"PK\x01\x02") + 16, b"\0\0\0\0", patched(14, b"\0\0\0\0", PACKED)
        ),
        "its checksum is another",
    ),
    "a bool of 7": (archive(("a.npy", crafted("'|b1'", data=b"\1\7"))), "neither 0 nor 1"),
}  # fmt: skip


def read_all(path):
    with NumpySerializer().open(path) as reader:
        return {name: reader.tensor(name) for name in reader}


@pytest.mark.parametrize("case", [*ARRAYS, *ARCHIVES])
def test_it_is_refused_with_the_reason(tmp_path, case):
    data, words = {**ARRAYS, **ARCHIVES}[case]
    path = tmp_path / "hostile"
    path.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        read_all(path)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(path))
    assert "provider: serializer:numpy" in message or "neither 0 nor 1" in message
    assert len(message) < 2000


def test_a_refusal_reads_well(tmp_path):
    path = tmp_path / "objects.npy"
    path.write_bytes(ARRAYS["objects"][0])
    with pytest.raises(WeightsError) as caught:
        read_all(path)
    assert str(caught.value) == (
        f"{path}: the array cannot be a tensor\n"
        "  provider: serializer:numpy (from hardpoint-numpy 0.1.0)\n"
        "  cause: '|O' is an array of Python objects: a pickle, which can run code\n"
        "  remedy: save it again as an array of numbers; nothing here ever unpickles"
    )


def test_what_numpy_writes_with_other_spacing_reads(tmp_path):
    path = tmp_path / "old.npy"
    for text in (
        "{'shape':(1L, 2L),'fortran_order':False,'descr':'<f4'}",
        '{"descr": "<f4" , "fortran_order": True, "shape": ( 1 , 2 , ) , }',
    ):
        path.write_bytes(crafted(text=text))
        assert read_all(path)["array"].shape == (1, 2)


def holds_together(path, data):
    """``None``: refused with our error; or a right result: what it says, in memory of the file's size."""
    path.write_bytes(data)
    NumpySerializer().recognizes(path)
    try:
        tensors = read_all(path)
    except WeightsError as error:
        assert len(str(error)) < 4000
        return None
    for tensor in tensors.values():
        assert tensor.numel() * tensor.element_size() <= 1100 * len(data)
        tensor.clone()
    return tensors


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "file"


def seeds():
    made = io.BytesIO()
    arrays = {"a": np.arange(6.0).reshape(2, 3), "ö": np.asfortranarray(np.eye(3, dtype=">i2"))}
    np.savez(made, **arrays)
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return [made.getvalue(), packed.getvalue(), npy(arrays["a"]), npy(arrays["ö"]), GOOD, PACKED]


SEEDS = seeds()


@given(
    seed=st.sampled_from(SEEDS),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=6),
    cut=st.none() | st.floats(0, 1),
    more=st.binary(max_size=8),
)
@settings(max_examples=1500, deadline=None)
def test_flips_cuts_and_tails_do_no_harm(path, seed, flips, cut, more):
    data = bytearray(seed)
    for place, bit in flips:
        data[int(place * len(data))] ^= 1 << bit
    made = bytes(data[: None if cut is None else int(cut * len(data))]) + more
    assert holds_together(path, made) is not None or made != seed


NUMBERS = st.sampled_from(
    [0, 1, 2, 0xFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1]
)


@given(
    seed=st.sampled_from(SEEDS),
    patches=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), NUMBERS, st.sampled_from([2, 4, 8])),
        min_size=1,
        max_size=4,
    ),
)
@settings(max_examples=1500, deadline=None)
def test_giant_numbers_do_no_harm(path, seed, patches):
    data = bytearray(seed)
    for place, number, width in patches:
        at = int(place * max(1, len(data) - width))
        data[at : at + width] = (number % (1 << (8 * width))).to_bytes(width, "little")
    assert holds_together(path, bytes(data)) is not None or data != seed


PIECES = st.sampled_from(
    ["'descr'", "'shape'", "'fortran_order'", ": ", ", ", "True", "False", "'<f4'", "'|O'", "(2,)",
     "()", "(", ")", "{", "}", "[", "]", "1", "-", "\\", "'", '"', "lambda: 0", "\n", " " * 9, "ö"]
)  # fmt: skip


@given(pieces=st.lists(PIECES, max_size=14), version=st.integers(1, 3), data=st.binary(max_size=16))
@settings(max_examples=1500, deadline=None)
def test_any_text_as_a_header_does_no_harm(path, pieces, version, data):
    text = "{" + "".join(pieces) + "}"
    found = holds_together(path, crafted(text=text, version=version, data=data))
    assert found is None or set(found) == {"array"}


@given(
    code=st.sampled_from(["b1", "u1", "i2", "f4", "c8"]),
    shape=st.lists(st.integers(0, 4), max_size=4),
    order=st.sampled_from("CF"),
    end=st.sampled_from("<>"),
    packed=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_what_numpy_writes_is_what_we_read(path, code, shape, order, end, packed):
    array = np.ones(shape, f"{end}{code}", order=order)
    array[...] = np.arange(array.size).reshape(shape) % 2
    with path.open("wb") as file:
        (np.savez_compressed if packed else np.savez)(file, a=array)
    tensor = read_all(path)["a"]
    assert tuple(tensor.shape) == array.shape
    assert torch.equal(tensor, torch.from_numpy(array.astype(array.dtype.newbyteorder("="))))
