"""``hardpoint weights diff``, ``slice`` and ``merge``, as users and scripts run them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

import hardpoint as hp
from hardpoint.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["weights", *map(str, arguments)], prog_name="hardpoint")


def run_alone(*arguments):
    """In a process of its own."""
    command = [sys.executable, "-m", "hardpoint.cli", "weights", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def said(ran):
    """What is on stderr, out of its box, in one line."""
    return " ".join(ran.stderr.replace("│", " ").split())


@pytest.fixture
def saved(tmp_path):
    def save(name, tensors, metadata=None):
        hp.save_weights(tensors, tmp_path / name, metadata=metadata)
        return tmp_path / name

    return save


# -- diff ------------------------------------------------------------------------------------------


def test_diff_of_the_same_tensors_ends_with_0(saved):
    tensors = {"w": torch.ones(2), "b": torch.ones(3)}
    ran = run_alone("diff", saved("a.safetensors", tensors), saved("b.npz", tensors))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert lines(ran.stdout) == ["the same: 2 identical"]


def test_diff_shows_what_differs_worst_first_and_ends_with_1(saved):
    a = saved(
        "a.safetensors",
        {
            "w": torch.zeros(2, 2),
            "v": torch.ones(2),
            "same": torch.ones(1),
            "s": torch.ones(3),
            "x": torch.ones(1),
        },
        {"by": "me"},
    )
    b = saved(
        "b.safetensors",
        {"w": torch.eye(2), "v": torch.ones(2).half(), "same": torch.ones(1), "s": torch.ones(4)},
        {"by": "you\x1b[2J"},
    )
    ran = run("diff", a, b)
    assert (ran.exit_code, ran.stderr) == (1, "")
    assert lines(ran.stdout) == [
        f"only in {a}",
        "x",
        "tensor dtype shape differing max abs max rel worst at",
        "s different float32 [3] / [4]",
        "w different float32 [2, 2] 2 1 1 [0, 0]",
        "v different float32 / float16 [2] 0 0 0",
        "metadata a.safetensors b.safetensors",
        r"by me 'you\x1b[2J'",
        "not the same: 1 identical, 3 different, 1 in one file only",
    ]


def test_diff_fills_no_more_than_a_screen_unless_asked(saved):
    a = saved("a.safetensors", {f"w{at:03}": torch.zeros(1) for at in range(40)})
    b = saved("b.safetensors", {f"w{at:03}": torch.full((1,), float(at)) for at in range(40)})
    shown = lines(run("diff", a, b).stdout)
    assert shown[1].startswith("w039 different")
    assert shown[-2:] == [
        "... and 24 more (--tensors lists all)",
        "not the same: 1 identical, 39 different",
    ]
    assert len(lines(run("diff", a, b, "--tensors").stdout)) == 42


def test_diff_takes_the_names_of_files_as_they_are(saved, tmp_path):
    (tmp_path / "q[").mkdir()
    a = saved("a.safetensors", {"x": torch.ones(1)}, {"by": "me"})
    b = saved("q[/b].safetensors", {"y": torch.ones(1)}, {"by": "you"})
    ran = run("diff", a, b)
    assert (ran.exit_code, ran.stderr) == (1, "")
    assert f"only in {b}" in lines(ran.stdout)
    assert "metadata a.safetensors b].safetensors" in lines(ran.stdout)


def test_diff_within_a_tolerance_ends_with_0(saved):
    a = saved("a.safetensors", {"w": torch.ones(2)})
    b = saved("b.safetensors", {"w": torch.tensor([1, 1.001])})
    assert run("diff", a, b).exit_code == 1
    ran = run("diff", a, b, "--tolerance", "0.01")
    assert ran.exit_code == 0
    assert lines(ran.stdout)[-1] == "the same: 1 within 0.01"


def test_diff_as_json_is_complete(saved):
    a = saved("a.safetensors", {"w": torch.zeros(2), "x": torch.ones(1)}, {"k": "1"})
    b = saved("b.safetensors", {"w": torch.tensor([0, float("nan")])})
    ran = run("diff", a, b, "--json")
    assert ran.exit_code == 1
    assert json.loads(ran.stdout) == {
        "same": False,
        "files": [str(a), str(b)],
        "formats": ["safetensors", "safetensors"],
        "tolerance": None,
        "only_a": ["x"],
        "only_b": [],
        "tensors": [
            {
                "name": "w", "verdict": "different", "dtypes": ["float32", "float32"],
                "shapes": [[2], [2]], "differing": 1, "beyond": 1, "not_finite": 1,
                "max_abs": 0.0, "max_rel": 0.0, "worst": [1], "opaque": False,
            }
        ],
        "metadata": {"k": ["1", None]},
    }  # fmt: skip


def test_diff_of_a_file_that_is_none_says_so(saved, tmp_path):
    a = saved("a.safetensors", {})
    (tmp_path / "b.bin").write_bytes(b"GGUF\x03\x00")
    ran = run("diff", a, tmp_path / "b.bin", "--json")
    assert ran.exit_code == 1
    assert json.loads(ran.stdout)["error"] == "WeightsError"


# -- slice -----------------------------------------------------------------------------------------


@pytest.fixture
def model(saved):
    return saved("model.safetensors", {"up": torch.arange(8.0).view(4, 2), "norm": torch.ones(2)})


def test_slice_picks_cuts_and_says_what_it_wrote(model, tmp_path):
    target = tmp_path / "part.safetensors"
    ran = run_alone("slice", model, target, "--tensor", "u*", "--index", "up=[1:3, 0]")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"1 tensors, 8 B: {target} (safetensors to safetensors)\n"
    found = hp.load_weights(target)
    assert found.keys() == {"up"}
    assert found["up"].tolist() == [2.0, 4.0]


def test_slice_cuts_the_share_of_a_rank(model, tmp_path):
    target = tmp_path / "rank1.npz"
    ran = run(
        "slice", model, target, "--rank", 1, "--of", 2, "--dim", "up=0", "--checksum", "--json"
    )
    assert ran.exit_code == 0
    facts = json.loads(ran.stdout)
    assert (facts["tensors"], facts["bytes"], facts["files"]) == (2, 24, [str(target)])
    found = hp.load_weights(target, verify=True)
    assert (found["up"].tolist(), found["norm"].tolist()) == ([[4, 5], [6, 7]], [1, 1])


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--tensor", "dwon*"], 1, "no tensor taken is called 'dwon*'"),
        (["--index", "up=0:1"], 2, "'0:1' is no index: an index stands between square brackets; write e.g. [0:10, :, 3]"),
        (["--index", "up=[0]", "--index", "up=[1]"], 2, "'--index': 'up' is given twice"),
        (["--rank", "0", "--of", "2", "--dim", "0", "--dim", "*=1"], 2, "'--dim': '*' is given twice"),
        (["--of", "2"], 2, "'--of': nobody's share is cut; add --rank"),
        (["--rank", "0", "--of", "0", "--dim", "0"], 1, "there is no rank 0 of 0"),
        (["--hash", "--no-provenance"], 2, "'--hash': with --no-provenance there is nowhere to record it"),
        (["--index", "[0:1]"], 2, "has no name"),
        (["--rank", "0", "--of", "3", "--dim", "up=0"], 1, "tensor up cannot be cut in 3 along dimension 0"),
        (["--rank", "0", "--of", "2", "--dim", "up=x"], 2, "'up=x' is no dimension"),
        (["--rank", "0"], 1, "a rank is given, and no dimension to cut along"),
    ],
)  # fmt: skip
def test_slice_says_what_is_wrong_with_what_was_asked(model, tmp_path, options, code, says):
    ran = run("slice", model, tmp_path / "part.safetensors", *options)
    assert ran.exit_code == code
    assert says in said(ran)
    assert not (tmp_path / "part.safetensors").exists()


def test_slice_replaces_nothing_unless_forced(model):
    before = model.read_bytes()
    ran = run("slice", model, model, "--tensor", "norm")
    assert ran.exit_code == 1
    assert "nothing is replaced unasked" in ran.stderr
    assert model.read_bytes() == before
    assert run("slice", model, model, "--tensor", "norm", "--force").exit_code == 0
    assert hp.load_weights(model).keys() == {"norm"}


# -- merge -----------------------------------------------------------------------------------------


def test_merge_makes_one_file_of_several(saved, tmp_path):
    target = tmp_path / "all.safetensors"
    ran = run_alone(
        "merge", saved("a.safetensors", {"a": torch.ones(2)}), saved("b.npz", {"b": torch.ones(3)}), target
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"2 tensors, 20 B: {target} (2 files, safetensors, numpy to safetensors)\n"
    assert hp.load_weights(target).keys() == {"a", "b"}


def test_merge_names_both_sources_of_a_name(saved, tmp_path):
    a, b = saved("a.npz", {"w": torch.ones(1)}), saved("b.npz", {"w": torch.zeros(1)})
    ran = run("merge", a, b, tmp_path / "c.npz")
    assert ran.exit_code == 1
    assert f"it is in {a} and in {b}" in ran.stderr
    assert run("merge", a, b, tmp_path / "c.npz", "--last-wins").exit_code == 0
    assert hp.load_weights(tmp_path / "c.npz")["w"].item() == 0
    ran = run("merge", a, tmp_path / "none.npz", tmp_path / "d.npz")
    assert ran.exit_code == 2
    assert "there is no file" in ran.stderr


def test_merge_and_convert_write_sets(saved, tmp_path):
    a, b = saved("a.npz", {"a": torch.ones(20)}), saved("b.npz", {"b": torch.ones(20)})
    ran = run("merge", a, b, tmp_path / "set", "--shard-size", "100B")
    assert ran.stdout.endswith("(2 files, numpy to safetensors, 3 files)\n")
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    ran = run("convert", a, tmp_path / "other", "--shard-size", "much")
    assert ran.exit_code == 2
    assert "'--shard-size': 'much' is no size: a size is a whole number and a unit" in said(ran)


@pytest.mark.parametrize("command", ["convert", "merge"])
def test_a_name_for_shards_without_their_size_is_a_mistake(saved, tmp_path, command):
    a = saved("a.npz", {"a": torch.ones(1)})
    ran = run(command, a, tmp_path / "b.npz", "--shard-name", "model")
    assert ran.exit_code == 2
    assert "'--shard-name': files are called so only in a set; add --shard-size" in said(ran)
    assert not (tmp_path / "b.npz").exists()
    assert run(command, a, tmp_path / "b.npz").exit_code == 0


@pytest.mark.parametrize("target", [".", "../empty", "../empty/../empty/."])
def test_the_folder_one_is_in_can_become_a_set(saved, tmp_path, monkeypatch, target):
    a = saved("a.npz", {"a": torch.ones(2)})
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    ran = run("convert", a, target, "--shard-size", "1GB", "--force")
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert hp.load_weights(tmp_path / "empty")["a"].tolist() == [1, 1]
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


# -- where tensors came from -----------------------------------------------------------------------


def test_info_tells_where_tensors_came_from(saved, model, tmp_path):
    assert run("slice", model, tmp_path / "norm.npz", "--tensor", "norm").exit_code == 0
    assert run("convert", tmp_path / "norm.npz", tmp_path / "norm.safetensors").exit_code == 0
    shown = run("info", tmp_path / "norm.safetensors").stdout
    digest = hashlib.sha256((tmp_path / "norm.npz").read_bytes()).hexdigest()
    version = hp.__version__
    told = shown[shown.index("where it came from") :].splitlines()
    assert told == [
        "where it came from",
        f"convert by hardpoint {version}, written by hardpoint-safetensors {version}",
        f"  from norm.npz, numpy read by hardpoint-numpy {version}",
        f"    {digest}  norm.npz ({(tmp_path / 'norm.npz').stat().st_size} bytes)",
        f"    slice by hardpoint {version}, written by hardpoint-numpy {version}",
        '      with {"tensors": ["norm"]}',
        f"      from model.safetensors, safetensors read by hardpoint-safetensors {version}",
        f"        not hashed  model.safetensors ({model.stat().st_size} bytes)",
    ]
    assert "hardpoint.provenance" not in shown
    facts = json.loads(run("info", tmp_path / "norm.safetensors", "--json").stdout)
    assert facts["provenance"]["sources"][0]["from"]["operation"] == "slice"


def test_a_note_says_what_was_left_out(saved, tmp_path):
    a = saved("a.npy", {"array": torch.ones(1)})
    ran = run("convert", a, tmp_path / "b.npy")
    assert ran.exit_code == 0
    assert ran.stderr == (
        "note: b.npy has no place for metadata: where it came from is not recorded\n"
    )
    assert run("convert", a, tmp_path / "c.npy", "--no-provenance").stderr == ""
