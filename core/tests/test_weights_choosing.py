"""Which serializer reads and writes a file, and what is said when none does."""

import os
import pickle
import subprocess
import sys

import pytest
import torch

from hardpoint import (
    ContractViolation,
    ProviderFailed,
    ProviderNotFound,
    ProviderSkipped,
    Registry,
    WeightsError,
)
from hardpoint.weights import convert_weights, describe_content, open_weights, save_weights
from text_weights import TextProvider

TENSORS = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3]])}


@pytest.fixture
def registry():
    """A registry with nothing in it but what the test adds."""
    return Registry(path=[])


def add(registry, name, **options):
    provider = TextProvider(**options)
    registry.add("serializer", name, provider)
    return provider.serializer


@pytest.fixture
def file(tmp_path, registry):
    add(registry, "text")
    path = tmp_path / "weights.txt"
    save_weights(TENSORS, path, registry=registry, metadata={"by": "me"})
    return path


# --- reading


def test_the_content_decides_and_the_suffix_orders_the_tries(tmp_path, registry, file):
    first = add(registry, "a", suffixes=(".bin",))
    claims = add(registry, "z", suffixes=(".txt",))
    first.recognizing = claims.recognizing = lambda path: False
    assert list(open_weights(file, registry=registry)) == ["a", "b"]
    assert first.asked == []
    moved = file.rename(tmp_path / "weights.bin")
    assert list(open_weights(moved, registry=registry)) == ["a", "b"]
    assert first.asked == [moved]


def test_a_serializer_named_is_not_asked_whether_it_knows_the_file(registry, file):
    named = add(registry, "named")
    named.recognizing = lambda path: pytest.fail("it was asked")
    assert list(open_weights(file, registry=registry, format="named")) == ["a", "b"]


def test_a_name_that_nobody_provides_is_an_error(registry, file):
    with pytest.raises(ProviderNotFound, match="did you mean 'text'"):
        open_weights(file, registry=registry, format="txet")


def test_a_serializer_that_breaks_while_looking_is_skipped_with_a_warning(registry, file):
    broken = add(registry, "a")
    broken.recognizing = lambda path: 1 / 0
    with pytest.warns(ProviderSkipped, match="skipped serializer:a.*ZeroDivisionError"):
        assert list(open_weights(file, registry=registry)) == ["a", "b"]


def test_when_nobody_reads_the_file_it_says_who_tried_and_who_broke(tmp_path, registry):
    add(registry, "a").recognizing = lambda path: 1 / 0
    add(registry, "b")
    path = tmp_path / "model.bin"
    path.write_bytes(b"\xde\xad\xbe\xef....")
    with pytest.warns(ProviderSkipped), pytest.raises(WeightsError) as caught:
        open_weights(path, registry=registry)
    assert str(caught.value) == (
        f"no installed serializer reads {path}\n"
        "  cause: it holds unknown data that begins with de ad be ef 2e 2e 2e 2e; tried: a, b; "
        "a failed: ZeroDivisionError: division by zero\n"
        "  remedy: check the file, or install the serializer of its format (`hardpoint list`)"
    )


def test_without_any_serializer_it_says_none(tmp_path, registry):
    path = tmp_path / "model.bin"
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match="tried: none"):
        open_weights(path, registry=registry)


