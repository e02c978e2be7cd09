"""Damaged and hostile packages: each is refused with one clear error, and nothing of it runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
import threading
import zlib
from pathlib import Path

import pytest

from hardpoint.errors import PackageError
from hardpoint.package import zip_layout
from hardpoint.package.archive import PART, Archive
from hardpoint.package.integrity import DIGEST, MANIFEST, check_manifest, finish_manifest
from hardpoint.package.refusal import AGAIN
from hardpoint.package.tensors import tensor_from_ref
from hardpoint.package.writer import ArchiveWriter
from package_forge import Part, forge, remake, standard

CODE = "data/hardpoint/artifacts/s0/code"
OTHER_TOOL = "save it with hardpoint or torch.export.save, not with a zip tool"


def refused(path: Path, cause: str, remedy: str = AGAIN) -> str:
    return f"{path} is not a usable package\n  cause: {cause}\n  remedy: {remedy}"


def message(path: Path, use=lambda archive: None) -> str:
    """What the user reads when the file is opened and used."""
    with pytest.raises(PackageError) as error, Archive.open(path) as archive:
        use(archive)
    return str(error.value)


@pytest.fixture
def package(tmp_path):
    """A small package with every kind of entry."""
    path = tmp_path / "good.pt2"
    with ArchiveWriter(path) as made:
        made.add("data/weights/weight_0", struct.pack("<8f", *range(8)))
        made.add("data/weights/model_weights_config.json", b'{"config": {}}')
        made.add(CODE, b"\xff\x00binary")
        finish_manifest(made, {"format": "hardpoint/1", "artifacts": []})
    return path


# -- the container ---------------------------------------------------------------------------------

x = Part("x", b"abc")
INSIDE_X = zip_layout.parse(memoryview(forge(standard(x))))[1]["x"].offset + 1
START_OF_X = forge(standard(x)).rindex(b"PK\x03\x04")
CENTRAL64 = struct.pack("<HHQ", 1, 8, 1 << 40)
CONTAINERS = {
    "compressed": (
        forge(standard(Part("x", zlib.compress(b"abc" * 99)[2:-4], method=8))),
        "entry 'x' is compressed; entries of a package are stored, so that they can be mapped",
        OTHER_TOOL,
    ),
    "bomb": (
        forge(standard(Part("x", b"z" * 50, method=8, central={"size": 4_000_000_000}))),
        "entry 'x' is compressed; entries of a package are stored, so that they can be mapped",
        OTHER_TOOL,
    ),
    "encrypted": (
        forge(standard(Part("x", b"abc", flags=1))),
        "entry 'x' is encrypted",
        OTHER_TOOL,
    ),
    "patched": (
        forge(standard(Part("x", b"abc", flags=0x20))),
        "entry 'x' uses zip features that a package does not have",
    ),
    "commented": (
        forge(standard(Part("x", b"abc", comment=b"hi"))),
        "entry 'x' uses zip features that a package does not have",
    ),
    "symlink": (
        forge(standard(Part("x", b"/etc/passwd", attributes=0o120777 << 16))),
        "entry 'x' is not a regular file (a link, a folder or a device)",
    ),
    "folder": (
        forge(standard(Part("x", b"", attributes=0x10))),
        "entry 'x' is not a regular file (a link, a folder or a device)",
    ),
    "prefix": (
        forge(standard(x), prefix=b"#!/bin/sh\n"),
        "10 bytes after the start of the file belong to no entry",
    ),
    "trailing": (
        forge(standard(x), suffix=b"junk"),
        "it does not end as a zip archive does: it is truncated, has bytes appended, or is no "
        "package at all",
    ),
    "end comment": (
        forge(standard(x), comment=b"hello"),
        "it does not end as a zip archive does: it is truncated, has bytes appended, or is no "
        "package at all",
    ),
    "gap": (
        forge(standard(Part("x", b"abc", gap=b"hidden"))),
        "6 bytes after entry 'byteorder' belong to no entry",
    ),
    "gap at the end": (
        forge(standard(Part("x", b"abc", tail=b"hidden"))),
        "6 bytes after entry 'x' belong to no entry",
    ),
    "before the end": (
        forge(standard(x), before_end=b"hidden"),
        "its directory is not where, or not as large as, its end record says",
    ),
    "overlap": (
        forge(standard(Part("x", b"a" * 100), Part("y", central={"start": INSIDE_X}))),
        "entry 'y' overlaps entry 'x'",
    ),
    "shared": (
        forge(standard(Part("x", b"a" * 100), Part("y", central={"start": START_OF_X}))),
        "entry 'y' overlaps entry 'x'",
    ),
    "duplicate": (forge(standard(x, Part("x", b"def"))), "it holds two entries named 'x'"),
    "two roots": (
        forge(standard(Part("x", b"abc", root="s/"))),
        "its entries stand in two root folders, 'r' and 's'",
    ),
    "no root": (
        forge([Part("x", b"abc", root="")]),
        "entry 'x' stands outside the archive's root folder",
    ),
    "two names": (
        forge(standard(Part("x", b"abc", local={"name": b"r/y"}))),
        "entry 'x' has two headers that contradict each other",
    ),
    "two sizes": (
        forge(standard(Part("x", b"abc", local={"size": 2, "packed": 2}))),
        "entry 'x' has two headers that contradict each other",
    ),
    "two checksums": (
        forge(standard(Part("x", b"abc", local={"crc": 7}))),
        "entry 'x' has two headers that contradict each other",
    ),
    "bad descriptor": (
        forge(standard(Part("x", b"abc", flags=8, tail=struct.pack("<IIII", 0x08074B50, 1, 3, 3)))),
        "entry 'x' has two headers that contradict each other",
    ),
    "beyond the end": (
        forge(standard(Part("x", b"abc", central={"size": 9999, "packed": 9999}))),
        "entry 'x' claims bytes beyond the end of the file",
    ),
    "starts beyond": (
        forge(standard(Part("x", b"abc", central={"start": 5000}))),
        "entry 'x' claims to start beyond the last entry",
    ),
    "terabyte": (
        forge(standard(Part("x", b"abc", central={"start": 0xFFFFFFFF, "extra": CENTRAL64}))),
        "entry 'x' claims to start beyond the last entry",
    ),
    "zip64 cut": (
        forge(standard(Part("x", b"", central={"start": 0xFFFFFFFF, "extra": b"\1\0\0\0"}))),
        "the header of entry 'x' is damaged (zip64 field)",
    ),
    "extra cut": (
        forge(standard(Part("x", b"", central={"extra": b"\7\0\xff\0"}))),
        "the header of entry 'x' is damaged (extra fields)",
    ),
    "many entries": (
        forge(standard(x), count=60_000, here=60_000),
        "its directory is not where, or not as large as, its end record says",
    ),
    "fewer entries": (
        forge(standard(x), count=3, here=3),
        "49 bytes of its directory belong to no entry",
    ),
    "several parts": (
        forge(standard(x), disk=1),
        "it is one part of an archive in several parts",
    ),
    "misaligned": (
        forge(standard(Part("x", b"abc", align=1))),
        "entry 'x' is not aligned to 64 bytes, so it cannot be mapped",
        OTHER_TOOL,
    ),
    "no format": (
        forge([x]),
        "it is a zip archive, but no PT2 archive: it has no entry 'archive_format'",
        "give a file that compiled.save(...) or torch.export.save(...) wrote",
    ),
    "other format": (
        forge([Part("archive_format", b"onnx")]),
        "its archive_format is b'onnx'; this hardpoint reads b'pt2'",
    ),
    "other version": (
        forge([Part("archive_format", b"pt2"), Part("archive_version", b"9")]),
        "its archive_version is b'9'; this hardpoint reads b'0'",
    ),
    "big endian": (
        forge([*standard()[:2], Part("byteorder", b"big")]),
        "its byteorder is b'big'; this hardpoint reads b'little'",
    ),
    "text": (
        b"version https://git-lfs.github.com/spec/v1\n",
        "it does not end as a zip archive does: it is truncated, has bytes appended, or is no "
        "package at all",
    ),
    "tiny": (b"PK", "it has only 2 bytes: it is truncated, or no package at all"),
    "empty": (b"", "the file is empty"),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_a_container_that_is_not_exactly_right_is_refused(tmp_path, case):
    data, *expected = CONTAINERS[case]
    path = tmp_path / "bad.pt2"
    path.write_bytes(data)
    assert message(path) == refused(path, *expected)


NAMES = {
    "../../etc/passwd": "the entry name 'r/../../etc/passwd' is not a plain relative path",
    "a/./b": "the entry name 'r/a/./b' is not a plain relative path",
    "a//b": "the entry name 'r/a//b' is not a plain relative path",
    "C:/windows": "the entry name 'r/C:/windows' is not a plain relative path",
    "a\\b": "the entry name 'r/a\\\\b' holds a backslash or a control character",
    "a\0.txt": "the entry name 'r/a\\x00.txt' holds a backslash or a control character",
    "a\x1b[2J": "the entry name 'r/a\\x1b[2J' holds a backslash or a control character",
    "": "the entry name 'r/' is not a plain relative path",
    "x" * 1200: "an entry's name is empty or longer than 1024 bytes",
    b"/etc/passwd": "the entry name '/etc/passwd' is not a plain relative path",
    b"r/\xff": "the entry name b'r/\\xff' is not UTF-8",
}


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path, name):
    path = tmp_path / "bad.pt2"
    path.write_bytes(forge(standard(Part(name, b"abc"))))
    assert message(path) == refused(path, NAMES[name])


def test_a_damaged_zip64_end_is_refused(package):
    good = package.read_bytes()
    end64 = len(good) - 22 - 20 - 56
    for at, cause in (
        (end64, "its zip64 end record is damaged"),
        (end64 + 56 + 8, "its zip64 end record is not where it should be"),
        (end64 + 32, "its two end records contradict each other"),
        (end64 + 40, "its two end records contradict each other"),
    ):
        bad = bytearray(good)
        bad[at] ^= 1
        package.write_bytes(bad)
        assert message(package) == refused(package, cause)


def test_a_claim_of_a_billion_entries_costs_nothing(package):
    good = bytearray(package.read_bytes())
    end64 = len(good) - 22 - 20 - 56
    good[end64 + 24 : end64 + 40] = struct.pack("<QQ", 10**9, 10**9)
    good[-22 + 8 : -22 + 12] = b"\xff" * 4
    package.write_bytes(good)
    cause = "it claims 1000000000 entries; at most 100000 are accepted"
    assert message(package) == refused(package, cause)


# -- damage ----------------------------------------------------------------------------------------


def contents(path: Path) -> dict[str, bytes]:
    """Everything that a user of the package could see, after all checks."""
    with Archive.open(path) as archive:
        check_manifest(archive, "full")
        return {name: bytes(archive.view(name)) for name in archive.entries}


def test_truncated_at_any_length_it_is_refused(package):
    good = package.read_bytes()
    for length in range(len(good)):
        package.write_bytes(good[:length])
        with pytest.raises(PackageError):
            contents(package)


def test_any_single_flipped_bit_is_refused_or_changes_nothing(package):
    good = package.read_bytes()
    expected = contents(package)
    kept = 0
    for at, bit in itertools.product(range(len(good)), range(8)):
        bad = bytearray(good)
        bad[at] ^= 1 << bit
        package.write_bytes(bad)
        try:
            assert contents(package) == expected, f"bit {bit} of byte {at} changed the content"
            kept += 1
        except PackageError:
            continue
    assert 0 < kept < 4 * len(good), "padding and dates may change: that is half of this file"


def test_changed_content_is_named(package):
    good = package.read_bytes()
    at = good.index(struct.pack("<8f", *range(8)))
    package.write_bytes(good[:at] + b"\x01" + good[at + 1 :])
    assert message(package, check_manifest) == refused(
        package, "the content of 'data/weights/weight_0' was changed or damaged"
    )


def test_the_quick_check_leaves_out_weights_and_nothing_else(package):
    good = package.read_bytes()
    weight = good.index(struct.pack("<8f", *range(8)))
    package.write_bytes(good[:weight] + b"\x01" + good[weight + 1 :])
    with Archive.open(package) as archive:
        assert check_manifest(archive, "quick")["format"] == "hardpoint/1"
    code = good.index(b"\xff\x00binary")
    package.write_bytes(good[:code] + b"\x01" + good[code + 1 :])
    assert message(package, lambda a: check_manifest(a, "quick")) == refused(
        package, f"the content of '{CODE}' was changed or damaged"
    )


# -- the manifest ----------------------------------------------------------------------------------


def rewritten(package: Path, manifest: bytes, digest: bytes | None = None) -> Path:
    target = package.with_name("bad.pt2")
    with Archive.open(package) as archive, ArchiveWriter(target) as made:
        for name in archive.entries:
            if name not in (MANIFEST, DIGEST, *made.digests):
                made.add(name, archive.view(name))
        made.add(MANIFEST, manifest)
        made.add(DIGEST, digest or hashlib.sha256(manifest).hexdigest().encode())
    return target


def manifest_of(package: Path) -> dict:
    with Archive.open(package) as archive:
        return json.loads(bytes(archive.view(MANIFEST)))


def test_a_manifest_that_does_not_fit_its_digest_is_refused(package):
    bad = rewritten(package, b"{}", b"0" * 64)
    cause = "its manifest was changed after it was written"
    assert message(bad, check_manifest) == refused(bad, cause)


def _unlisted(entries: dict) -> None:
    del entries[CODE]


def _missing(entries: dict) -> None:
    entries["data/gone"] = {"bytes": 1, "sha256": ""}


def _other_size(entries: dict) -> None:
    entries["byteorder"]["bytes"] = 7


def _no_size(entries: dict) -> None:
    entries["byteorder"]["bytes"] = True


def _no_facts(entries: dict) -> None:
    entries["byteorder"] = 3


def _no_hash(entries: dict) -> None:
    entries["byteorder"]["sha256"] = None


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (_unlisted, f"it holds the entry '{CODE}', which its manifest does not list"),
        (_missing, "the entry 'data/gone' of its manifest is missing"),
        (_other_size, "entry 'byteorder' has another size than its manifest says"),
        (_no_size, "entry 'byteorder' has another size than its manifest says"),
        (_no_facts, "entry 'byteorder' has another size than its manifest says"),
        (_no_hash, "the manifest has no hash of entry 'byteorder'"),
    ],
)
def test_a_manifest_that_does_not_fit_the_entries_is_refused(package, change, cause):
    manifest = manifest_of(package)
    change(manifest["entries"])
    bad = rewritten(package, json.dumps(manifest).encode())
    assert message(bad, check_manifest) == refused(bad, cause)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A package with an entry of three parts, the last of one byte."""
    return written_large(tmp_path_factory.mktemp("large") / "good.pt2")


