"""Damaged and hostile files: each is refused with one error that says why, or accepted whole.

The corpus holds what readers in use disagree about: here every file of it is decided.
"""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hardpoint import WeightsError
from hardpoint_safetensors import strict_json
from hardpoint_safetensors.header import LENGTH_BYTES, MAX_TENSORS, parse_header
from hardpoint_safetensors.serializer import SafetensorsSerializer
from hardpoint_safetensors.strict_json import loads


def f32(begin=0, end=64, shape=(16,), **more):
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end], **more}


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


A = '"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]}'
DATA = bytes(range(64))
HUGE = 1 << 63

# name of the case -> (header, data, part of the cause)
REFUSED = {
    "two tensors of one range": ({"a": f32(), "b": f32()}, DATA, "overlap"),
    "ranges that overlap": ({"a": f32(), "b": f32(32, 96)}, bytes(96), "overlap"),
    "a hole between tensors": (
        {"a": f32(), "b": f32(68, 132)},
        bytes(132),
        "nothing describes the 4",
    ),
    "a hole before the first": ({"a": f32(4, 68)}, bytes(68), "nothing describes the 4"),
    "data cut short": ({"a": f32()}, DATA[:63], "take 64 bytes, and 63 follow"),
    "trailing bytes": ({"a": f32()}, DATA + b"x", "take 64 bytes, and 65 follow"),
    "trailing bytes and no tensor": ("{}", b"x", "take 0 bytes, and 1 follow"),
    "not JSON": ("{nonsense}", b"", "not JSON"),
    "a list": ("[1, 2]", b"", "begins with"),
    "a string": ('"{}"', b"", "begins with"),
    "nothing but blanks": ("      ", b"", "begins with"),
    "bad UTF-8": (b'{"\xff":1}', b"", "not UTF-8 at byte 2"),
    "a byte order mark": (b"\xef\xbb\xbf{}", b"", "begins with"),
    "UTF-16": ("{}".encode("utf-16"), b"", "begins with"),
    "NUL after the JSON": (b"{}\x00", b"", "not JSON"),
    "a second object": ("{}{}", b"", "not JSON"),
    "depth 100,000": ("{" + '"a":{' * 100_000, b"", "nested too deeply"),
    "lists of depth 100,000": ('{"a":' + "[" * 100_000, b"", "nested too deeply"),
    "leading blanks": (" {}", b"", "begins with"),
    "padding by newline": ("{}\n\n", b"", "padded"),
    "padding by tab": ("{}\t", b"", "padded"),
    "a negative size": ({"a": f32(shape=(-16,))}, DATA, "no list of sizes"),
    "two negative sizes": ({"a": f32(shape=(-4, -4))}, DATA, "no list of sizes"),
    "sizes whose product overflows": ({"a": f32(shape=(1 << 32, 1 << 32))}, DATA, "any memory"),
    "sizes that overflow, times 0": ({"a": f32(0, 0, (HUGE, 2, 0))}, b"", "any memory"),
    "one size past 2^63": ({"a": f32(0, 0, (1 << 64, 0))}, b"", "any memory"),
    "size other than the range": ({"a": f32(shape=(15,))}, DATA, "takes 60 bytes"),
    "reversed offsets": ({"a": f32(64, 0)}, DATA, "are no range"),
    "negative offsets": ({"a": f32(-64, 0)}, DATA, "are no range"),
    "offsets past 2^63": ({"a": f32(HUGE, HUGE + 64)}, DATA, "are no range"),
    "true as a size": (
        '{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}',
        b"abcd",
        "sizes",
    ),
    "text as a size": ({"a": f32(shape=("16",))}, DATA, "no list of sizes"),
    "null as a size": ({"a": f32(shape=(None,))}, DATA, "no list of sizes"),
    "a number as the shape": ({"a": {**f32(), "shape": 16}}, DATA, "no list of sizes"),
    "false as an offset": ({"a": f32(False, 64)}, DATA, "not two whole numbers"),
    "text as an offset": ({"a": f32("0", "64")}, DATA, "not two whole numbers"),
    "a float offset": ("{" + A.replace("64", "6.4e1") + "}", DATA, "whole numbers"),
    "a float size": ({"a": f32(shape=(16.0,))}, DATA, "whole numbers"),
    "one offset": ({"a": {**f32(), "data_offsets": [64]}}, DATA, "not two whole numbers"),
    "three offsets": ({"a": {**f32(), "data_offsets": [0, 64, 64]}}, DATA, "not two whole numbers"),
    "offsets as an object": ({"a": {**f32(), "data_offsets": {"0": 64}}}, DATA, "not two whole"),
    "a number of 5,000 digits": (
        '{"a":{"dtype":"F32","shape":[' + "1" * 5000 + '],"data_offsets":[0,64]}}',
        DATA,
        "a number of 5000 digits",
    ),
    "an unknown dtype": ({"a": {**f32(), "dtype": "F33"}}, DATA, "'F33', which the format"),
    "a lower-case dtype": ({"a": {**f32(), "dtype": "f32"}}, DATA, "does not know"),
    "a number as the dtype": ({"a": {**f32(), "dtype": 32}}, DATA, "does not know"),
    "a list as the dtype": ({"a": {**f32(), "dtype": ["F32"]}}, DATA, "does not know"),
    "F6, which PyTorch lacks": ({"a": entry("F6_E2M3", [4], 0, 3)}, b"abc", "no dtype for F6_E2M3"),
    "F4 of an odd count": ({"a": entry("F4", [3], 0, 2)}, b"ab", "whole bytes"),
    "F4 of an odd last size": ({"a": entry("F4", [2, 3], 0, 3)}, b"abc", "whole bytes"),
    "an F4 scalar": ({"a": entry("F4", [], 0, 1)}, b"a", "whole bytes"),
    "a duplicate tensor": ("{" + A + "," + A + "}", DATA, "key 'a' stands there twice"),
    "a duplicate that leaves a hole": (
        '{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},' + A + "}",
        DATA,
        "twice",
    ),
    "a duplicate under an escape": (
        "{" + A + ',"\\u0061":{"dtype":"F32","shape":[0],"data_offsets":[64,64]}}',
        DATA,
        "key 'a' stands there twice",
    ),
    "a duplicate field": (
        "{" + A.replace('{"dtype"', '{"dtype":"I32","dtype"') + "}",
        DATA,
        "twice",
    ),
    "duplicate metadata": ('{"__metadata__":{},"__metadata__":{},' + A + "}", DATA, "twice"),
    "a duplicate key in the metadata": ('{"__metadata__":{"k":"1","k":"2"}}', b"", "twice"),
    "NaN": ('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,64]}}', DATA, "NaN is not JSON"),
    "Infinity": ('{"a":Infinity}', b"", "Infinity is not JSON"),
    "half a surrogate pair in a name": (
        "{" + A.replace('"a"', '"\\ud800"') + "}",
        DATA,
        "surrogate",
    ),
    "half a surrogate pair in metadata": ('{"__metadata__":{"k":"\\udfff"}}', b"", "surrogate"),
    "metadata that is not text": ({"__metadata__": {"k": 1}}, b"", "only text"),
    "metadata within metadata": ({"__metadata__": {"k": {}}}, b"", "only text"),
    "metadata as a list": ({"__metadata__": ["k"]}, b"", "not an object"),
    "metadata null": ({"__metadata__": None}, b"", "not an object"),
    "a tensor named __metadata__": ({"__metadata__": f32()}, DATA, "only text"),
    "an extra field": ({"a": f32(extra=1)}, DATA, "needs exactly"),
    "a missing field": ({"a": {"dtype": "F32", "shape": [16]}}, DATA, "needs exactly"),
    "a number as a tensor": ({"a": 1}, b"", "needs exactly"),
    "a list as a tensor": ({"a": ["dtype", "shape", "data_offsets"]}, b"", "needs exactly"),
    "rank 10,000": ({"a": f32(0, 4, [1] * 10_000)}, b"abcd", "10000 dimensions"),
    "rank 65": ({"a": f32(0, 4, [1] * 65)}, b"abcd", "65 dimensions"),
    "an empty tensor past the end": (
        {"a": f32(), "b": f32(99, 99, (0,))},
        DATA,
        "nothing describes",
    ),
    "an empty tensor inside another": ({"a": f32(), "b": f32(32, 32, (0,))}, DATA, "overlap"),
    "a tensor past the end": ({"a": f32(), "b": f32(64, 128)}, DATA, "take 128 bytes"),
}

