"""Hostile and damaged checkpoints: each is refused by one error that says why, and runs nothing."""

import pickle
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from checkpoint_forge import (
    DATA,
    checkpoint,
    dictionary,
    members,
    name,
    number,
    pickled,
    storage,
    tensor,
    text,
    tup,
    zipped,
)

from hardpoint import WeightsError
from hardpoint_checkpoint import machine

GOOD = dictionary(w=tensor())
STATE = pickled(GOOD)
MARK = "MARKER"  # a file that nothing may make


def calls(module, attribute, *arguments):
    return name(module, attribute) + tup(*arguments) + b"R"


def short(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


TOUCH = f"open({MARK!r}, 'w')"
NESTED = pickle.dumps({"x": 1})

# name of the case -> (body of the pickle, part of the cause)
CODE = {
    "os.system": (calls("posix", "system", text(f"touch {MARK}")), "asks for posix.system"),
    "builtins.eval": (calls("builtins", "eval", text(TOUCH)), "asks for builtins.eval"),
    "Python 2's eval": (calls("__builtin__", "eval", text(TOUCH)), "__builtin__.eval"),
    "builtins.getattr": (calls("builtins", "getattr", text("a"), text("b")), "builtins.getattr"),
    "importlib": (calls("importlib", "import_module", text("antigravity")), "importlib.import_mod"),
    "torch.hub.load": (calls("torch.hub", "load", text("x/y"), text("z")), "torch.hub.load"),
    "torch.load of a nested pickle": (
        calls("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", len(NESTED)) + NESTED),
        "torch.storage._load_from_bytes",
    ),
    "pickle.loads of a nested pickle": (calls("_pickle", "loads", b"C\x01."), "_pickle.loads"),
    "pip": (calls("pip._internal", "main", text("install x")), "pip._internal.main"),
    "a class of a module that is not there": (name("nowhere", "Thing"), "nowhere.Thing"),
    "a name with dots": (name("torch", "os.system"), "torch.os.system"),
    "a name within torch": (name("torch", "load"), "torch.load"),
    "a sparse tensor": (name("torch._utils", "_rebuild_sparse_tensor"), "_rebuild_sparse_tensor"),
    "a quantized tensor": (name("torch._utils", "_rebuild_qtensor"), "_rebuild_qtensor"),
    "numpy's scalars": (name("numpy._core.multiarray", "scalar"), "numpy._core.multiarray.scalar"),
    "argparse.Namespace": (name("argparse", "Namespace"), "argparse.Namespace"),
    "a global with control characters": (name("\x1b[2J", "x"), "asks for \\x1b[2J.x"),
    "STACK_GLOBAL": (short("posix") + short("system") + b"\x93", "asks for posix.system"),
    "STACK_GLOBAL of memoized names": (
        short("system") + b"\x940" + short("posix") + b"\x940" + b"h\x01h\x00\x93",
        "asks for posix.system",
    ),
    "STACK_GLOBAL of numbers": (b"K\x01K\x02\x93", "a global whose name is no text"),
    "INST": (b"(X\x05\x00\x00\x00touchiposix\nsystem\n", "asks for posix.system"),
    "INST of an allowed name": (b"(icollections\nOrderedDict\n", "makes an object of a class"),
    "OBJ": (b"(" + name("posix", "system") + text("x") + b"o", "asks for posix.system"),
    "OBJ of an allowed name": (b"(" + name("torch", "Size") + b"o", "makes an object of a class"),
    "NEWOBJ": (name("subprocess", "Popen") + b")\x81", "asks for subprocess.Popen"),
    "NEWOBJ of an allowed name": (name("torch", "Tensor") + b")\x81", "makes an object of a class"),
    "NEWOBJ_EX": (name("subprocess", "Popen") + b")}\x92", "asks for subprocess.Popen"),
    "EXT1": (b"\x82\x01", "extension 1"),
    "EXT2": (b"\x83\x01\x02", "extension 513"),
    "EXT4": (b"\x84\x01\x00\x00\x00", "extension 1"),
    "BUILD of a tensor": (tensor() + b"}b", "gives attributes to something that has none"),
    "BUILD of a function": (name("torch", "Size") + b"}b", "gives attributes"),
    "a call of a dtype": (name("torch", "float32") + b")R", "calls something that is no function"),
    "a call of text": (text("os.system") + b")R", "calls something that is no function"),
    "a call of a tensor": (tensor() + b")R", "calls something that is no function"),
    "torch._tensor with a foreign function": (
        calls(
            "torch._tensor", "_rebuild_from_type_v2",
            name("posix", "system"), name("torch", "Tensor"), tup(text("x")), b"}",
        ),
        "asks for posix.system",
    ),
    "torch._tensor with a function that makes none": (
        calls(
            "torch._tensor", "_rebuild_from_type_v2",
            name("torch", "Size"), name("torch", "Tensor"), tup(b")"), b"}",
        ),
        "which makes no tensors",
    ),
    "out-of-band buffers": (b"\x97", "refers to bytes outside"),
    "code after a good object": (GOOD + b"0" + calls("posix", "system", text("x")), "posix.system"),
}  # fmt: skip

