"""Damaged and hostile files: each is refused with one error that says why, at once."""

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from hardpoint import WeightsError
from hardpoint_gguf.serializer import GgufSerializer

GOLDEN = Path(__file__).parent / "golden"
HUGE = 1 << 63


def text(value):
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(name="t", sizes=(8,), kind=0, offset=0, rank=None):
    rank = len(sizes) if rank is None else rank
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", rank, *sizes, kind, offset)


def pair(key="k", kind=0, raw=b"\1"):
    return text(key) + struct.pack("<I", kind) + raw


def array(kind, count, body=b"", key="k"):
    return pair(key, 9, struct.pack("<IQ", kind, count) + body)


def crafted(pairs=(), tensors=(), data=b"", *, counts=None, version=3, alignment=32, pad=b"\0"):
    tensor_count, pair_count = counts or (len(tensors), len(pairs))
    head = struct.pack("<4sIQQ", b"GGUF", version, tensor_count, pair_count)
    made = head + b"".join(pairs) + b"".join(tensors)
    return made + pad * (-len(made) % alignment) + data


def nested(depth):
    return pair("k", 9, struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 0, 1) + b"\1")


F32 = bytes(32)
ALIGN = "general.alignment"

# name of the case -> (file, part of the message)
REFUSED = {
    "nothing": (b"", "this is no GGUF file"),
    "another format": (b"\x93NUMPY" + bytes(64), "this is no GGUF file"),
    "nothing but the magic word": (b"GGUF", "cut short"),
    "version 0": (crafted(version=0), "version 0"),
    "version 1": (crafted(version=1), "version 1"),
    "version 4": (crafted(version=4), "versions 2 and 3 are read"),
    "big-endian": (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "is big-endian"),
    "2^60 tensors": (crafted(counts=(1 << 60, 0)), "states 1152921504606846976 tensors"),
    "2^64-1 tensors": (crafted(counts=((1 << 64) - 1, 0)), "tensors"),
    "2^60 pairs": (crafted(counts=(0, 1 << 60)), "states 1152921504606846976 pairs"),
    "one pair too many": (crafted([pair()], counts=(0, 2)), "is empty"),
    "one tensor too many": (crafted([], [entry()], F32, counts=(2, 0)), "tensor"),
    "a key of 2^63 bytes": (crafted([struct.pack("<Q", HUGE) + bytes(40)]), "takes 9223372036854775808"),
    "a key of 65,536 bytes": (crafted([pair("k" * 65_536)]), "at most 65535"),
    "an empty key": (crafted([pair("")]), "is empty"),
    "a key twice": (crafted([pair(), pair()]), "the key 'k' is empty, or stands there twice"),
    "a key that is not UTF-8": (crafted([pair(b"\xff")]), "not UTF-8"),
    "a value that is not UTF-8": (crafted([pair("k", 8, text(b"\xff"))]), "not UTF-8"),
    "a string past the end": (crafted([pair("k", 8, struct.pack("<Q", 1 << 40))]), "follow"),
    "a string of 17 MB": (crafted([pair("k", 8, text(b"x" * (17 << 20)))]), "at most 16777216"),
    "five strings of 16 MB": (
        crafted([pair(f"{i}", 8, text(b"x" * (1 << 24))) for i in range(5)]),
        "bytes of text",
    ),
    "an unknown type of value": (crafted([pair("k", 13)]), "type 13"),
    "a type of 2^32-1": (crafted([pair("k", (1 << 32) - 1)]), "type 4294967295"),
    "a flag of 2": (crafted([pair("k", 7, b"\2")]), "neither 0 nor 1"),
    "an array of 50 million strings in 60 bytes": (crafted([array(8, 50_000_000)]), "cut short"),
    "an array of 2^64-1 bytes": (crafted([array(0, (1 << 64) - 1)]), "cut short"),
    "an array of 2^61 doubles": (crafted([array(12, 1 << 61)]), "cut short"),
    "an array of an unknown type": (crafted([array(99, 1)]), "holds type 99"),
    "arrays 5 deep": (crafted([nested(5)]), "nested more than 4 deep"),
    "arrays 100,000 deep": (crafted([nested(100_000)]), "nested more than 4 deep"),
    "5 million empty strings": (crafted([array(8, 5_000_000, bytes(40_000_000))]), "at most 4194304"),
    "a million and more elements": (
        crafted([array(0, 1000, bytes(1000), key=f"{i}") for i in range(1100)]),
        "elements together",
    ),
    "strings that end early": (
        crafted([array(8, 2000, text("x") * 1999 + bytes(3))], alignment=1), "follow",
    ),
    "a string in a long array past the end": (
        crafted([array(8, 2000, text("x") * 1000 + struct.pack("<Q", HUGE) + bytes(9000))]),
        "follow",
    ),
    "alignment 0": (crafted([pair(ALIGN, 4, struct.pack("<I", 0))]), "no power of two"),
    "alignment 24": (crafted([pair(ALIGN, 4, struct.pack("<I", 24))]), "no power of two"),
    "alignment 2^31": (crafted([pair(ALIGN, 4, struct.pack("<I", 1 << 31))]), "no power of two"),
    "alignment as text": (crafted([pair(ALIGN, 8, text("32"))]), "not uint32"),
    "alignment of 64 bits": (crafted([pair(ALIGN, 10, struct.pack("<Q", 32))]), "not uint32"),
    "a tensor twice": (
        crafted([], [entry("a"), entry("a", offset=32)], bytes(64)),
        "two tensors are called 'a'",
    ),
    "a name that is not UTF-8": (crafted([], [entry(b"\xff")], F32), "not UTF-8"),
    "rank 65": (crafted([], [entry(sizes=(1,) * 65)], F32), "65 dimensions"),
    "rank 2^32-1": (crafted([], [entry(rank=(1 << 32) - 1)], F32), "4294967295 dimensions"),
    "a removed type": (crafted([], [entry(kind=4)], F32), "Q4_2, taken out of ggml"),
    "an unknown type": (crafted([], [entry(kind=99)], F32), "unknown here"),
    "sizes that overflow": (crafted([], [entry(sizes=(1 << 32, 1 << 32))], F32), "any memory"),
    "sizes that overflow, times 0": (
        crafted([], [entry(sizes=(HUGE, 2, 0))]), "any memory",
    ),
    "a size of 2^64-1": (crafted([], [entry(sizes=((1 << 64) - 1,))], F32), "any memory"),
    "a quantized scalar": (crafted([], [entry(sizes=(), kind=2)], bytes(18)), "no multiple"),
    "half a block": (crafted([], [entry(sizes=(16,), kind=2)], bytes(9)), "no multiple of Q4_0's 32"),
    "data cut short": (crafted([], [entry()], F32[:-1]), "end at byte"),
    "no data at all": (crafted([], [entry()]), "end at byte"),
    "one byte more": (crafted([], [entry()], F32 + b"x"), "belong to nobody"),
    "32 bytes more": (crafted([], [entry()], F32 + bytes(32)), "belong to nobody"),
    "padding that says something": (crafted([], [entry(sizes=(7,))], bytes(28) + b"evil"), "nobody"),
    "padding after the header that does": (crafted([pair()], [entry()], F32, pad=b"x"), "pad it"),
    "overlap": (crafted([], [entry("a"), entry("b")], F32), "overlaps tensor 'a'"),
    "partial overlap": (
        crafted([], [entry("a", (16,)), entry("b", (8,), offset=32)], bytes(64)),
        "overlaps tensor 'a'",
    ),
    "a hole": (crafted([], [entry(offset=32)], bytes(64)), "leaves a hole after the header"),
    "misaligned": (crafted([], [entry(offset=4)], bytes(36)), "no multiple of the alignment"),
    "an offset near 2^64": (
        crafted([], [entry(offset=(1 << 64) - 64)], F32), "leaves a hole",
    ),
    "bytes and no tensor": (crafted() + bytes(64), "belong to nobody"),
}  # fmt: skip