# name of the case -> (header, data, names of the tensors)
ACCEPTED = {
    "no tensor at all": ("{}", b"", []),
    "padding by blanks": ("{" + A + "}      ", DATA, ["a"]),
    "white space inside": (
        '{\n\t"a" : {"dtype":"F32","shape":[16],"data_offsets":[0,64]}}',
        DATA,
        ["a"],
    ),
    "a scalar": ({"a": f32(0, 4, ())}, b"abcd", ["a"]),
    "empty tensors anywhere": (
        {"z": f32(0, 0, (0, 5)), "a": f32(), "m": f32(64, 64, (0,)), "b": f32(64, 128)},
        bytes(128),
        ["z", "a", "m", "b"],
    ),
    "rank 64": ({"a": f32(0, 4, [1] * 64)}, b"abcd", ["a"]),
    "rank 64 misaligned": (
        {"a": entry("U8", [1], 0, 1), "b": f32(1, 5, [1] * 64)},
        b"abcde",
        ["a", "b"],
    ),
    "F4 of an even count": ({"a": entry("F4", [2, 4], 0, 4)}, b"abcd", ["a"]),
    "an empty name": ({"": f32()}, DATA, [""]),
    "a path as a name": ({"../../etc/x": f32()}, DATA, ["../../etc/x"]),
    "NUL in a name": ({"\0": f32()}, DATA, ["\0"]),
    "__class__ as a name": ({"__class__": f32()}, DATA, ["__class__"]),
    "a whole surrogate pair": ('{"\\ud83d\\ude00":' + A[4:] + "}", DATA, ["\U0001f600"]),
    "an escaped name": ('{"\\u0061":' + A[4:] + "}", DATA, ["a"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_with_one_error_that_says_why(case, craft, serializer):
    header, data, cause = REFUSED[case]
    path = craft(header, data)
    with pytest.raises(WeightsError) as caught:
        serializer.open(path)
    error = caught.value
    assert cause in error.cause
    assert str(path) in error.what
    assert error.remedy
    assert error.provider == "serializer:safetensors"
    assert error.origin.startswith("hardpoint-safetensors ")
    assert len(str(error)) < 1000


@pytest.mark.parametrize("case", ACCEPTED)
def test_is_accepted_whole(case, craft, serializer):
    header, data, names = ACCEPTED[case]
    with serializer.open(craft(header, data)) as reader:
        assert list(reader) == names
        for name in names:
            tensor = reader.tensor(name)
            assert tuple(tensor.shape) == reader[name].shape
            assert tensor.numel() * tensor.element_size() == reader[name].nbytes


@pytest.mark.parametrize(
    ("length", "cause"),
    [
        (0, "a header of 0 bytes"),
        (1, "a header of 1 bytes"),
        (3, "a header of 3 bytes, and 2 follow"),
        (100_000_000, "and 2 follow"),
        (100_000_001, "at most 100000000"),
        (1 << 63, "at most"),
        ((1 << 64) - 8, "at most"),
        ((1 << 64) - 1, "at most"),
    ],
)
def test_a_wrong_header_length_is_refused(length, cause, craft, serializer):
    with pytest.raises(WeightsError) as caught:
        serializer.open(craft("{}", length=length))
    assert cause in caught.value.cause


@pytest.mark.parametrize("size", range(8))
def test_a_file_shorter_than_its_first_number_is_refused(size, tmp_path, serializer):
    path = tmp_path / "short.safetensors"
    path.write_bytes(b"\x02\0\0\0\0\0\0\0"[:size])
    with pytest.raises(WeightsError, match="no safetensors file"):
        serializer.open(path)


@pytest.mark.parametrize("place", ['{"a":%s}', '{"__metadata__":{"k":%s}}', '{"a":{"dtype":%s}}'])
def test_any_depth_of_nesting_is_refused_in_words(place):
    for depth in range(50, 3000, 50):
        raw = (place % ("[" * depth + "]" * depth)).encode()
        with pytest.raises(WeightsError, match="broken"):
            parse_header(raw, 0, "deep.safetensors")


def test_too_many_tensors_are_refused():
    one = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    many = ",".join(f'"{i}":{one}' for i in range(MAX_TENSORS + 1))
    with pytest.raises(WeightsError, match=f"at most {MAX_TENSORS}"):
        parse_header(("{" + many + "}").encode(), 0, "many.safetensors")


def test_a_bool_that_is_neither_true_nor_false_is_refused_when_it_is_read(craft, serializer):
    path = craft({"mask": entry("BOOL", [4], 0, 4)}, b"\0\1\7\0")
    with serializer.open(path) as reader:
        with pytest.raises(WeightsError, match="neither 0 nor 1") as caught:
            reader.tensor("mask")
        assert "tensor 'mask'" in caught.value.what
        assert reader.slice("mask", slice(0, 2)).tolist() == [False, True]


def test_a_message_never_prints_what_a_hostile_name_holds(craft, serializer):
    name = "\x1b[2J" + "x" * 10_000
    with pytest.raises(WeightsError) as caught:
        serializer.open(craft({name: f32(shape=(1,))}, DATA))
    assert "\x1b" not in str(caught.value)
    assert len(caught.value.what) < 400


def test_the_message_reads_well(craft, serializer):
    path = craft({"layer.weight": f32(shape=(15,))}, DATA)
    with pytest.raises(WeightsError) as caught:
        serializer.open(path)
    said = str(caught.value).replace(caught.value.origin, "hardpoint-safetensors X")
    assert said == (
        f"{path}: tensor 'layer.weight' is broken\n"
        "  provider: serializer:safetensors (from hardpoint-safetensors X)\n"
        "  cause: F32 of shape [15] takes 60 bytes, its data_offsets [0, 64] give 64\n"
        "  remedy: get the file again from where it came from: it is damaged, or made to mislead"
    )


@pytest.mark.parametrize("kind", ["directory", "pipe", "missing"])
def test_what_is_no_file_is_refused(kind, tmp_path, serializer):
    import os

    path = tmp_path / "x.safetensors"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(WeightsError):
        serializer.open(path)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "F4", "BOOL", "F6_E3M2"]) | JSONISH,
        "shape": st.lists(st.integers(-1, 5), max_size=3) | JSONISH,
        "data_offsets": st.lists(st.integers(-1, 70), min_size=2, max_size=2) | JSONISH,
    }
)
HEADER = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRY | JSONISH, max_size=3)