V2 = name("torch._utils", "_rebuild_tensor_v2")
# The same, of pickles that are broken or ask too much.
BROKEN = {
    "no opcode": (b"\xff", "byte 0xff is no opcode"),
    "protocol 6": (b"\x80\x06N", "protocol 6"),
    "nothing": (b"", "more or less than one object"),
    "two objects": (b"NN", "more or less than one object"),
    "a group that never ends": (b"(N", "more or less than one object"),
    "a group that never began": (b"t", "a group ends that was never begun"),
    "a huge memo index": (b"Nr\xff\xff\xff\xff", "under the number 4294967295"),
    "a huge memo index in digits": (b"Np99999999999999999999\n", "a number that is none"),
    "recall of nothing": (b"j\xff\xff\xff\xff", "recalls object 4294967295"),
    "text longer than the file": (b"X\xff\xff\xff\xffabc", "4294967295 bytes are announced"),
    "text of 2^64 bytes": (b"\x8d" + b"\xff" * 8, "bytes are announced"),
    "bytes of 2^64": (b"\x8e" + b"\xff" * 8, "bytes are announced"),
    "bytes of 2^63 to write to": (b"\x96" + b"\xff" * 7 + b"\x7f", "bytes are announced"),
    "a number of 2^31 bytes": (b"\x8b\xff\xff\xff\x7f", "2147483647 bytes are announced"),
    "a number of 200 bytes": (b"\x8a\xc8" + b"\x01" * 200, "a number of 200 bytes"),
    "a number of 5,000 digits": (b"L" + b"1" * 4000 + b"L\n", "a number that is none, or too long"),
    "a global without an end": (b"c" + b"a" * 5000, "longer than 4096 bytes"),
    "text that is not UTF-8": (b"X\x01\x00\x00\x00\xff", "not UTF-8"),
    "a tuple of an empty stack": (b"\x87", "from an empty stack"),
    "a call of an empty stack": (b"R", "from an empty stack"),
    "half a pair": (b"}(Nu", "half a pair"),
    "an item in a list": (b"]NNs", "no dict"),
    "an append to a tuple": (b")Na", "no list"),
    "100,000 groups": (b"(" * 100_000, "more than 10000 groups"),
    "copies without end": (
        b"](" + b"N" * 9000 + b"eq\x00" + (name("builtins", "set") + b"h\x00\x85R0") * 300 + b"N",
        "copies the same things again",
    ),
    "a list that holds itself": (b"]q\x00h\x00a", "levels deep, or holds itself"),
    "a dict that holds itself": (b"}q\x00" + text("a") + b"h\x00s", "levels deep, or holds itself"),
    "a list in a list, 1,000 times": (b"]" * 1000 + b"a" * 999, "more than 100 levels"),
    "a dict in a dict, 1,000 times": (
        b"}" + (text("a") + b"}") * 1000 + b"s" * 1000,
        "more than 100 levels",
    ),
    "2^40 values by forty lists": (
        b"]q\x00" + b"".join(b"0](h%ch%ceq%c" % (i, i, i + 1) for i in range(40)),
        "more than",
    ),
    "text in a million places": (
        text("x" * 20_000) + b"q\x000](" + b"h\x00" * 100_000 + b"e",
        "characters",
    ),
    "two things of one name": (
        dictionary(**{"a.b": tensor(), "a": dictionary(b=tensor())}),
        "two things in it are called 'a.b'",
    ),
    "one key twice": (b"}(" + (text("w") + tensor()) * 2 + b"u", "two things in it are called 'w'"),
    "a key that is a number, and text": (
        b"}(" + number(0) + tensor() + text("0") + tensor() + b"u",
        "two things in it are called '0'",
    ),
    "a tensor under a tuple": (b"}(K\x01K\x02\x86" + tensor() + b"u", "kept under the key (1, 2)"),
    "a tensor as a key": (b"}(" + tensor() + b"K\x01u", "kept under the key"),
    "half a surrogate pair as a name": (dictionary(**{"\ud800": tensor()}), "surrogate"),
    "a persistent id that is text": (text("0") + b"Q", "refers to '0', which is no storage"),
    "a persistent id in digits": (b"P0\n", "refers to '0', which is no storage"),
    "a persistent id that is a dict": (b"}Q", "which is no storage"),
    "a persistent id of another kind": (
        tup(text("module"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(4)) + b"Q",
        "which is no storage",
    ),
    "a persistent id with a view": (storage()[:-2] + b"NtQ", "which is no storage"),
    "a storage of type Tensor": (
        tup(text("storage"), name("torch", "Tensor"), text("0"), text("cpu"), number(4)) + b"Q",
        "of a type that is none",
    ),
    "a storage elsewhere": (storage("../data.pkl"), "called '../data.pkl'"),
    "a storage without a name": (storage(""), "called ''"),
    "a storage of -1 elements": (storage(count=-1), "has -1 elements"),
    "a storage of 2^62 doubles": (storage(count=1 << 62, kind="DoubleStorage"), "elements"),
    "a storage of two sizes": (
        dictionary(a=tensor(), b=tensor((1,), (1,), within=storage(count=3))),
        "bytes here, and other ones elsewhere",
    ),
    "a storage that is not there": (dictionary(w=tensor(within=storage("7"))), "no member 'data/7'"),
    "a storage too large": (dictionary(w=tensor(within=storage(count=5))), "has 20 bytes by"),
    "a storage too small": (dictionary(w=tensor((1,), (1,), within=storage(count=3))), "has 12"),
    "a view beyond its storage": (dictionary(w=tensor(offset=1)), "needs 5 elements of float32"),
    "a view by strides beyond": (dictionary(w=tensor(stride=(3, 1))), "needs 5 elements"),
    "a view of 2^62": (dictionary(w=tensor((1 << 62,), (1,))), "larger than any memory"),
    "sizes whose product overflows": (dictionary(w=tensor((1 << 40, 1 << 40))), "any memory"),
    "an expanded bomb": (
        dictionary(w=tensor((1 << 40,), (0,))),
        "its views would take 4398046511104 bytes",
    ),
    "an empty tensor past the end": (dictionary(w=tensor((0,), (1,), offset=9)), "needs 9 elements"),
    "an empty tensor of giant sizes": (
        dictionary(w=tensor((0, 1 << 62), (1, 1))),
        "larger than any memory",
    ),
    "a negative stride": (dictionary(w=tensor(stride=(-2, 1), offset=2)), "not whole numbers"),
    "a negative size": (dictionary(w=tensor((-2, 2))), "not whole numbers"),
    "a negative offset": (dictionary(w=tensor(offset=-1)), "begins at element -1"),
    "a size of true": (V2 + tup(storage(), number(0), b"\x88\x85", b"K\x01\x85", b"NN") + b"R", "True"),
    "more sizes than strides": (dictionary(w=tensor((2, 2), (1,))), "2 sizes and 1 strides"),
    "rank 65": (dictionary(w=tensor((1,) * 65, (1,) * 65)), "65 dimensions"),
    "a tensor of no storage": (dictionary(w=tensor(within=b"N")), "not of a storage"),
    "a tensor of a tensor": (dictionary(w=tensor(within=tensor())), "not of a storage"),
    "two arguments": (V2 + b"NN\x86R", "called with 2 arguments"),
    "an OrderedDict of two": (name("collections", "OrderedDict") + b"NN\x86R", "with 2 arguments"),
    "a set of two": (name("builtins", "set") + b"]]\x86R", "with 2 arguments"),
    "a bytearray of three": (name("builtins", "bytearray") + b"NNN\x87R", "with 3 arguments"),
    "a conjugated float": (
        dictionary(w=tensor(more=b"}" + text("conj") + b"\x88s")),
        "float32 is said to be conjugated",
    ),
    "unknown metadata": (
        dictionary(w=tensor(more=b"}" + text("run") + b"\x88s")),
        "metadata says 'run'",
    ),
    "a parameter of text": (
        calls("torch._utils", "_rebuild_parameter", text("x"), b"\x88", b"N"),
        "no tensor",
    ),
    "a type as a value": (b"}" + text("f") + name("torch", "FloatStorage") + b"s", "as a value"),
    "a function as a value": (b"}" + text("f") + name("torch", "Size") + b"s", "as a value"),
    "bytes of large characters": (calls("_codecs", "encode", text("€"), text("latin1")), "are none"),
    "another encoding": (calls("_codecs", "encode", text("a"), text("rot13")), "by 'rot13'"),
}  # fmt: skip


def refused(serializer, path):
    with pytest.raises(WeightsError) as caught:
        serializer.open(path)
    error = caught.value
    assert str(path) in error.what
    assert error.remedy
    assert error.provider == "serializer:checkpoint"
    assert error.origin.startswith("hardpoint-checkpoint ")
    assert len(str(error)) < 1500
    assert "\x1b" not in str(error)
    return error


@pytest.mark.parametrize("case", CODE)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_asks_for_code_is_refused_by_its_name(case, protocol, craft, serializer):
    body, cause = CODE[case]
    error = refused(serializer, craft(zipped(members(pickled(body, protocol)))))
    assert cause in error.cause
    assert error.cause.startswith("byte ")


@pytest.mark.parametrize("case", BROKEN)
def test_a_pickle_that_will_not_do_is_refused(case, craft, serializer):
    body, cause = BROKEN[case]
    assert cause in refused(serializer, craft(checkpoint(body))).cause


def test_the_good_one_that_they_are_made_of_reads(craft, serializer):
    with serializer.open(craft(checkpoint(GOOD))) as reader:
        assert reader.tensor("w").tolist() == [[1, 2], [3, 4]]


ARCHIVES = {
    "followed by a byte": (zipped(members(STATE), tail=b"x"), "does not end with its directory"),
    "with a comment": (zipped(members(STATE), edit={"comment": 1}, tail=b"x"), "does not end"),
    "that says it has a comment": (zipped(members(STATE), edit={"comment": 1}), "comment"),
    "preceded by a byte": (b"PK\x03\x04" + zipped(members(STATE)), "does not end at"),
    "of too few entries": (zipped(members(STATE), edit={"count": 3}), "after its last entry"),
    "of too many entries": (zipped(members(STATE), edit={"count": 9}), "9 members in"),
    "of 65,535 entries": (zipped(members(STATE), edit={"count": 65535}), "65535 members"),
    "with a directory elsewhere": (zipped(members(STATE), edit={"at": 0}), "does not end at"),
    "with a directory past the end": (
        zipped(members(STATE), edit={"at": 0xFFFFFFF0}),
        "does not end at",
    ),
    "with holes": (zipped(members(STATE), gap=b"hidden"), "6 bytes that no one has"),
    "with a member twice": (zipped([*members(STATE), ("a/version", b"3")]), "is there twice"),
    "with a second pickle of the same name": (
        zipped([("a/data.pkl", STATE), *members(pickled(CODE["os.system"][0]))]),
        "is there twice",
    ),
    "with two folders": (zipped([*members(STATE), ("b/data.pkl", STATE)]), "no folder with the"),
    "without a version": (zipped(members(STATE)[:-1]), "its version is b''"),
    "of version 99": (zipped(members(STATE, version=b"99")), "its version is b'99'"),
    "of a long version": (zipped(members(STATE, version=b"3" * 99)), "has 99 bytes"),
    "with code": (zipped([*members(STATE), ("a/code/x.py", b"")]), "it holds code"),
    "of big-endian data": (zipped(members(STATE, order=b"big")), "byteorder is b'big'"),
    "of unknown data": (zipped(members(STATE, order=b"middle")), "byteorder is b'middle'"),
    "with bytes after the pickle": (zipped(members(STATE + b"N.")), "2 bytes follow its end"),
    "with a pickle cut short": (zipped(members(STATE[:-1])), "ends before its last opcode"),
    "with a short record": (checkpoint(GOOD, {"0": DATA[:-1]}), "and its member has 15"),
    "with a long record": (checkpoint(GOOD, {"0": DATA + b"x"}), "and its member has 17"),
    "with no record": (checkpoint(GOOD, {"1": DATA}), "no member 'data/0'"),
    "with a compressed member": (
        checkpoint(GOOD, central=lambda n, f: {"method": 8}, local=lambda n, f: {"method": 8}),
        "method 8",
    ),
    "compressed by its own header only": (
        checkpoint(GOOD, local=lambda n, f: {"method": 8 if n == "a/data/0" else 0}),
        "the method of member 'a/data/0' is 8",
    ),
    "encrypted": (
        checkpoint(GOOD, central=lambda n, f: {"flags": 1}, local=lambda n, f: {"flags": 1}),
        "never encrypts",
    ),
    "with two names": (
        checkpoint(GOOD, local=lambda n, f: {"name": f["name"].upper()}),
        "the name of member",
    ),
    "with two lengths of a name": (
        checkpoint(GOOD, local=lambda n, f: {"name": f["name"] + b"x"}),
        "the length of the name",
    ),
    "with two sizes": (
        checkpoint(GOOD, local=lambda n, f: {"size": 4, "packed": 4}),
        "the size of member",
    ),
    "with a size that overlaps": (
        checkpoint(GOOD, central=lambda n, f: {"size": 999, "packed": 999},
                   local=lambda n, f: {"size": 999, "packed": 999}),
        "overlaps the next",
    ),
    # torch.load gives memory that nobody wrote to, and its bytes with mmap=True.
    "with a folder that holds bytes": (
        checkpoint(GOOD, central=lambda n, f: {"attributes": 0x10 if n == "a/data/0" else 0}),
        "member 'a/data/0' says that it is a folder, and holds 16 bytes",
    ),
    "with bytes in a member whose name ends with a slash": (
        zipped([("a/data.pkl", GOOD), ("a/data/0/", bytes(16))]),
        "member 'a/data/0/' says that it is a folder, and holds 16 bytes",
    ),
    "with two members at one place": (
        checkpoint(GOOD, central=lambda n, f: {"at": 0} if n == "a/data/0" else {}),
        "overlaps the next",
    ),
    "with a member in the directory": (
        checkpoint(GOOD, central=lambda n, f: {"at": f["at"] + 10_000}),
        "runs into the directory",
    ),
    "with 64-bit numbers that are not there": (
        checkpoint(GOOD, central=lambda n, f: {"size": 0xFFFFFFFF}),
        "lacks its 64-bit numbers",
    ),
    "with a 64-bit size of 2^64": (
        checkpoint(GOOD, central=lambda n, f: {
            "size": 0xFFFFFFFF, "packed": 0xFFFFFFFF,
            "extra": struct.pack("<HHQQ", 1, 16, (1 << 64) - 1, (1 << 64) - 1),
        }),
        "the size of member",
    ),
    "with an extra that lies about its length": (
        checkpoint(GOOD, central=lambda n, f: {"extra": struct.pack("<HH", 1, 9999)},
                   local=lambda n, f: {"extra": b"\xff" * 9}),
        "",
    ),
    "with a name that is not UTF-8": (
        checkpoint(GOOD, central=lambda n, f: {"name": b"\xff" * len(f["name"])}),
        "is not UTF-8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_that_can_be_read_in_two_ways_is_refused(case, craft, serializer):
    data, cause = ARCHIVES[case]
    if not cause:  # an extra field is padding to whoever does not know it: torch.save writes some
        with serializer.open(craft(data)) as reader:
            assert reader.tensor("w").tolist() == [[1, 2], [3, 4]]
        return
    assert cause in refused(serializer, craft(data)).cause


def test_a_compressed_bomb_is_refused_before_it_is_inflated(tmp_path, serializer):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"N" * (64 << 20))
        archive.writestr("a/version", b"3")
    assert "is compressed" in refused(serializer, path).what


def test_a_pickle_that_is_no_checkpoint_is_not_even_looked_into(craft, serializer):
    path = craft(pickle.dumps({"a": 1}))
    assert not serializer.recognizes(path)
    assert "this is no checkpoint" in refused(serializer, path).what


def test_the_oldest_format_is_refused_with_a_way_out(tmp_path, serializer):
    import tarfile

    path = tmp_path / "old.pt"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for part in ("storages", "tensors", "pickle"):
            file = tmp_path / part
            file.write_bytes(b"\x80\x02K\x00.")
            tar.add(file, part)
    assert serializer.recognizes(path)
    error = refused(serializer, path)
    assert "tar archive" in error.what
    assert "weights_only=False" in error.remedy


def test_too_many_opcodes_are_refused(craft, serializer, monkeypatch):
    monkeypatch.setattr(machine, "MAX_OPS", 1000)
    path = craft(checkpoint(b"(" + b"N" * 2000 + b"t"))
    assert "more than 1000 opcodes" in refused(serializer, path).cause


def test_a_pickle_too_long_is_refused_before_it_is_read(craft, serializer, monkeypatch):
    monkeypatch.setattr("hardpoint_checkpoint.zipped.MAX_PICKLE", 20)
    assert "at most 20" in refused(serializer, craft(checkpoint(GOOD))).cause


def test_the_message_reads_well(craft, serializer):
    body = dictionary(w=tensor(), x=calls("posix", "system", text("id")))
    path = craft(checkpoint(body))
    at = pickled(body).index(b"cposix")
    error = refused(serializer, path)
    assert str(error).replace(error.origin, "hardpoint-checkpoint X") == (
        f"{path}: the checkpoint asks for more than tensors and plain data\n"
        "  provider: serializer:checkpoint (from hardpoint-checkpoint X)\n"
        f"  cause: byte {at} of its pickle (a/data.pkl): it asks for posix.system, which is no part"
        " of what tensors and plain data need\n"
        "  remedy: only if you trust whoever made the file: load it with torch.load where it can do"
        " no harm, and save its tensors alone, e.g. as safetensors"
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_of_a_hostile_file_runs(legacy, tmp_path, monkeypatch):
    """In a process of its own: the files would make a marker, or import something that does."""
    marker = tmp_path / MARK
    paths = []
    for i, (body, _) in enumerate(CODE.values()):
        path = tmp_path / f"{i}.pt"
        path.write_bytes(zipped(members(pickled(body))))
        paths.append(path)
    trap = type("Trap", (), {"__reduce__": lambda self: (eval, (TOUCH,))})
    path = tmp_path / "saved.pt"
    torch.save({"w": torch.ones(2), "x": trap()}, path, _use_new_zipfile_serialization=not legacy)
    code = (
        "import sys; from pathlib import Path; from hardpoint import WeightsError\n"
        "from hardpoint_checkpoint.serializer import CheckpointSerializer\n"
        "reader, before = CheckpointSerializer(), None\n"
        "for path in map(Path, sys.argv[1:]):\n"
        "    reader.recognizes(path)\n"
        "    try: reader.open(path)\n"
        "    except WeightsError: pass\n"
        "    else: sys.exit(f'{path} was taken')\n"
        "    reader.scan(path)\n"
        "assert 'antigravity' not in sys.modules and 'nowhere' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, *paths, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not marker.exists()
    monkeypatch.chdir(tmp_path)
    torch.load(path, weights_only=False)
    assert marker.exists()  # the trap is one: whoever unpickles the file makes it
