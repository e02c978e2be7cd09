"""What the serializer suite is made of: golden records, and damage that is the same every time."""

import json
import struct
from pathlib import Path

import pytest
import torch

from hardpoint import Registry, save_weights
from hardpoint.testing.check import CheckFailed
from hardpoint.testing.serializer import SerializerSuite, damage, record_golden
from hardpoint.testing.serializer.text import damaged_text
from hardpoint.testing.settings import Settings
from hardpoint.testing.subject import Subject

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "mask": torch.tensor([True, False])}


@pytest.fixture
def golden(tmp_path):
    """A folder with one golden file and its record."""
    path = tmp_path / "one.safetensors"
    save_weights(TENSORS, path, metadata={"by": "me"}, registry=Registry())
    record_golden(path, TENSORS, {"by": "me"})
    return path


def check(folder):
    settings = Settings(golden=folder.name, path=folder.parent / "conformance.toml")
    figures = {}
    subject = Subject("serializer", "safetensors", settings)
    SerializerSuite().test_golden_files_stay_readable(subject, figures)
    return figures


def test_a_record_holds_facts_and_hashes_that_people_can_make_themselves(golden):
    record = json.loads(Path(f"{golden}.json").read_text())
    assert record["metadata"] == {"by": "me"}
    assert record["tensors"]["a"]["dtype"] == "float32"
    assert record["tensors"]["a"]["shape"] == [2, 3]
    import hashlib

    expected = hashlib.sha256(struct.pack("<6f", *range(6))).hexdigest()
    assert record["tensors"]["a"]["sha256"] == expected


def test_a_record_made_by_reading_is_the_same(golden):
    before = Path(f"{golden}.json").read_text()
    assert record_golden(golden) == Path(f"{golden}.json")
    assert Path(f"{golden}.json").read_text() == before


def test_golden_files_are_found_beside_their_records(golden):
    assert check(golden.parent) == {"files": ["one.safetensors"]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r["tensors"]["a"].update(sha256="0" * 64), "sha256 of 'a' is 0000"),
        (lambda r: r["tensors"]["a"].update(shape=[6]), "shape of 'a' is [6], and reads as [2, 3]"),
        (lambda r: r["tensors"].pop("mask"), "they differ in ['mask']"),
        (lambda r: r["metadata"].update(by="you"), "its metadata is {'by': 'you'}"),
        (lambda r: r.pop("tensors"), "record it again"),
    ],
)
def test_a_file_that_reads_otherwise_is_told_in_words(golden, change, says):
    place = Path(f"{golden}.json")
    record = json.loads(place.read_text())
    change(record)
    place.write_text(json.dumps(record))
    with pytest.raises(CheckFailed) as caught:
        check(golden.parent)
    assert says in str(caught.value)
    assert "one.safetensors" in str(caught.value)


def test_a_folder_without_records_says_what_is_missing(golden):
    Path(f"{golden}.json").unlink()
    with pytest.raises(CheckFailed, match=r"has its record NAME\.json beside it"):
        check(golden.parent)


GOOD = struct.pack("<Q", 66) + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(66) + bytes(8)  # fmt: skip
KINDS = [damage.cut, damage.lengthened, damage.flipped, damage.giant, damage.foreign, damaged_text]


@pytest.mark.parametrize("damaged", KINDS)
def test_damage_is_the_same_each_time_and_never_none(damaged):
    cases = list(damaged(GOOD))
    assert cases == list(damaged(GOOD))
    assert len(cases) >= 6
    assert len({case.what for case in cases}) == len(cases)
    assert not [case.what for case in cases if case.rule == "refused" and case.data == GOOD]


def test_longer_text_states_its_own_length():
    cases = {case.what: case.data for case in damaged_text(GOOD)}
    twice = cases["its text replaced by every key twice"]
    (length,) = struct.unpack("<Q", twice[:8])
    assert twice[8 : 8 + length].count(b'"a"') == 2
    assert len(twice) == 8 + length + 8


def test_shorter_text_is_filled_up_so_that_the_data_stay_where_they_are():
    cases = {case.what: case.data for case in damaged_text(GOOD)}
    assert len(cases["its text replaced by a list"]) == len(GOOD)


def test_what_does_not_begin_with_text_has_none_to_damage():
    assert list(damaged_text(b"\x93NUMPY" + bytes(100))) == []
    assert list(damaged_text(b"{no json" + bytes(100))) == []