def refused_or_tiles(raw: bytes, size: int) -> bool:
    """Whether parsing raises WeightsError, or gives tensors that tile the data exactly."""
    try:
        header = parse_header(raw, size, "fuzz")
    except WeightsError:
        return True
    at = data_at = LENGTH_BYTES + len(raw)
    for name, info in header.tensors.items():
        count = getattr(torch, info.dtype).itemsize
        for dimension in info.shape:
            count *= dimension
        assert info.name == name
        assert info.offset == at
        assert info.nbytes == count
        at += count
    return at == data_at + size


# A tree of JSON; an object is the list of its pairs, which may repeat a key.
KEYS = st.sampled_from(["a", "b", ":", "a:b"])
PAIRS = st.recursive(
    st.integers(-9, 9) | st.sampled_from(["", ":", '":"', "é"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: ("array", items))
        | st.lists(st.tuples(KEYS, inner), max_size=3).map(lambda pairs: ("object", pairs))
    ),
    max_leaves=8,
)


def spelled(tree) -> str:
    if not isinstance(tree, tuple):
        return json.dumps(tree)
    kind, parts = tree
    if kind == "array":
        return "[" + ",".join(map(spelled, parts)) + "]"
    return "{" + ",".join(f"{json.dumps(key)}:{spelled(value)}" for key, value in parts) + "}"