CONTENTS = {
    "zip": (b"PK\x03\x04....", "a zip archive, as torch.save writes", "hardpoint-checkpoint"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle, which can run code", "hardpoint-checkpoint"),
    "old pickle": (
        pickle.dumps({"a": 1}, 2),
        "a pickle, which can run code",
        "hardpoint-checkpoint",
    ),
    "gguf": (b"GGUF\3\0\0\0", "GGUF", "hardpoint-gguf"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid",
        "a Git LFS pointer",
        "git lfs pull",
    ),
    "gzip": (b"\x1f\x8b\x08\0", "gzip-compressed", "decompress"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "HDF5", "hardpoint list"),
    "page": (b"<!DOCTYPE html>", "HTML or XML", "download the file again"),
    "json": (b' {"a": 1}', "JSON", "hardpoint list"),
    "empty": (b"", "nothing: it is empty", "check the file"),
    "noise": (b"\x80\xff\xfe", "unknown data that begins with 80 ff fe", "check the file"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_what_nobody_reads_is_described_in_words_with_a_remedy(tmp_path, registry, kind):
    content, words, remedy = CONTENTS[kind]
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    assert words in describe_content(path)
    with pytest.raises(WeightsError) as caught:
        open_weights(path, registry=registry)
    assert words in caught.value.cause
    assert remedy in caught.value.remedy


def test_a_directory_and_a_pipe_are_described_and_never_waited_for(tmp_path, registry):
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path, "a directory"), (tmp_path / "pipe", "a pipe or device")):
        with pytest.raises(WeightsError, match=words):
            open_weights(path, registry=registry)


def test_a_missing_file_is_an_error(tmp_path, registry):
    with pytest.raises(WeightsError, match=r"there is no file .*nothing\.txt"):
        open_weights(tmp_path / "nothing.txt", registry=registry)


def test_what_a_serializer_raises_while_opening_names_it(registry, file):
    def broken(path, device):
        raise IndexError("list index out of range")

    add(registry, "bad").reading = broken
    with pytest.raises(ProviderFailed) as caught:
        open_weights(file, registry=registry, format="bad")
    assert str(caught.value) == (
        f"bad failed while opening {file}\n"
        "  provider: serializer:bad (from this process)\n"
        "  cause: IndexError: list index out of range\n"
        "  remedy: report it to the plugin's authors: a bad file is a WeightsError"
    )


def test_a_serializer_that_returns_no_reader_breaks_the_contract(registry, file):
    add(registry, "bad").reading = lambda path, device: {"a": 1}
    with pytest.raises(ContractViolation, match=r"open\(\) of bad returned dict"):
        open_weights(file, registry=registry, format="bad")


# --- writing


def test_the_longest_suffix_decides_who_writes(tmp_path, registry):
    add(registry, "plain", suffixes=(".json",))
    add(registry, "index", suffixes=(".index.json",))
    save_weights(TENSORS, tmp_path / "w.index.json", registry=registry)
    report = convert_weights(tmp_path / "w.index.json", tmp_path / "x.json", registry=registry)
    assert report.format == "plain"


def test_two_writers_of_one_suffix_are_an_error_that_names_both(tmp_path, registry):
    add(registry, "one")
    add(registry, "two")
    with pytest.raises(WeightsError) as caught:
        save_weights(TENSORS, tmp_path / "w.txt", registry=registry)
    assert caught.value.cause == "one, two"
    assert caught.value.remedy == "say which, e.g. format='one'"
    save_weights(TENSORS, tmp_path / "w.txt", registry=registry, format="two")


def test_an_unknown_suffix_is_an_error_that_lists_the_known(tmp_path, registry):
    add(registry, "text")
    add(registry, "reads-only", suffixes=(".old",), can_save=False)
    with pytest.raises(WeightsError) as caught:
        save_weights(TENSORS, tmp_path / "w.old", registry=registry)
    assert str(caught.value) == (
        "no installed serializer writes .old (w.old)\n"
        "  cause: known suffixes: .txt\n"
        "  remedy: use one of them, or name the serializer with format= (text)"
    )


def test_a_serializer_that_only_reads_cannot_be_named_to_write(tmp_path, registry):
    add(registry, "reader", can_save=False)
    with pytest.raises(WeightsError, match=r"reader cannot write .*w\.txt"):
        save_weights(TENSORS, tmp_path / "w.txt", registry=registry, format="reader")


# --- converting


def test_converting_keeps_tensors_and_metadata_and_says_what_it_did(tmp_path, registry, file):
    add(registry, "other", suffixes=(".other",))
    target = tmp_path / "copy.other"
    report = convert_weights(file, target, registry=registry, provenance=False)
    assert (report.source_format, report.format) == ("text", "other")
    assert (report.source, report.destination) == (file, target)
    assert (report.tensors, report.nbytes) == (2, 16)
    with open_weights(target, registry=registry, format="other") as reader:
        assert reader.metadata == {"by": "me"}
        assert {name: reader.tensor(name).tolist() for name in reader} == {"a": [1, 2], "b": [[3]]}


def test_converting_fetches_one_tensor_at_a_time_and_closes_the_file(tmp_path, registry, file):
    serializer = registry.open("serializer", "text")
    seen = []

    def save(tensors, path, *, metadata=None):
        (reader,) = serializer.readers
        for name in tensors:
            tensors[name]
            seen.append(list(reader.fetched))

    serializer.save = save
    convert_weights(file, tmp_path / "copy.txt", registry=registry)
    assert seen == [["a"], ["a", "b"]]
    assert serializer.readers[0].closed


def test_progress_counts_up_and_begins_again_when_the_writer_does(tmp_path, registry, file):
    serializer, steps = registry.open("serializer", "text"), []
    serializer.save = lambda tensors, path, metadata=None: [dict(tensors.items()) for _ in range(2)]
    convert_weights(
        file, tmp_path / "copy.txt", registry=registry, progress=lambda *step: steps.append(step),
        provenance=False,
    )  # fmt: skip
    assert steps == [(8, 16, "a"), (16, 16, "b")] * 2


@pytest.mark.parametrize("kind", ["file", "directory", "dangling link"])
def test_converting_replaces_nothing_unasked(tmp_path, registry, file, kind):
    target = tmp_path / "precious.txt"
    if kind == "file":
        target.write_bytes(b"precious")
    elif kind == "directory":
        target.mkdir()
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"precious.txt exists[\s\S]*--force"):
        convert_weights(file, target, registry=registry)


def test_converting_replaces_when_it_is_asked_to(tmp_path, registry, file):
    target = tmp_path / "old.txt"
    target.write_bytes(b"old")
    convert_weights(file, target, registry=registry, force=True)
    assert list(open_weights(target, registry=registry)) == ["a", "b"]


def test_importing_weights_imports_no_torch():
    code = "import sys, hardpoint.weights; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