def written_large(path: Path) -> Path:
    with ArchiveWriter(path) as made:
        made.add(CODE, bytes(2 * PART) + b"x")
        made.add("data/small", bytes(PART))
        finish_manifest(made, {"format": "hardpoint/1", "artifacts": []})
    return path


def test_a_large_entry_has_a_hash_for_each_part(large):
    entries = manifest_of(large)["entries"]
    parts = [hashlib.sha256(part).hexdigest() for part in (bytes(PART), bytes(PART), b"x")]
    assert entries[CODE]["parts"] == parts
    assert entries[CODE]["sha256"] == hashlib.sha256(bytes(2 * PART) + b"x").hexdigest()
    assert entries["data/small"].keys() == {"bytes", "sha256"}
    with Archive.open(large) as archive:
        assert check_manifest(archive)["entries"] == entries


def test_where_no_thread_can_be_started_parts_are_hashed_all_the_same(tmp_path, monkeypatch, large):
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    path = written_large(tmp_path / "again.pt2")
    assert path.read_bytes() == large.read_bytes()
    with Archive.open(path) as archive:
        check_manifest(archive)


def test_a_small_entry_has_no_parts(large):
    manifest = manifest_of(large)
    manifest["entries"]["byteorder"]["parts"] = [hashlib.sha256(b"little").hexdigest()]
    bad = rewritten(large, json.dumps(manifest).encode())
    cause = "the manifest's hashes of parts of entry 'byteorder' do not fit it"
    assert message(bad, check_manifest) == refused(bad, cause)