def repeats_a_key(tree) -> bool:
    if not isinstance(tree, tuple):
        return False
    kind, parts = tree
    if kind == "array":
        return any(map(repeats_a_key, parts))
    keys = [key for key, _ in parts]
    return len(set(keys)) < len(keys) or any(repeats_a_key(value) for _, value in parts)


@given(PAIRS)
@settings(max_examples=500)
def test_a_key_that_stands_twice_is_refused_at_any_depth_and_nothing_else_is(tree):
    text = spelled(tree)
    if repeats_a_key(tree):
        with pytest.raises(ValueError, match="stands there twice"):
            loads(text.encode())
    else:
        assert loads(text.encode()) == json.loads(text)


@given(st.binary(max_size=200), st.integers(0, 100))
def test_any_bytes_are_refused_or_tile_the_file(raw, size):
    assert refused_or_tiles(raw, size)
    assert refused_or_tiles(b"{" + raw, size)


@given(HEADER, st.integers(0, 70))
def test_any_json_is_refused_or_tiles_the_file(header, size):
    assert refused_or_tiles(json.dumps(header).encode(), size)


@given(st.data())
@settings(max_examples=300)
def test_a_good_header_with_bytes_changed_is_refused_or_tiles_the_file(data):
    raw = bytearray(b'{"__metadata__":{"k":"v"},' + A.encode() + b"}")
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert refused_or_tiles(bytes(raw), 64)


