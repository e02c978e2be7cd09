"""Parts of files, several files made one, one made a set of shards."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st

import hardpoint as hp
from hardpoint import WeightsError
from hardpoint.registry.registry import default_registry
from hardpoint.weights import (
    Choice,
    convert_weights,
    merge_weights,
    parse_index,
    slice_weights,
)
from hardpoint.weights.parts import index_text
from hardpoint.weights.sharding import plan, shard_size
from own_memory import GROWN

REGISTRY = default_registry()


def equal(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in expected.items()
    )


def metadata_of(path):
    with hp.open_weights(path) as reader:
        return dict(reader.metadata)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {
        "h.0.up.weight": torch.randn(8, 6),
        "h.0.down.weight": torch.randn(6, 8),
        "h.0.norm": torch.randn(6).bfloat16(),
        "h.1.up.weight": torch.randn(8, 6),
        "steps": torch.tensor(3),
    }


@pytest.fixture
def file(tmp_path, tensors) -> Path:
    path = tmp_path / "model.safetensors"
    hp.save_weights(tensors, path, metadata={"by": "me"}, checksum=True)
    return path


# -- an index as text ------------------------------------------------------------------------------

NUMBERS = st.integers(-(10**9), 10**9)
SLICES = st.builds(slice, st.none() | NUMBERS, st.none() | NUMBERS, st.none() | st.integers(1, 99))
INDICES = st.lists(NUMBERS | SLICES, min_size=1, max_size=6).map(tuple)


@given(INDICES)
def test_an_index_is_read_as_it_is_written(index):
    assert parse_index(index_text(index)) == index


@given(INDICES, st.sampled_from(["", " ", "  "]))
def test_an_index_means_what_it_means_in_python(index, space):
    class Seen:
        def __getitem__(self, key):
            return key if isinstance(key, tuple) else (key,)

    text = index_text(index).replace(",", f"{space},{space}").replace(":", f"{space}:{space}")
    assert parse_index(text) == eval(f"seen{text}", {"seen": Seen()})


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("0:10", "an index stands between square brackets"),
        ("[", "an index stands between square brackets"),
        ("[]", "'' is neither a whole number nor a slice"),
        ("[0:1,]", "'' is neither a whole number nor a slice"),
        ("[...]", "'...' is neither a whole number nor a slice"),
        ("[1.5]", "'1.5' is neither a whole number nor a slice"),
        ("[0:9:-1]", "'0:9:-1' is neither a whole number nor a slice"),
        ("[::0]", "'::0' has a step of 0"),
        ("[__import__('os')]", "\"__import__('os')\" is neither a whole number nor a slice"),
        ("[\u0661]", r"'\u0661' is neither a whole number nor a slice"),
        (f"[{'9' * 19}]", f"'{'9' * 19}' is neither a whole number nor a slice"),
        (f"[{','.join('0' * 65)}]", "a tensor has at most 64 dimensions"),
    ],
)
def test_what_is_no_index_is_refused_with_what_is_one(text, cause):
    with pytest.raises(WeightsError, match="is no index") as caught:
        parse_index(text)
    assert caught.value.cause == cause
    assert caught.value.remedy == (
        "write e.g. [0:10, :, 3]: whole numbers and slices start:stop:step, with a positive step"
    )


@given(st.text(alphabet="[]0123456789:,- +x", max_size=40))
def test_any_text_is_an_index_or_a_weights_error(text):
    try:
        parse_index(text)
    except WeightsError as error:
        assert error.remedy


# -- parts of a file -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_tensors_are_picked_by_glob_and_cut_by_index(tmp_path, file, tensors, suffix):
    source, target = tmp_path / f"source{suffix}", tmp_path / "part.safetensors"
    del tensors["h.0.norm"]  # NumPy has no bfloat16
    hp.save_weights(tensors, source)
    choice = Choice(
        tensors=("h.*", "st?ps"),
        exclude=("*.1.*",),
        index={"*.up.*": parse_index("[1:8:3, -1]"), "h.*": (slice(2),)},
    )
    report = slice_weights(source, target, choice, registry=REGISTRY)
    expected = {
        "h.0.up.weight": tensors["h.0.up.weight"][1:8:3, -1],
        "h.0.down.weight": tensors["h.0.down.weight"][:2],
        "steps": tensors["steps"],
    }
    assert equal(hp.load_weights(target), expected)
    assert (report.tensors, report.nbytes) == (3, 3 * 4 + 2 * 8 * 4 + 8)


def test_the_shares_of_all_ranks_make_the_tensor(tmp_path, file, tensors):
    shares = []
    for rank in range(2):
        target = tmp_path / f"{rank}.safetensors"
        choice = Choice(rank=rank, of=2, dims={"*.down.*": -1, "*.weight": 0})
        slice_weights(file, target, choice, registry=REGISTRY)
        shares.append(hp.load_weights(target))
    assert shares[0]["h.0.up.weight"].shape == (4, 6)
    assert shares[0]["h.0.down.weight"].shape == (6, 4)
    for name, tensor in tensors.items():
        dim = {"h.0.down.weight": 1, "h.0.norm": None, "steps": None}.get(name, 0)
        parts = [share[name] for share in shares]
        assert torch.equal(parts[0] if dim is None else torch.cat(parts, dim), tensor)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"tensors": ("h.2.*",)}, r"no tensor taken is called 'h\.2\.\*'"),
        ({"exclude": ("x",)}, "no tensor taken is called 'x'"),
        ({"exclude": ("*",)}, "nothing is taken"),
        ({"tensors": ("steps",), "index": {"h.*": 0}}, r"no tensor taken is called 'h\.\*'"),
        ({"index": {"*.up.weight": (0, 8)}}, r"tensor h\.0\.up\.weight has no such part[\s\S]*it is float32\[8, 6\]: index 8 is out of bounds"),
        ({"index": {"steps": 0}}, r"it is int64\[\]: 1 indices for 0 dimensions"),
        ({"rank": 0, "of": 3, "dims": {"*.weight": 0}}, r"h\.0\.up\.weight cannot be cut in 3 along dimension 0[\s\S]*float32\[8, 6\], which does not divide"),
        ({"rank": 0, "of": 2, "dims": {"*": 0}}, r"steps cannot be cut in 2 along dimension 0[\s\S]*it is int64\[\]\n"),
        ({"rank": 0, "of": 2, "dims": {"*.weight": 0}, "index": {"h.0.up*": 0}}, "h.0.up.weight would be cut twice"),
    ],
)  # fmt: skip
def test_a_part_that_is_none_is_refused_before_anything_is_written(tmp_path, file, choice, says):
    with pytest.raises(WeightsError) as caught:
        slice_weights(file, tmp_path / "p.safetensors", Choice(**choice), registry=REGISTRY)
    assert re.search(says, str(caught.value))
    assert not (tmp_path / "p.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rank": 2, "of": 2, "dims": {"*": 0}}, "there is no rank 2 of 2"),
        ({"rank": 0, "of": 2}, "a rank is given, and no dimension to cut along"),
        ({"dims": {"*": 0}}, "a dimension is given, and no rank"),
    ],
)
def test_half_a_request_for_a_share_is_refused(options, says):
    with pytest.raises(WeightsError, match=says):
        Choice(**options)


def test_a_checksum_of_other_tensors_is_dropped_or_made_anew(tmp_path, file):
    choice = Choice(tensors=("h.*",))
    slice_weights(file, tmp_path / "a.safetensors", choice, registry=REGISTRY)
    assert metadata_of(tmp_path / "a.safetensors")["by"] == "me"
    with pytest.raises(WeightsError, match="carries no checksum"):
        hp.load_weights(tmp_path / "a.safetensors", verify=True)
    slice_weights(file, tmp_path / "b.safetensors", choice, registry=REGISTRY, checksum=True)
    assert len(hp.load_weights(tmp_path / "b.safetensors", verify=True)) == 4


def test_only_what_is_asked_for_is_read(tmp_path):
    """A hole of a tebibyte in the file: reading, or hashing, all of it would take hours."""
    header = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [1 << 40, (1 << 40) + 8]},
        }
    ).encode()
    source = tmp_path / "hole.safetensors"
    with source.open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        try:
            out.truncate(8 + len(header) + (1 << 40) + 8)
        except OSError as error:
            pytest.skip(f"no such files here: {error}")
    choice = Choice(index={"a": slice(1 << 30, (1 << 30) + 5)})
    slice_weights(source, tmp_path / "part.safetensors", choice, registry=REGISTRY)
    assert equal(
        hp.load_weights(tmp_path / "part.safetensors"), {"a": torch.zeros(5), "b": torch.zeros(2)}
    )


# -- several files made one ------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path):
    def save(*contents, metadata=()):
        paths = []
        for at, (suffix, tensors) in enumerate(contents):
            paths.append(tmp_path / f"part{at}{suffix}")
            hp.save_weights(tensors, paths[-1], metadata=metadata[at] if metadata else None)
        return paths

    return save


def test_files_of_any_formats_become_one(tmp_path, parts):
    a, b = torch.randn(3), torch.arange(4)
    sources = parts((".safetensors", {"a": a}), (".npz", {"b": b}))
    report = merge_weights(sources, tmp_path / "all.safetensors", registry=REGISTRY)
    assert equal(hp.load_weights(tmp_path / "all.safetensors"), {"a": a, "b": b})
    assert report.source_formats == ("safetensors", "numpy")
    assert (report.tensors, report.nbytes) == (2, 44)


def test_parts_merged_are_the_file_they_were_cut_from(tmp_path, file, tensors):
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    slice_weights(file, first, Choice(tensors=("h.0.*",)), registry=REGISTRY)
    slice_weights(file, second, Choice(exclude=("h.0.*",)), registry=REGISTRY)
    merge_weights([first, second], tmp_path / "all.npz", registry=REGISTRY, to="safetensors")
    assert equal(hp.load_weights(tmp_path / "all.npz"), tensors)


def test_a_name_in_two_sources_is_refused_unless_the_last_wins(tmp_path, parts):
    one, two = parts(
        (".npz", {"w": torch.zeros(1)}), (".npz", {"w": torch.ones(2), "v": torch.ones(1)})
    )
    target = tmp_path / "all.npz"
    with pytest.raises(WeightsError) as caught:
        merge_weights([one, two], target, registry=REGISTRY)
    assert str(caught.value) == (
        "two sources have a tensor w\n"
        f"  cause: it is in {one} and in {two}\n"
        "  remedy: leave one source out, slice it (--exclude), or last_wins=True (--last-wins)"
    )
    assert not target.exists()
    merge_weights([one, two], target, registry=REGISTRY, last_wins=True)
    assert equal(hp.load_weights(target), {"w": torch.ones(2), "v": torch.ones(1)})


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("first", {"k": "1", "x": "y", "z": "z"}),
        ("last", {"k": "2", "x": "y", "z": "z"}),
        ("none", {}),
    ],
)
def test_metadata_must_agree_unless_a_rule_is_given(tmp_path, parts, rule, expected):
    sources = parts(
        (".npz", {"a": torch.ones(1)}),
        (".npz", {"b": torch.ones(1)}),
        metadata=({"k": "1", "x": "y"}, {"k": "2", "x": "y", "z": "z"}),
    )
    target = tmp_path / "all.npz"
    with pytest.raises(WeightsError, match=r"two sources have other metadata k[\s\S]*--metadata"):
        merge_weights(sources, target, registry=REGISTRY)
    merge_weights(sources, target, registry=REGISTRY, metadata=rule, provenance=False)
    assert metadata_of(target) == expected
    with pytest.raises(WeightsError, match="'lats' is no rule"):
        merge_weights(sources, target, registry=REGISTRY, metadata="lats")


# -- one file made a set ---------------------------------------------------------------------------


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 60))
def test_shards_hold_all_tensors_in_order_and_no_more_than_they_may(sizes, most):
    named = {str(at): size for at, size in enumerate(sizes)}
    shards = plan(named, most)
    assert [name for shard in shards for name in shard] == list(named)
    assert all(sum(named[n] for n in shard) <= most or len(shard) == 1 for shard in shards)
    assert all(shards) or shards == [[]]


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("2GiB", 2 << 30), ("100", 100), ("7 kb", 7000)]
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert shard_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "0GB", "-1GB", "1.5GB", "5 parsecs", "5PB", "9" * 99])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(WeightsError, match=r"is no size[\s\S]*write e\.g\. 5GB"):
        shard_size(text)


def test_a_set_is_loaded_and_verified_as_one(tmp_path, file, tensors):
    report = convert_weights(file, tmp_path / "set", registry=REGISTRY, shard_size=200)
    names = [path.name for path in report.files]
    count = len(names) - 1
    assert count > 1
    assert names[0] == f"model-00001-of-{count:05}.safetensors"
    assert names[-1] == "model.safetensors.index.json"
    assert sorted(names) == sorted(path.name for path in (tmp_path / "set").iterdir())
    assert equal(hp.load_weights(tmp_path / "set", verify=True), tensors)
    top = json.loads(report.files[-1].read_bytes())
    assert top["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert top["metadata"]["by"] == "me"
    back = tmp_path / "back.safetensors"
    convert_weights(tmp_path / "set", back, registry=REGISTRY)
    assert equal(hp.load_weights(back, verify=True), tensors)
    assert "total_size" not in metadata_of(back)


def test_the_checksum_of_one_shard_is_not_the_sets(tmp_path, file, tensors):
    """Of several files, each may carry one of its own tensors."""
    convert_weights(file, tmp_path / "set", registry=REGISTRY, shard_size=200)
    first = min((tmp_path / "set").glob("model-*"))
    content = {name: tensor.clone() for name, tensor in hp.load_weights(first).items()}
    index = tmp_path / "set" / "model.safetensors.index.json"
    top = json.loads(index.read_bytes())
    del top["metadata"]["hardpoint.sha256"]
    index.write_text(json.dumps(top))
    hp.save_weights(content, first, checksum=True)
    convert_weights(tmp_path / "set", tmp_path / "one.safetensors", registry=REGISTRY)
    assert "hardpoint.sha256" not in metadata_of(tmp_path / "one.safetensors")


def test_transformers_reads_the_set_bit_for_bit(tmp_path):
    transformers = pytest.importorskip("transformers")
    from hf_models import DECODER, build

    torch.manual_seed(0)
    model = build("LlamaForCausalLM", "LlamaConfig", **DECODER)()
    model.save_pretrained(tmp_path / "hub")
    report = convert_weights(
        tmp_path / "hub" / "model.safetensors", tmp_path / "set", registry=REGISTRY, shard_size=4000
    )
    assert len(report.files) > 3
    (tmp_path / "set" / "config.json").write_bytes((tmp_path / "hub" / "config.json").read_bytes())
    found = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "set").state_dict()
    assert equal(found, model.state_dict())
    assert equal(hp.from_pretrained(tmp_path / "set").state_dict(), model.state_dict())


def test_a_set_is_replaced_whole_and_nothing_else_is(tmp_path, file, tensors):
    target = tmp_path / "set"
    convert_weights(file, target, registry=REGISTRY, shard_size=200)
    before = sorted(path.name for path in target.iterdir())
    with pytest.raises(WeightsError, match="set exists"):
        convert_weights(file, target, registry=REGISTRY, shard_size=10**6)
    convert_weights(file, target, registry=REGISTRY, shard_size=10**6, force=True)
    after = sorted(path.name for path in target.iterdir())
    assert after == ["model-00001-of-00001.safetensors", "model.safetensors.index.json"] != before
    (target / "config.json").write_text("{}")
    with pytest.raises(
        WeightsError, match=r"is not replaced[\s\S]*other things than a set of shards: config.json"
    ):
        convert_weights(file, target, registry=REGISTRY, shard_size=200, force=True)
    assert equal(hp.load_weights(target), tensors)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_sets_of_other_sizes_are_merged_and_the_size_is_of_all(tmp_path):
    sizes = {"a": 30, "b": 50}
    for name, size in sizes.items():
        hp.save_weights(
            {f"{name}1": torch.ones(size), f"{name}2": torch.ones(9)}, tmp_path / f"{name}.npz"
        )
        convert_weights(
            tmp_path / f"{name}.npz", tmp_path / name, registry=REGISTRY, shard_size=100
        )
    sets = [tmp_path / name for name in sizes]
    report = merge_weights(sets, tmp_path / "all", registry=REGISTRY, shard_size=200)
    total = 4 * (30 + 50 + 2 * 9)
    assert json.loads(report.files[-1].read_bytes())["metadata"]["total_size"] == total


def test_the_size_in_an_index_is_no_sources(tmp_path):
    hp.save_weights({"w": torch.ones(5)}, tmp_path / "a.safetensors", metadata={"total_size": "7"})
    report = convert_weights(
        tmp_path / "a.safetensors", tmp_path / "set", registry=REGISTRY, shard_size=100
    )
    assert json.loads(report.files[-1].read_bytes())["metadata"]["total_size"] == 20


def test_a_set_may_be_made_of_the_set_it_replaces(tmp_path, file, tensors):
    target = tmp_path / "set"
    convert_weights(file, target, registry=REGISTRY, shard_size=200)
    convert_weights(target, target, registry=REGISTRY, shard_size=400, force=True)
    assert equal(hp.load_weights(target, verify=True), tensors)


KILLED = """
import os, sys
from pathlib import Path
from hardpoint.registry.registry import default_registry
from hardpoint.weights import convert_weights
left = int(sys.argv[3])
def stop(done, total, name):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
convert_weights(Path(sys.argv[1]), Path(sys.argv[2]), registry=default_registry(), shard_size=200, force=True, provenance=False, progress=stop)
"""


@pytest.mark.parametrize("steps", [1, 4, 9])
@pytest.mark.parametrize("old", [False, True])
def test_a_killed_writer_leaves_the_old_set_or_none(tmp_path, file, tensors, steps, old):
    target = tmp_path / "set"
    if old:
        convert_weights(file, target, registry=REGISTRY, shard_size=10**6)
    ran = subprocess.run([sys.executable, "-c", KILLED, str(file), str(target), str(steps)])
    assert ran.returncode == -9
    assert target.exists() == old
    if old:
        assert equal(hp.load_weights(target), tensors)
    convert_weights(file, target, registry=REGISTRY, shard_size=300, force=True)
    assert equal(hp.load_weights(target), tensors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "set"]


def test_a_format_without_sets_says_so(tmp_path, file):
    with pytest.raises(WeightsError, match="numpy writes no sets of files"):
        convert_weights(file, tmp_path / "set", registry=REGISTRY, shard_size=200, to="numpy")
    with pytest.raises(WeightsError, match="cannot become a directory of shards"):
        convert_weights(file, file, registry=REGISTRY, shard_size=200, force=True)


MERGING = (
    GROWN
    + """
import sys
from hardpoint.registry.registry import default_registry
from hardpoint.weights import convert_weights, merge_weights

*sources, target = map(Path, sys.argv[1:])
print(grown(lambda: merge_weights(sources, target, registry=default_registry(), shard_size=1 << 26)))
"""
)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_merging_takes_no_more_memory_than_a_tensor_and_some(tmp_path):
    """Eight tensors of 32 MiB: 256 MiB, of which at most one and 64 MiB more are in memory."""
    files = [tmp_path / f"{at}.safetensors" for at in range(2)]
    for at, file in enumerate(files):
        hp.save_weights({f"{at}.{n}": torch.full((1 << 23,), float(n)) for n in range(4)}, file)
    command = [sys.executable, "-c", MERGING, *map(str, files), str(tmp_path / "set")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(ran.stdout) < (32 + 64) * 1024
    assert len(hp.load_weights(tmp_path / "set")) == 8