def test_one_of_before_there_were_parts_is_checked_as_a_whole(large):
    manifest = manifest_of(large)
    del manifest["entries"][CODE]["parts"]
    old = rewritten(large, json.dumps(manifest).encode())
    with Archive.open(old) as archive:
        check_manifest(archive)
    offset = Archive.open(old).entries[CODE].offset
    changed(old, offset + PART)
    assert message(old, check_manifest) == refused(
        old, f"the content of '{CODE}' was changed or damaged"
    )


@pytest.mark.parametrize("at", [0, PART - 1, PART, 2 * PART])
def test_a_change_in_any_part_is_found(large, at, tmp_path):
    bad = tmp_path / "bad.pt2"
    bad.write_bytes(large.read_bytes())
    changed(bad, Archive.open(bad).entries[CODE].offset + at)
    assert message(bad, check_manifest) == refused(
        bad, f"the content of '{CODE}' was changed or damaged"
    )


def changed(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "parts", [[], ["00"] * 2, ["00"] * 4, ["00", "00", 3], {"0": "00"}, None, "000"], ids=range(7)
)
def test_hashes_of_parts_that_do_not_fit_are_refused(large, parts):
    manifest = manifest_of(large)
    manifest["entries"][CODE]["parts"] = parts
    bad = rewritten(large, json.dumps(manifest).encode())
    cause = f"the manifest's hashes of parts of entry '{CODE}' do not fit it"
    assert message(bad, check_manifest) == refused(bad, cause)


