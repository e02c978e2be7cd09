"""``hardpoint weights diff``, ``slice`` and ``merge``, as users and scripts run them."""

from __future__ import annotations

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
