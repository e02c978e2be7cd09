"""`hardpoint inspect` and `hardpoint verify-package`, read as a user reads them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from hardpoint.cli import main
from hardpoint.package.integrity import finish_manifest
from hardpoint.package.pt2 import TensorStore, write_program
from hardpoint.package.refusal import AGAIN
from hardpoint.package.writer import ArchiveWriter
from hardpoint.units import size
from package_forge import remake


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(4, 4)

    def forward(self, x):
        return (self.lin(x).relu(),)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "small.pt2"
    exported = torch.export.export(Small(), (torch.randn(3, 4),)).run_decompositions({})
    with ArchiveWriter(path) as made:
        store = TensorStore(made)
        write_program(made, exported, store=store)
        made.add("data/hardpoint/artifacts/s0/code", b"\xff\xfe")
        spec = {"name": "x", "dtype": "float32", "shape": ["batch", ["*", 2, "n"], 4]}
        finish_manifest(
            made,
            {
                "format": "hardpoint/1",
                "name": "small",
                "created": {"hardpoint": "0.1.0", "torch": "2.13.0"},
                "signature": {"inputs": [spec], "outputs": {}, "results": [spec | {"name": "y"}]},
                "plan": {"segments": [{"id": "s0", "target": "cpu", "nodes": ["linear", "relu"]}]},
                "artifacts": [
                    {
                        "segment": "s0",
                        "target": "cpu",
                        "provider": "backend:cpu",
                        "origin": "hardpoint-cpu 0.1.0",
                        "format": "hardpoint-cpu/eager/1",
                        "files": {"code": "data/hardpoint/artifacts/s0/code"},
                        "weights": {k: store.put(t) for k, t in exported.state_dict.items()},
                        "metadata": {},
                    }
                ],
                "verification": {"max_error": 0.0, "reference": "eager"},
            },
        )
    return path


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    return done.exit_code, done.stdout, done.stderr


def test_inspect_shows_what_the_package_is_for(package):
    code, out, _ = run("inspect", package)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert "kind hardpoint package (hardpoint/1)" in lines
    assert "name small" in lines
    assert "created with hardpoint 0.1.0, torch 2.13.0" in lines
    assert "weights 80 B in 2 entries" in lines
    assert (
        f"program model: 2 operations, 2 weights, torch {torch.__version__}, schema 8.20" in lines
    )
    row = "s0 cpu 2 hardpoint-cpu/eager/1 backend:cpu (hardpoint-cpu 0.1.0) 2 B 80 B"
    assert row in lines
    assert "input x float32 [batch, 2*n, 4]" in lines
    assert "output y float32 [batch, 2*n, 4]" in lines
    assert "max_error 0.0" in lines
    assert "data/weights/weight_0" not in out


def test_inspect_lists_the_entries_on_request(package):
    _, out, _ = run("inspect", package, "--entries")
    assert any(line.split()[0] == "data/weights/weight_0" for line in out.splitlines() if line)


def test_inspect_speaks_json(package):
    code, out, _ = run("inspect", package, "--json", "--entries")
    facts = json.loads(out)
    assert code == 0
    assert facts["kind"] == "hardpoint package"
    assert facts["segments"][0]["target"] == "cpu"
    assert facts["tensors"] == {"entries": 2, "bytes": 80}
    assert {"name", "offset", "bytes"} == facts["entry_list"][0].keys()


def test_inspect_imports_no_torch(package):
    script = (
        "import sys; from click.testing import CliRunner; from hardpoint.cli import main; "
        f"done = CliRunner().invoke(main, ['inspect', {str(package)!r}]); "
        "assert done.exit_code == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_inspect_shows_the_basic_facts_of_any_pt2_archive(tmp_path):
    path = tmp_path / "plain.pt2"
    torch.export.save(torch.export.export(Small(), (torch.randn(3, 4),)), path)
    code, out, _ = run("inspect", path)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert "kind PT2 archive" in lines
    assert "pickle data/sample_inputs/model.pt: example inputs, never read" in lines


def test_inspect_warns_of_pickles(package, tmp_path):
    bad = remake(package, tmp_path / "bad.pt2", {"data/constants/custom_obj_0": b"."})
    _, out, _ = run("inspect", bad)
    assert "data/constants/custom_obj_0: hardpoint refuses to load this file" in out


def test_inspect_shows_a_manifest_of_odd_shapes_without_stumbling(package, tmp_path):
    odd = {
        "created": [1], "name": "\x1b[2J\x1b]0;evil\x07" + "x" * 500, "plan": {"segments": 3},
        "signature": {"inputs": [3, {"shape": "x"}, {"shape": [["+"]]}], "results": None},
        "artifacts": [None, {"segment": [], "weights": [], "files": {"a": 3}}], "verification": 7,
    }  # fmt: skip
    bad = remake(package, tmp_path / "bad.pt2", {}, **odd)
    code, out, _ = run("inspect", bad)
    assert code == 0
    assert "\x1b" not in out
    assert "\x07" not in out


def test_inspect_refuses_what_is_no_archive(tmp_path):
    path = tmp_path / "no.pt2"
    path.write_text("hello")
    code, out, err = run("inspect", path)
    assert (code, out) == (4, "")
    assert err == (
        f"error: {path} is not a usable package\n"
        "  cause: it has only 5 bytes: it is truncated, or no package at all\n"
        f"  remedy: {AGAIN}\n"
    )
    code, out, _ = run("inspect", path, "--json")
    assert (code, json.loads(out)["error"]) == (4, "PackageError")


def test_a_good_package_passes_every_check(package):
    code, out, err = run("verify-package", package)
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()[1:]}
    assert (code, err) == (0, "")
    assert rows == {
        "structure": "ok 13 entries, stored and aligned, fill the file",
        "manifest": "ok its hash is right, and it lists all 11 entries",
        "content": rows["content"],
        "pickles": "ok none: nothing runs code when it is read",
        "tensors": "ok 2 references lie within their entries",
        "programs": "ok read and well-formed: 'model' with 6 nodes",
    }
    assert rows["content"].startswith("ok the SHA-256 of ")


def test_a_changed_package_fails_with_the_reason(package, tmp_path):
    data = bytearray(package.read_bytes())
    data[data.index(b"\xff\xfe")] ^= 1
    bad = tmp_path / "bad.pt2"
    bad.write_bytes(data)
    cause = "the content of 'data/hardpoint/artifacts/s0/code' was changed or damaged"
    code, out, err = run("verify-package", bad)
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()[1:]}
    assert code == 4
    assert rows["content"] == f"failed {cause}"
    assert rows["pickles"] == "not checked an earlier check failed"
    assert err == (f"\nerror: {bad} is not a usable package\n  cause: {cause}\n  remedy: {AGAIN}\n")


def test_verify_package_speaks_json(package, tmp_path):
    code, out, _ = run("verify-package", package, "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    ref = {"entry": "no", "dtype": "bool", "shape": [], "strides": [], "offset": 0}
    bad = remake(package, tmp_path / "bad.pt2", {}, held={"x": ref})
    code, out, _ = run("verify-package", bad, "--json")
    report = json.loads(out)
    assert (code, report["ok"]) == (4, False)
    assert [c["outcome"] for c in report["checks"]] == [*["ok"] * 4, "failed", "not checked"]
    assert report["error"]["cause"] == "a tensor refers to entry 'no', which does not exist"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (91_400_000, "91.4 MB"), (10**16, "10000.0 TB")],
)
def test_sizes_are_readable(count, text):
    assert size(count) == text