@pytest.mark.parametrize(
    ("manifest", "cause"),
    [
        (b"[]", "its manifest does not list its entries"),
        (b'{"entries": []}', "its manifest does not list its entries"),
        (
            b'{"a": 1, "a": 2}',
            f"entry '{MANIFEST}' is not valid JSON: the key 'a' stands twice in one object",
        ),
        (b"[" * 5000 + b"]" * 5000, f"entry '{MANIFEST}' is nested deeper than 200 levels"),
        (b'{"entries": NaN}', f"entry '{MANIFEST}' is not valid JSON: NaN is not a number"),
    ],
    ids=range(5),
)
def test_a_manifest_that_is_no_manifest_is_refused(package, manifest, cause):
    bad = rewritten(package, manifest)
    assert message(bad, check_manifest) == refused(bad, cause)


def test_an_archive_of_another_tool_has_no_manifest(tmp_path):
    path = tmp_path / "other.pt2"
    path.write_bytes(forge(standard(x)))
    assert message(path, check_manifest) == refused(
        path,
        "it is a PT2 archive, but not one that hardpoint wrote: it has no manifest",
        "compile it first: `hardpoint compile FILE.pt2 -o PACKAGE.pt2`",
    )


# -- pickles ---------------------------------------------------------------------------------------

TENSORS_ONLY = (
    "replace custom objects and tensor subclasses in the model by plain tensors, and save it again"
)
EVIL = b"cposix\nsystem\n(S'true'\ntR."
CONFIG = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
PICKLED = {
    "weights": {CONFIG: b'{"config": {"w": {"path_name": "weight_0", "use_pickle": true}}}'},
    "constants": {CONSTANTS: b'{"config": {"c": {"path_name": "tensor_0", "use_pickle": true}}}'},
    "not false": {CONFIG: b'{"config": {"w": {"path_name": "weight_0", "use_pickle": 1}}}'},
    "not said": {CONFIG: b'{"config": {"w": {"path_name": "weight_0"}}}'},
    "custom object": {"data/constants/custom_obj_0": EVIL},
    "opaque object": {"data/constants/opaque_obj_0": EVIL},
    "old weights": {"data/weights/model.pt": EVIL},
    "old constants": {"data/constants/model.pt": EVIL},
}
SHOWN = {
    "weights": f"w (in {CONFIG})",
    "constants": f"c (in {CONSTANTS})",
    "not false": f"w (in {CONFIG})",
    "not said": f"w (in {CONFIG})",
    "custom object": "data/constants/custom_obj_0",
    "opaque object": "data/constants/opaque_obj_0",
    "old weights": "data/weights/model.pt",
    "old constants": "data/constants/model.pt",
}


