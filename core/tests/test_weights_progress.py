"""Bars for all that may take over a second: bytes that were asked for, counted once, to the end."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import hardpoint as hp
from hardpoint import WeightsError
from hardpoint.registry.registry import default_registry
from hardpoint.weights import Choice, convert, load, merge_weights, slice_weights
from hardpoint.weights.scan import scan_paths
from terminals import stderr_on_a_terminal

REGISTRY = default_registry()
TENSORS = {
    "a": torch.arange(4096.0).view(64, 64),
    "b": torch.ones(32, 64, dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
}
NBYTES = sum(tensor.nbytes for tensor in TENSORS.values())


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    hp.save_weights(TENSORS, path, checksum=True)
    return path


@pytest.fixture
def bars(monkeypatch):
    """Every bar that was wanted, in turn: ``(words, [(done, total), ...])``."""
    seen: list[tuple[str, list[tuple[int, int]]]] = []

    @contextmanager
    def recorded(what, *, wanted):
        steps: list[tuple[int, int]] = []
        if wanted is not False:
            seen.append((what, steps))
        yield None if wanted is False else lambda done, total, name: steps.append((done, total))

    for module in (load, convert):
        monkeypatch.setattr(module, "bar", recorded)
    return seen


def assert_complete(steps, nbytes):
    """From something to everything, and the whole is known from the start."""
    assert steps == sorted(steps)
    assert {total for _, total in steps} == {nbytes}
    assert steps[-1] == (nbytes, nbytes)


# -- loading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["map", "own"])
def test_holding_a_file_against_its_checksum_is_followed(file, bars, mode):
    """Of a mapped file, nothing is read before."""
    hp.load_weights(file, mode=mode, verify=True)
    assert [what for what, _ in bars] == ["loading 3 tensors", "checking 3 tensors"]
    assert_complete(bars[1][1], NBYTES)


def upper(info):
    """The upper half of the matrices; the rest whole."""
    return slice(0, info.shape[0] // 2) if len(info.shape) == 2 else None


@pytest.mark.parametrize("mode", ["auto", "map", "own"])
def test_the_whole_of_a_sliced_load_is_what_is_asked_for(file, bars, mode):
    found = hp.load_weights(file, mode=mode, slices=upper)
    nbytes = sum(tensor.nbytes for tensor in found.values())
    assert nbytes == (NBYTES - 2) // 2 + 2
    [(_, steps)] = bars
    assert_complete(steps, nbytes)


def test_a_function_of_slices_is_asked_once_a_tensor(file, bars):
    asked: list[str] = []
    hp.load_weights(file, slices=lambda info: asked.append(info.name), progress=True)
    assert sorted(asked) == sorted(TENSORS)


def test_a_bar_hides_no_mistake_in_an_index(file, bars):
    with pytest.raises(WeightsError, match="has no slice"):
        hp.load_weights(file, slices={"a": 64}, progress=True)


def test_what_a_module_must_have_rearranged_is_counted_too(file, bars):
    """A bool is checked and a transposed parameter rearranged; neither is read in place."""
    module = torch.nn.Module()
    module.a = torch.nn.Parameter(torch.zeros(64, 64).T)
    module.register_buffer("b", torch.zeros(32, 64, dtype=torch.bfloat16))
    module.register_buffer("flags", torch.zeros(2, dtype=torch.bool))
    hp.load_weights(file, into=module)
    assert torch.equal(module.a, TENSORS["a"])
    [(_, steps)] = bars
    assert_complete(steps, NBYTES)


def test_the_whole_is_what_a_module_takes_of_a_file_that_holds_more(file, bars):
    module = torch.nn.Module()
    module.b = torch.nn.Parameter(torch.zeros(32, 64, dtype=torch.bfloat16))
    hp.load_weights(file, into=module, strict=False)
    [(_, steps)] = bars
    assert_complete(steps, module.b.nbytes)


# -- saving and editing ----------------------------------------------------------------------------


def test_hashing_before_a_save_is_followed(tmp_path, bars):
    hp.save_weights(TENSORS, tmp_path / "new.safetensors", checksum=True)
    assert [what for what, _ in bars] == ["hashing 3 tensors", "saving 3 tensors"]
    assert_complete(bars[0][1], NBYTES)
    assert bars[1][1][-1] == (NBYTES, NBYTES)


@pytest.mark.parametrize("edit", ["slice", "merge"])
def test_a_new_checksum_is_followed_before_anything_is_written(tmp_path, file, edit):
    goal, steps = tmp_path / "new.safetensors", []

    def follow(done, total, name):
        steps.append((done, total, [p for p in tmp_path.iterdir() if p != file]))

    options = {"registry": REGISTRY, "checksum": True, "provenance": False, "progress": follow}
    if edit == "slice":
        slice_weights(file, goal, Choice(tensors=("*",)), **options)
    else:
        merge_weights([file], goal, **options)
    hashing = [(done, total) for done, total, written in steps if not written]
    assert (NBYTES, NBYTES) in hashing
    assert len(hashing) >= len(TENSORS)


AMID_TRAINING = """
import sys, torch
import hardpoint as hp
from hardpoint.weights import progress
progress._PATIENCE_S = -1
tensors = {"w": torch.ones(1000)}
if sys.argv[2] == "background":
    with hp.save_in_background() as saver:
        saver.save(tensors, sys.argv[1])
else:
    hp.save_weights(tensors, sys.argv[1])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudoterminal")
@pytest.mark.parametrize("how", ["background", "foreground"])
def test_a_save_in_the_background_leaves_the_terminal_to_the_training(tmp_path, how):
    path = tmp_path / "model.safetensors"
    shown = stderr_on_a_terminal(AMID_TRAINING, path, how)
    assert path.exists()
    assert ("saving 1 tensors" in shown) is (how == "foreground")


# -- the command line ------------------------------------------------------------------------------


COMMAND = """
import sys
from hardpoint.weights import progress
progress._PATIENCE_S = -1
from hardpoint.cli import main
main(["weights", *sys.argv[1:]], prog_name="hardpoint")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudoterminal")
@pytest.mark.parametrize(
    ("command", "words"), [("verify", "checking 3 tensors"), ("scan", "scanning: model.safet")]
)
def test_commands_that_only_read_draw_their_bar(file, command, words):
    assert words in stderr_on_a_terminal(COMMAND, command, file)


def test_a_scan_goes_by_the_bytes_of_files_and_names_each_beforehand(tmp_path, file):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "notes.txt").write_bytes(b"12345")
    (tmp_path / "dangling").symlink_to("nowhere")
    steps, first = [], file.stat().st_size
    scan_paths([tmp_path], registry=REGISTRY, progress=lambda *step: steps.append(step))
    total = first + 5
    assert steps == [
        (0, total, "dangling"),
        (0, total, "model.safetensors"),
        (first, total, "notes.txt"),
        (total, total, ""),
    ]