@given(st.binary(max_size=64))
def test_any_file_opens_or_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    serializer = SafetensorsSerializer()
    assert isinstance(serializer.recognizes(path), bool)
    try:
        with serializer.open(path) as reader:
            for name in reader:
                reader.tensor(name)
    except WeightsError:
        return


def test_a_file_cut_short_while_mapped_kills_the_reader_as_every_map_does(craft):
    """Not a wish but a fact of mmap, and documented; copies are not touched by it."""
    size = 1 << 16
    path = craft({"a": entry("U8", [size], 0, size)}, bytes(size))
    code = (
        "import os, sys; from pathlib import Path\n"
        "from hardpoint_safetensors.serializer import SafetensorsSerializer\n"
        "path = Path(sys.argv[1]); tensor = SafetensorsSerializer().open(path).tensor('a')\n"
        "copy = tensor.clone(); os.truncate(path, 100)\n"
        "assert int(copy.sum()) == 0; print('copied', flush=True); tensor.sum()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "copied"
    assert done.returncode == -7  # SIGBUS


# Texts that are one step from a usual header; a parser in C reads those that stay usual.
ONE_STEP = ["NaN", "1.0", "1e2", "01", "-", "-0", "-1", "true", "null", "[1,]", "[]", "{}", "[[1]]"]
ONE_STEP += [
    '"\x01"',
    '"\x7f"',
    '"\\u0061"',
    '"\\ud800"',
    '"é:"',
    '"\ud800"',
    "1}",
    "1}}",
    "9" * 19,
]
ONE_STEP += [
    "9" * 30,
    "9" * 5000,
    "18446744073709551616",
    '1, "b": 1',
    '1, "c" : 1',
    "1 // x",
    "'a'",
]


@pytest.mark.parametrize("spelled", ONE_STEP)
@pytest.mark.parametrize("around", ['{{"a": {{"b":{}}}}}', '{{"a":{{"b":[0,{}]}}}}', '{{"b":{}}}'])
def test_the_quick_parser_takes_only_what_the_strict_one_takes_and_reads_it_alike(spelled, around):
    raw = around.format(spelled).encode("utf-8", "surrogatepass")
    quick = strict_json._plain(raw)
    if quick is not None:
        text, pairs = raw.decode("utf-8"), strict_json._unique_and_whole
        assert strict_json._parse(text, pairs, int, floats=False) == quick


@given(st.binary(max_size=12), st.integers(0, 60), st.integers(0, 4))
@settings(max_examples=300)
def test_a_header_with_bytes_exchanged_is_read_alike_or_by_the_strict_parser(new, at, old):
    raw = b'{"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]},"b":{"dtype":"F32"}}'
    raw = raw[:at] + new + raw[at + old :]
    quick = strict_json._plain(raw)
    if quick is not None:
        text, pairs = raw.decode("utf-8"), strict_json._unique_and_whole
        assert strict_json._parse(text, pairs, int, floats=False) == quick


def test_a_usual_header_is_read_by_the_quick_parser():
    raw = b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]}}'
    assert strict_json._plain(raw) == json.loads(raw)