@pytest.mark.parametrize("case", PICKLED)
def test_a_pickle_is_refused_although_every_hash_fits(package, tmp_path, case):
    bad = remake(package, tmp_path / "bad.pt2", PICKLED[case])
    cause = f"it holds pickles, which can run any code when read: {SHOWN[case]}"
    assert message(bad, check_manifest) == refused(bad, cause, TENSORS_ONLY)


def test_pickled_example_inputs_have_no_place_in_a_package(package, tmp_path):
    bad = remake(package, tmp_path / "bad.pt2", {"data/sample_inputs/model.pt": EVIL})
    cause = "it holds the pickle 'data/sample_inputs/model.pt', which no package needs"
    assert message(bad, check_manifest) == refused(bad, cause)


def test_weights_described_by_something_else_are_refused(package, tmp_path):
    bad = remake(package, tmp_path / "bad.pt2", {CONFIG: b"[1]"})
    cause = f"entry '{CONFIG}' does not describe weights"
    assert message(bad, check_manifest) == refused(bad, cause)


# -- tensors ---------------------------------------------------------------------------------------

W = "data/weights/weight_0"
GOOD = {"entry": W, "dtype": "float32", "shape": [2, 4], "strides": [4, 1], "offset": 0}
REFS = [
    (None, "a tensor's reference does not have the five parts it must have"),
    ({}, "a tensor's reference does not have the five parts it must have"),
    (GOOD | {"more": 1}, "a tensor's reference does not have the five parts it must have"),
    (GOOD | {"entry": "nowhere"}, "a tensor refers to entry 'nowhere', which does not exist"),
    (GOOD | {"entry": ["x"]}, "a tensor refers to entry ['x'], which does not exist"),
    (GOOD | {"dtype": "object"}, f"the tensor in '{W}' has the unknown dtype 'object'"),
    (GOOD | {"dtype": "qint8"}, f"the tensor in '{W}' has the unknown dtype 'qint8'"),
    (GOOD | {"dtype": []}, f"the tensor in '{W}' has the unknown dtype []"),
    (GOOD | {"shape": [3, 4]}, f"the tensor in '{W}' needs 48 bytes of an entry that has 32"),
    (GOOD | {"dtype": "float64"}, f"the tensor in '{W}' needs 64 bytes of an entry that has 32"),
    (GOOD | {"offset": 1}, f"the tensor in '{W}' needs 36 bytes of an entry that has 32"),
    (
        GOOD | {"strides": [1 << 61, 1]},
        f"the tensor in '{W}' needs 9223372036854775824 bytes of an entry that has 32",
    ),
    (
        GOOD | {"shape": [1 << 61, 8], "strides": [0, 1]},
        f"the tensor in '{W}' claims 18446744073709551616 elements of 32 bytes",
    ),
]
LAYOUTS = [
    {"shape": [-2, -4]},
    {"strides": [4, -1]},
    {"offset": -1},
    {"offset": 0.5},
    {"offset": True},
    {"shape": "24"},
    {"strides": [1]},
    {"shape": [1 << 63, 0]},
]


@pytest.mark.parametrize(("ref", "cause"), REFS, ids=range(len(REFS)))
def test_a_tensor_that_leaves_its_entry_is_refused(package, ref, cause):
    assert message(package, lambda a: tensor_from_ref(a, ref)) == refused(package, cause)


@pytest.mark.parametrize("change", LAYOUTS, ids=range(len(LAYOUTS)))
def test_a_tensor_with_an_impossible_layout_is_refused(package, change):
    ref = GOOD | change
    cause = (
        f"the tensor in '{W}' has an impossible layout: shape {ref['shape']!r}, strides "
        f"{ref['strides']!r}, offset {ref['offset']!r}"
    )
    assert message(package, lambda a: tensor_from_ref(a, ref)) == refused(package, cause)


def test_the_reference_that_these_were_made_from_is_good(package):
    with Archive.open(package) as archive:
        assert tensor_from_ref(archive, GOOD).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
