"""``hardpoint weights``, read as a user and as a script would."""

import json
import os
import struct
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from hardpoint import Registry
from hardpoint.cli import main
from hardpoint.cli.weights import convert, info, verify
from hardpoint.weights import save_weights
from terminals import stderr_on_a_terminal
from text_weights import MAGIC, TextProvider


@pytest.fixture
def registry(monkeypatch):
    """What the command line takes for the default registry: two formats of text."""
    made = Registry(path=[])
    made.add("serializer", "text", TextProvider())
    made.add("serializer", "prose", TextProvider(suffixes=(".prose",)))
    for command in (convert, info, verify):
        monkeypatch.setattr(command, "default_registry", lambda: made)
    return made


@pytest.fixture
def file(registry, tmp_path):
    tensors = {
        "layer.weight": torch.zeros(3, 4),
        "layer.bias": torch.zeros(3),
        "steps": torch.tensor(1),
    }
    save_weights(tensors, tmp_path / "w.txt", registry=registry, metadata={"by": "me", "n": "1"})
    return tmp_path / "w.txt"


def run(*arguments):
    return CliRunner().invoke(main, ["weights", *map(str, arguments)], prog_name="hardpoint")


def rows(output):
    return [line.split() for line in output.splitlines() if line.strip()]


def test_info_shows_totals_dtypes_and_metadata(file):
    ran = run("info", file)
    assert ran.exit_code == 0
    assert rows(ran.stdout) == [
        ["file", str(file)],
        ["format", "text"],
        ["tensors", "3"],
        ["parameters", "16"],
        ["bytes", "68", "B"],
        ["float32", "2", "tensors"],
        ["int64", "1", "tensor"],
        ["metadata", "value"],
        ["by", "me"],
        ["n", "1"],
    ]


def test_info_lists_every_tensor_when_asked(file):
    listing = rows(run("info", file, "--tensors", "--format", "text").stdout)[-4:]
    assert listing == [
        ["tensor", "dtype", "shape", "bytes", "file"],
        ["layer.weight", "float32", "[3,", "4]", "48", "B", "w.txt"],
        ["layer.bias", "float32", "[3]", "12", "B", "w.txt"],
        ["steps", "int64", "[]", "8", "B", "w.txt"],
    ]


def test_info_as_json_holds_everything(file):
    ran = run("info", file, "--format", "text", "--json")
    assert json.loads(ran.stdout) == {
        "file": str(file),
        "format": "text",
        "tensors": 3,
        "parameters": 16,
        "bytes": 68,
        "dtypes": {"float32": 2, "int64": 1},
        "metadata": {"by": "me", "n": "1"},
        "provenance": None,
        "entries": [
            {
                "name": "layer.weight",
                "dtype": "float32",
                "shape": [3, 4],
                "bytes": 48,
                "file": "w.txt",
            },
            {"name": "layer.bias", "dtype": "float32", "shape": [3], "bytes": 12, "file": "w.txt"},
            {"name": "steps", "dtype": "int64", "shape": [], "bytes": 8, "file": "w.txt"},
        ],
    }


def test_info_never_sends_control_characters_of_a_file_to_the_terminal(registry, tmp_path):
    path = tmp_path / "evil.txt"
    tensors = {"\x1b[2J[bold]": torch.zeros(1)}
    save_weights(tensors, path, registry=registry, format="text", metadata={"\x07": "\x1b]0;owned"})
    shown = run("info", path, "--tensors").stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "'\\x1b[2J[bold]'" in shown


def test_info_cuts_metadata_that_would_fill_the_screen(registry, tmp_path):
    path = tmp_path / "long.txt"
    save_weights({}, path, registry=registry, format="text", metadata={"k": "x" * 10_000})
    assert "x" * 197 + "..." in run("info", path).stdout
    assert len(json.loads(run("info", path, "--json").stdout)["metadata"]["k"]) == 10_000


def test_a_file_that_nobody_reads_ends_with_1_and_says_what_it_is(registry, tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"GGUF\3\0\0\0")
    ran = run("info", path)
    assert ran.exit_code == 1
    assert ran.stdout == ""
    assert ran.stderr == (
        f"error: no installed serializer reads {path}\n"
        "  cause: it holds GGUF; tried: prose, text\n"
        "  remedy: install hardpoint-gguf\n"
    )


def test_a_serializer_that_is_not_there_ends_with_3(file):
    ran = run("info", file, "--format", "gguf")
    assert ran.exit_code == 3
    assert "serializer:gguf" in ran.stderr or "'gguf'" in ran.stderr


def test_convert_says_what_it_did(file, tmp_path):
    target = tmp_path / "w.prose"
    ran = run("convert", file, target, "--no-provenance")
    assert ran.exit_code == 0
    assert ran.stdout == f"3 tensors, 68 B: {target} (text to prose)\n"
    assert target.read_text() == file.read_text()


def test_convert_as_json(file, tmp_path):
    ran = run("convert", file, tmp_path / "w.any", "--to", "text", "--json")
    assert json.loads(ran.stdout) == {
        "source": str(file),
        "source_format": "text",
        "destination": str(tmp_path / "w.any"),
        "format": "text",
        "tensors": 3,
        "bytes": 68,
        "files": [str(tmp_path / "w.any")],
        "notes": [],
    }


def test_convert_replaces_nothing_unless_forced(file, tmp_path):
    target = tmp_path / "w.prose"
    target.write_bytes(b"precious")
    ran = run("convert", file, target, "--json")
    assert ran.exit_code == 1
    assert json.loads(ran.stdout)["what"] == f"{target} exists"
    assert "--force" in json.loads(ran.stdout)["remedy"]
    assert target.read_bytes() == b"precious"
    assert run("convert", file, target, "--force").exit_code == 0
    assert target.read_text().startswith(MAGIC)


BAR = """
import sys
from hardpoint.weights import progress
progress._PATIENCE_S = float(sys.argv[1])
with progress.bar("converting") as show:
    if show is not None:
        for done in (1, 2):
            show(done, 9, "b\\x1b")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudoterminal")
def test_the_bar_waits_and_then_follows_the_work():
    assert "converting" not in stderr_on_a_terminal(BAR, "3600")
    shown = stderr_on_a_terminal(BAR, "-1")
    assert "converting: 'b\\x1b'" in shown
    assert "2/9 bytes" in shown


def test_no_bar_is_drawn_where_nobody_looks():
    command = [sys.executable, "-c", BAR, "-1"]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""


def test_a_real_safetensors_file_is_described(tmp_path):
    pytest.importorskip("hardpoint_safetensors")
    header = (
        b'{"__metadata__":{"format":"pt"},"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    )
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"abcd")
    shown = json.loads(run("info", path, "--json").stdout)
    assert (shown["format"], shown["metadata"]) == ("safetensors", {"format": "pt"})
    assert shown["entries"][0]["dtype"] == "bfloat16"


def test_verify_holds_weights_against_their_checksum(tmp_path):
    pytest.importorskip("hardpoint_safetensors")
    path = tmp_path / "w.safetensors"
    from hardpoint import default_registry

    save_weights({"w": torch.ones(3)}, path, registry=default_registry(), checksum=True)
    assert json.loads(run("verify", path, "--json").stdout) == {
        "file": str(path), "tensors": 1, "bytes": 12, "verified": True,
        "checked": {"signature": None, "checksum": True},
    }  # fmt: skip
    assert "1 tensors, 12 B, as they were saved" in run("verify", path).stdout.replace("\n", " ")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    ran = run("verify", path, "--json")
    assert ran.exit_code == 4
    assert json.loads(ran.stdout)["what"] == f"{path} is not what was saved"