ACCEPTED = {
    "nothing in it": (crafted(), []),
    "nothing in it, unpadded": (crafted(alignment=1), []),
    "a scalar": (crafted([], [entry(sizes=())], bytes(4)), ["t"]),
    "no elements": (crafted([], [entry(sizes=(0, 3))]), ["t"]),
    "version 2": (crafted([], [entry()], F32, version=2), ["t"]),
    "tensors listed in another order": (
        crafted([], [entry("b", offset=32), entry("a")], bytes(64)),
        ["a", "b"],
    ),
    "arrays 3 deep": (crafted([nested(3)]), []),
    "an odd name": (crafted([], [entry("../../etc/passwd\n")], F32), ["../../etc/passwd\n"]),
}


def read_all(path):
    with GgufSerializer().open(path) as reader:
        dict(reader.metadata)
        return {name: reader.tensor(name) for name in reader}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_the_reason(tmp_path, case):
    data, words = REFUSED[case]
    path = tmp_path / "hostile"
    path.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        read_all(path)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(path))
    assert "provider: serializer:gguf" in message
    assert len(message) < 2000


@pytest.mark.parametrize("case", ACCEPTED)
def test_it_is_accepted(tmp_path, case):
    data, names = ACCEPTED[case]
    path = tmp_path / "good"
    path.write_bytes(data)
    assert list(read_all(path)) == names


