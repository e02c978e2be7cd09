"""Where the tensors of a file came from, as its metadata tell it."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from hypothesis import given, settings, strategies as st

import hardpoint as hp
from hardpoint import Registry
from hardpoint.registry.registry import default_registry
from hardpoint.weights import Choice, convert_weights, merge_weights, slice_weights
from hardpoint.weights.provenance import KEY, read_record, told, without_records
from text_weights import TextProvider

REGISTRY = default_registry()
VERSION = f"hardpoint-safetensors {REGISTRY.record('serializer', 'safetensors').version}"


# A kilobyte that would take more calls than Python allows.
NESTED = '{"sources": [{"from": ' + "[" * 600 + "]" * 600 + "}]}"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.safetensors"
    hp.save_weights({"w": torch.ones(4, 2), "v": torch.zeros(3)}, path, metadata={"by": "me"})
    return path


def metadata_of(path):
    with hp.open_weights(path) as reader:
        return dict(reader.metadata)


def record_of(path):
    return read_record(metadata_of(path))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_converting_records_what_was_read_by_whom_and_its_hash(tmp_path, file):
    convert_weights(file, tmp_path / "b.npz", registry=REGISTRY)
    assert record_of(tmp_path / "b.npz") == {
        "operation": "convert",
        "arguments": {},
        "by": f"hardpoint {hp.__version__}",
        "format": "numpy",
        "written_by": f"hardpoint-numpy {REGISTRY.record('serializer', 'numpy').version}",
        "sources": [
            {
                "name": "a.safetensors",
                "format": "safetensors",
                "read_by": VERSION,
                "files": [
                    {"name": "a.safetensors", "bytes": file.stat().st_size, "sha256": sha256(file)}
                ],
            }
        ],
    }


def test_the_same_work_gives_the_same_bytes_wherever_it_is_done(tmp_path, file):
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / file.name
    copy.write_bytes(file.read_bytes())
    for source in (file, copy):
        convert_weights(source, source.with_name("b.safetensors"), registry=REGISTRY)
    written = (tmp_path / "b.safetensors").read_bytes()
    assert (tmp_path / "elsewhere" / "b.safetensors").read_bytes() == written
    assert str(tmp_path).encode() not in written


def test_it_is_left_out_when_asked(tmp_path, file):
    convert_weights(file, tmp_path / "b.safetensors", registry=REGISTRY, provenance=False)
    assert metadata_of(tmp_path / "b.safetensors") == {"by": "me"}


def test_every_file_of_a_set_is_hashed(tmp_path, file):
    convert_weights(file, tmp_path / "set", registry=REGISTRY, shard_size=20)
    merge_weights(
        [tmp_path / "set", file], tmp_path / "c.safetensors", registry=REGISTRY, last_wins=True
    )
    first, second = record_of(tmp_path / "c.safetensors")["sources"]
    shards = sorted((tmp_path / "set").glob("model-*"))
    assert len(shards) == 2
    assert [(each["name"], each["sha256"]) for each in first["files"]] == [
        (shard.name, sha256(shard)) for shard in shards
    ]
    assert first["from"]["operation"] == "convert"
    assert "from" not in second
    index = tmp_path / "set" / "model.safetensors.index.json"
    convert_weights(index, tmp_path / "d.safetensors", registry=REGISTRY)
    (source,) = record_of(tmp_path / "d.safetensors")["sources"]
    assert [each["name"] for each in source["files"]] == [each.name for each in (*shards, index)]


def test_very_many_files_are_told_by_one_digest(tmp_path):
    tensors = {f"t{at:03}": torch.full((1,), float(at)) for at in range(70)}
    hp.save_weights(tensors, tmp_path / "a.safetensors")
    convert_weights(tmp_path / "a.safetensors", tmp_path / "set", registry=REGISTRY, shard_size=4)
    convert_weights(tmp_path / "set", tmp_path / "b.safetensors", registry=REGISTRY)
    shards = sorted((tmp_path / "set").glob("model-*"))
    lines = "".join(f"{sha256(shard)}  {shard.name}\n" for shard in shards)
    assert record_of(tmp_path / "b.safetensors")["sources"][0]["files"] == {
        "count": 70,
        "bytes": sum(shard.stat().st_size for shard in shards),
        "sha256sum": hashlib.sha256(lines.encode()).hexdigest(),
    }


def test_a_slice_says_what_it_took_and_hashes_only_when_asked(tmp_path, file):
    choice = Choice(tensors=("w",), index={"*": (slice(0, 2), 1)})
    slice_weights(file, tmp_path / "b.safetensors", choice, registry=REGISTRY)
    record = record_of(tmp_path / "b.safetensors")
    assert record["operation"] == "slice"
    assert record["arguments"] == {"tensors": ["w"], "index": ["*=[0:2, 1]"]}
    assert record["sources"][0]["files"] == [{"name": file.name, "bytes": file.stat().st_size}]
    slice_weights(file, tmp_path / "c.safetensors", choice, registry=REGISTRY, hashed=True)
    assert record_of(tmp_path / "c.safetensors")["sources"][0]["files"][0]["sha256"] == sha256(file)


def test_a_rank_is_on_record_with_the_rules_in_their_order(tmp_path, file):
    choice = Choice(rank=1, of=2, dims={"w": 1, "[wx]": 0})
    slice_weights(file, tmp_path / "b.safetensors", choice, registry=REGISTRY)
    assert record_of(tmp_path / "b.safetensors")["arguments"] == {
        "tensors": ["*"], "rank": 1, "of": 2, "dims": ["w=1", "[wx]=0"],
    }  # fmt: skip


def test_records_are_chained_and_the_oldest_go_first(tmp_path, file):
    path = file
    for at in range(12):
        target = tmp_path / f"{at}.safetensors"
        convert_weights(path, target, registry=REGISTRY)
        path = target
    depth, record = 0, record_of(path)
    while isinstance(record, dict):
        depth, record = depth + 1, record["sources"][0]["from"]
    assert (depth, record) == (9, "left out: too long")
    assert len(metadata_of(path)[KEY]) <= 16_000


def test_a_record_of_too_many_sources_tells_them_by_one_digest(tmp_path):
    sources = [tmp_path / f"{at:0150}.safetensors" for at in range(40)]
    for at, source in enumerate(sources):
        hp.save_weights({f"t{at}": torch.full((1,), float(at))}, source)
    merge_weights(sources, tmp_path / "all.npz", registry=REGISTRY)
    record = record_of(tmp_path / "all.npz")
    lines = "".join(f"{sha256(source)}  {source.name}\n" for source in sources)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    nbytes = sum(source.stat().st_size for source in sources)
    assert record["sources"] == {"count": 40, "bytes": nbytes, "sha256sum": digest}
    assert record["arguments"] == {"last_wins": False, "metadata": "agree"}
    assert len(metadata_of(tmp_path / "all.npz")[KEY]) <= 16_000
    assert told(record)[-1] == f"  from {digest}  40 files ({nbytes} bytes)"


def test_arguments_too_long_to_record_are_told_by_their_digest(tmp_path, file):
    globs = ["w"] * 8000
    slice_weights(file, tmp_path / "b.npz", Choice(tensors=globs), registry=REGISTRY)
    record = record_of(tmp_path / "b.npz")
    text = json.dumps({"tensors": globs}, separators=(",", ":"))
    assert record["arguments"] == {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    assert record["sources"][0]["name"] == file.name


def test_a_long_record_of_a_source_is_left_out_and_said_to_be(tmp_path, file):
    record = {"operation": "convert", "arguments": {"x": "y" * 20_000}, "sources": []}
    hp.save_weights({"w": torch.ones(1)}, file, metadata={KEY: json.dumps(record)})
    convert_weights(file, tmp_path / "b.safetensors", registry=REGISTRY)
    assert record_of(tmp_path / "b.safetensors")["sources"][0]["from"] == "left out: too long"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("{", "left out: no JSON"),
        ("[" * 50_000, "left out: no JSON"),
        ('{"x": NaN}', "left out: no JSON"),
        ('{"x": [1e999]}', "left out: no JSON"),
        ("[1]", "left out: no JSON object"),
        ("x" * 70_000, "left out: too long"),
        (NESTED, "left out: nested too deep"),
        (NESTED.replace("sources", "arguments"), "left out: nested too deep"),
        ('{"sources": [{"from": [[{}], {}]}]}', {"sources": [{"from": ["left out: a list within a list", {}]}]}),
        ('{"sources": 3}', {"sources": 3}),
        ('{"sources": [1, {"from": [{"sources": [{"from": 4}]}, "\\u001b[2J"]}]}', {"sources": [1, {"from": [{"sources": [{"from": 4}]}, "\x1b[2J"]}]}),
    ],
    ids=["cut", "nested", "nan", "infinite", "list", "long", "lists", "lists-elsewhere", "list-in-list", "sources", "odd"],
)  # fmt: skip
def test_a_record_that_anybody_may_have_written_does_no_harm(tmp_path, file, text, kept):
    hp.save_weights({"w": torch.ones(1)}, file, metadata={KEY: text})
    convert_weights(file, tmp_path / "b.safetensors", registry=REGISTRY)
    record = record_of(tmp_path / "b.safetensors")
    assert record["sources"][0]["from"] == kept
    assert all(line.isprintable() for line in told(record))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["sources", "from", "files", "operation", "by", "arguments", "name"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(JSON)
def test_any_record_can_be_told(value):
    record = read_record({KEY: json.dumps(value)})
    assert (record == value) if isinstance(value, dict) else (record is None)
    if record is not None:
        lines = told(record)
        assert len(lines) <= 101
        assert all(line.isprintable() for line in lines)


def test_an_array_alone_has_no_place_for_it_and_the_report_says_so(tmp_path):
    hp.save_weights({"array": torch.ones(3)}, tmp_path / "a.npy")
    convert_weights(tmp_path / "a.npy", tmp_path / "b.safetensors", registry=REGISTRY)
    report = convert_weights(tmp_path / "b.safetensors", tmp_path / "c.npy", registry=REGISTRY)
    assert report.notes == (
        "c.npy has no place for metadata: where it came from is not recorded",
        "metadata left out: format=pt",
    )
    assert (tmp_path / "c.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()


def test_a_file_that_changes_while_it_is_hashed_is_an_error(tmp_path, file):
    def meddle(done, total, name):
        with file.open("ab") as out:
            out.write(b"x")

    with pytest.raises(hp.WeightsError, match="the file changed while it was open"):
        convert_weights(file, tmp_path / "b.safetensors", registry=REGISTRY, progress=meddle)
    assert not (tmp_path / "b.safetensors").exists()


def test_serializers_that_tell_no_more_than_they_must_are_recorded_too(tmp_path):
    registry = Registry(path=[])
    registry.add("serializer", "text", TextProvider())
    source = tmp_path / "a.txt"
    hp.save_weights({"w": torch.ones(1)}, source, registry=registry)
    convert_weights(source, tmp_path / "b.txt", registry=registry)
    with hp.open_weights(tmp_path / "b.txt", registry=registry) as reader:
        (found,) = read_record(reader.metadata)["sources"]
    assert found["files"] == [
        {"name": "a.txt", "bytes": source.stat().st_size, "sha256": sha256(source)}
    ]


def test_a_record_is_not_counted_among_other_metadata():
    texts = {"by": "me", KEY: "{}", f"model-1.safetensors:{KEY}": "{}"}
    assert without_records(texts) == {"by": "me"}