def test_a_refusal_reads_well(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(REFUSED["an array of 50 million strings in 60 bytes"][0])
    with pytest.raises(WeightsError) as caught:
        read_all(path)
    assert str(caught.value) == (
        f"{path}: the file is cut short\n"
        "  provider: serializer:gguf (from hardpoint-gguf 0.1.0)\n"
        "  cause: the array 'k' takes 400000000 bytes, and 15 follow\n"
        "  remedy: get the file again from where it came from: it is damaged, or made to mislead"
    )


def holds_together(path, data):
    """``None``: refused with our error; or a right result, in memory of the file's size."""
    path.write_bytes(data)
    GgufSerializer().recognizes(path)
    try:
        tensors = read_all(path)
    except WeightsError as error:
        assert len(str(error)) < 4000
        return None
    for tensor in tensors.values():
        # A block of the smallest type, IQ1_S, is 50 bytes for 256 float32.
        assert tensor.numel() * tensor.element_size() <= 32 * len(data)
        tensor.clone()
    return tensors


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "file"


SEEDS = [
    (GOLDEN / "quantized.gguf").read_bytes(),
    crafted([pair("a"), array(5, 2, bytes(8), "b"), pair("c", 8, text("x"))], [entry()], F32),
    crafted([array(8, 2, text("x") * 2)], [entry("a"), entry("b", (32,), 2, 32)], bytes(50)),
]
FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=6)


@given(
    seed=st.sampled_from(SEEDS),
    flips=FLIPS,
    cut=st.none() | st.floats(0, 1),
    more=st.binary(max_size=8),
)
@settings(max_examples=1500, deadline=None)
def test_flips_cuts_and_tails_do_no_harm(path, seed, flips, cut, more):
    data = bytearray(seed)
    for place, bit in flips:
        data[int(place * min(len(data), 3000))] ^= 1 << bit
    made = bytes(data[: None if cut is None else int(cut * len(data))]) + more
    assert holds_together(path, made) is not None or made != seed


NUMBERS = st.sampled_from(
    [
        0,
        1,
        2,
        0xFF,
        0xFFFF,
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
        HUGE - 1,
        HUGE,
        (1 << 64) - 32,
        (1 << 64) - 1,
    ]
)
PATCHES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), NUMBERS, st.sampled_from([4, 8])),
    min_size=1,
    max_size=4,
)


@given(seed=st.sampled_from(SEEDS), patches=PATCHES)
@settings(max_examples=1500, deadline=None)
def test_giant_numbers_do_no_harm(path, seed, patches):
    data = bytearray(seed)
    for place, number, width in patches:
        at = int(place * (min(len(data), 3000) - width))
        data[at : at + width] = (number % (1 << (8 * width))).to_bytes(width, "little")
    assert holds_together(path, bytes(data)) is not None or data != seed


SMALL = st.integers(0, 3) | NUMBERS
PAIRS = st.lists(
    st.builds(
        lambda key, kind, inner, count, body: (
            array(inner, count, body, key) if kind == 9 else pair(key, kind, body)
        ),
        st.text(max_size=3),
        st.integers(0, 13),
        st.integers(0, 13),
        SMALL,
        st.binary(max_size=24),
    ),
    max_size=4,
)
TENSORS = st.lists(
    st.builds(
        entry,
        st.text(max_size=2),
        st.lists(st.sampled_from([0, 1, 8, 32, 256, HUGE]), max_size=3),
        st.integers(0, 42),
        st.sampled_from([0, 32, 64, 96, 160, 256, HUGE, (1 << 64) - 32]),
    ),
    max_size=3,
)


@given(
    pairs=PAIRS,
    tensors=TENSORS,
    data=st.integers(0, 600).map(bytes),
    counts=st.none() | st.tuples(SMALL, SMALL),
)
@settings(max_examples=1500, deadline=None)
def test_any_structure_does_no_harm(path, pairs, tensors, data, counts):
    found = holds_together(path, crafted(pairs, tensors, data, counts=counts))
    assert found is None or len(found) == (counts[0] if counts else len(tensors))
