"""`hardpoint plan`, `compile` and `run`: a model's way on the command line."""

import importlib.metadata
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import rich_click as click
import torch
from click.testing import CliRunner
from hypothesis import given, strategies as st

from fakes.dists import FakeSite
from hardpoint.cli import main
from hardpoint.cli.compile import parse_options
from hardpoint.cli.model_args import parse_dynamic
from hardpoint.cli.run import _quantile
from hardpoint.cli.tensor_files import summarize
from hardpoint.units import size


def _installed(*dists):
    found = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    return set(dists) <= found


pytestmark = pytest.mark.skipif(
    not _installed("hardpoint-cpu", "hardpoint-partitioners", "hardpoint-safetensors"),
    reason="needs the standard plugins (cpu, partitioners, safetensors)",
)

MODEL = """
import os
import torch

print("the model's file prints", flush=True)
os.write(1, b"and so does its native code\\n")


class Gate(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 8)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, scale):
        self.calls.add_(1)
        return {"y": torch.relu(self.first(x)) * scale, "calls": self.calls}


def make():
    torch.manual_seed(0)
    return Gate().eval(), (torch.randn(3, 4), torch.tensor(2.0))
"""

# The cpu backend under another name: a target that some machines have and others lack.
NPU = """
from hardpoint_cpu.plugin import (
    hardpoint_backend_info, hardpoint_backend_open, hardpoint_backend_probe
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    (folder / "flow_model.py").write_text(MODEL, "utf-8")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return f"{folder / 'flow_model.py'}:make"


def hardpoint(*arguments):
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="hardpoint")


@pytest.fixture(scope="module")
def package(folder, model):
    path = folder / "gate.pt2"
    ran = hardpoint("compile", model, "-t", "cpu", "--dynamic", "x.0=batch", "-o", path)
    assert ran.exit_code == 0, ran.output
    return path


def eager(x, scale):
    torch.manual_seed(0)
    first = torch.nn.Linear(4, 8)
    with torch.no_grad():
        return torch.relu(first(torch.as_tensor(x))) * scale


def test_plan_shows_the_segments_and_draws_them(folder, model):
    page = folder / "gate.html"
    ran = hardpoint("plan", model, "-t", "cpu", "--explain", "--html", page)
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.startswith("segment  target  operations")
    assert "s0       cpu     4 " in ran.stdout
    assert "s0 on cpu (" in ran.stdout
    assert "add x1" in ran.stdout
    assert ran.stdout.endswith(f"the page is in {page}\n")
    assert "written to state calls" in page.read_text("utf-8")


def test_json_is_one_document_on_stdout_whatever_the_models_code_prints(folder, model):
    ran = subprocess.run(
        [sys.executable, "-m", "hardpoint.cli", "plan", model, "--dynamic", "x.0=batch", "--json"],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    facts = json.loads(ran.stdout)
    assert facts["program"] == "Gate"
    assert [s["target"] for s in facts["segments"]] == ["cpu"]
    assert facts["html"] is None
    assert "the model's file prints" in ran.stderr
    assert "and so does its native code" in ran.stderr
    assert "\r" not in ran.stderr, "no progress where nobody looks"


def test_compile_prints_the_plan_the_verification_and_the_size(folder, model):
    path = folder / "printed.pt2"
    ran = hardpoint("compile", model, "--targets", "cpu", "-o", path, "--option", "cpu.mode=eager")
    assert ran.exit_code == 0, ran.output
    assert "4/4" in ran.stdout
    words = " ".join(ran.stdout.split())
    assert "verified error mean error cosine" in words
    assert "y 0 0 1.000000" in words
    assert "state calls 0 0" in words
    assert "fp32: error 0, at most 0.0001 is allowed; against eager PyTorch" in words
    assert words.endswith(f"wrote {path}, {size(path.stat().st_size)}")


def test_compile_as_json_says_what_was_verified_and_written(folder, model):
    path = folder / "bf16.pt2"
    ran = hardpoint("compile", model, "-t", "cpu", "--precision", "bf16", "-o", path, "--json")
    assert ran.exit_code == 0, ran.output
    facts = json.loads(ran.stdout)
    assert facts["package"] == {"path": str(path), "bytes": path.stat().st_size}
    assert facts["verification"]["precision"] == "bf16"
    assert 0 < facts["verification"]["max_error"] <= facts["verification"]["allowed"]
    assert facts["plan"]["segments"][0]["id"] == "s0"


def test_a_compiled_model_that_is_too_inexact_ends_with_code_4_and_writes_nothing(folder, model):
    path = folder / "inexact.pt2"
    ran = hardpoint("compile", model, "-t", "cpu", "--precision", "bf16", "--max-error", "1e-9",
                    "-o", path)  # fmt: skip
    assert ran.exit_code == 4
    assert "error: segment s0 gives wrong numbers on cpu" in ran.stderr
    assert "at most 1e-09 is allowed" in ran.stderr
    assert "remedy:" in ran.stderr
    assert not path.exists()


def test_run_uses_the_recorded_examples_and_gives_eagers_numbers(folder, package):
    output = folder / "results.npz"
    ran = hardpoint("run", package, "--repeat", "3", "--output", output)
    assert ran.exit_code == 0, ran.output
    words = " ".join(ran.stdout.split())
    assert "result type min mean max NaN" in words
    assert "y float32[3, 8]" in words
    assert "Gate ran on cpu; inputs: recorded examples" in words
    assert "p95" in words
    assert "of 3 calls" in words
    with np.load(output) as results:
        assert results["y"].shape == (3, 8)
        assert results["calls"] == 1, "the results are those of the first call"


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_run_takes_inputs_and_gives_results_by_name(folder, package, suffix):
    x, scale = np.arange(20, dtype=np.float32).reshape(5, 4), np.float32(3)
    inputs, output = folder / f"inputs{suffix}", folder / f"outputs{suffix}"
    if suffix == ".npz":
        np.savez(inputs, x=x, scale=scale)
    else:
        import hardpoint as hp

        hp.save_weights({"x": torch.tensor(x), "scale": torch.tensor(3.0)}, inputs)
    ran = hardpoint("run", package, "--inputs", inputs, "--output", output, "--repeat", "1")
    assert ran.exit_code == 0, ran.output
    assert f"inputs: {inputs}" in ran.stdout
    if suffix == ".npz":
        with np.load(output) as results:
            y = torch.tensor(results["y"])
    else:
        import hardpoint as hp

        y = hp.load_weights(output)["y"]
    assert torch.equal(y, eager(x, scale.item()))


def test_run_as_json_has_targets_figures_and_seconds(package):
    ran = hardpoint("run", package, "--repeat", "5", "--json")
    facts = json.loads(ran.stdout)
    assert facts["targets"] == ["cpu"]
    assert facts["fell_back"] is None
    assert facts["inputs"] == {
        "from": "recorded examples",
        "tensors": ["x: float32[batch, 4]", "scale: float32[]"],
    }
    assert facts["results"]["calls"] == {
        "dtype": "float32", "shape": [], "min": 1.0, "mean": 1.0, "max": 1.0, "nan": 0,
    }  # fmt: skip
    assert facts["seconds"].keys() == {"load", "first", "p50", "p95"}


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_a_missing_input_is_named_with_what_the_program_takes(tmp_path, package):
    file = save(tmp_path / "in.npz", x=np.zeros((2, 4), np.float32))
    ran = hardpoint("run", package, "--inputs", file)
    assert ran.exit_code == 1
    assert ran.stderr == (
        f"error: {file} has no tensor 'scale'\n"
        "  cause: it has: x\n"
        "  remedy: the program takes: x: float32[batch, 4], scale: float32[]\n"
    )


def test_an_unknown_input_is_refused_with_the_nearest_name(tmp_path, package):
    arrays = {"x": np.zeros((2, 4), np.float32), "scale": np.float32(1), "scales": np.float32(1)}
    file = save(tmp_path / "in.npz", **arrays)
    ran = hardpoint("run", package, "--inputs", file)
    assert ran.exit_code == 1
    assert f"{file} has a tensor 'scales', which is no input of the program" in ran.stderr
    assert "cause: did you mean 'scale'?" in ran.stderr


def test_an_input_of_another_type_is_refused_before_anything_runs(tmp_path, package):
    file = save(tmp_path / "in.npz", x=np.zeros((2, 4)), scale=np.float32(1))
    ran = hardpoint("run", package, "--inputs", file)
    assert ran.exit_code == 1
    assert "float64" in ran.stderr
    assert "float32" in ran.stderr


def test_inputs_that_need_a_pickle_are_refused_and_not_unpickled(tmp_path, package):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    file = tmp_path / "in.npz"
    np.savez(file, x=np.array([Bomb()], dtype=object), scale=np.float32(1))
    ran = hardpoint("run", package, "--inputs", file)
    assert ran.exit_code == 1
    assert f"error: the inputs in {file} cannot be read" in ran.stderr
    assert "allow_pickle=False" in ran.stderr
    assert "numpy.savez" in ran.stderr
    assert not (tmp_path / "exploded").exists()


@given(st.binary(max_size=200))
def test_any_bytes_as_npz_give_one_clear_error(tmp_path_factory, package, data):
    file = tmp_path_factory.mktemp("hostile") / "in.npz"
    file.write_bytes(data)
    ran = hardpoint("run", package, "--inputs", file)
    assert ran.exit_code == 1
    assert ran.stderr.startswith(f"error: the inputs in {file} cannot be read\n  cause: ")


def test_a_single_array_is_no_npz(tmp_path, package):
    file = tmp_path / "in.npz"
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))
    ran = hardpoint("run", package, "--inputs", file)
    assert ran.exit_code == 1
    assert "cause: ValueError: it is a single array without a name" in ran.stderr


def test_results_that_npz_cannot_hold_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "half_model.py").write_text(
        "import torch\nclass H(torch.nn.Module):\n    def forward(self, x): return x + 1\n"
        "def make(): return H().eval(), (torch.ones(2, dtype=torch.bfloat16),)\n"
    )
    package = tmp_path / "half.pt2"
    made = hardpoint("compile", f"{tmp_path / 'half_model.py'}:make", "-t", "cpu", "-o", package)
    assert made.exit_code == 0, made.output
    ran = hardpoint("run", package, "--output", tmp_path / "out.npz")
    assert ran.exit_code == 1
    assert "BFloat16" in ran.stderr
    assert "remedy: write to a .safetensors file, which holds every type" in ran.stderr
    assert not (tmp_path / "out.npz").exists()


def test_a_package_whose_target_is_missing_runs_elsewhere_only_if_told_to(folder, tmp_path, model):
    site = FakeSite(tmp_path / "site")
    site.add_backend("npu", NPU)
    package = tmp_path / "npu.pt2"
    made = site.cli("compile", model, "-t", "npu", "--isolate", "-o", str(package))
    assert made.returncode == 0, made.stderr
    refused = hardpoint("run", package)
    assert refused.exit_code == 3
    assert "nothing installed provides backend:npu" in refused.stderr
    ran = hardpoint("run", package, "--fallback", "cpu", "--json")
    assert ran.exit_code == 0, ran.stderr
    assert ran.stderr.startswith(f"warning: {package} falls back to cpu: ")
    facts = json.loads(ran.stdout)
    assert facts["targets"] == ["cpu"]
    assert facts["fell_back"]["to"] == ["cpu"]


def test_a_package_that_is_none_ends_with_code_4(tmp_path):
    (tmp_path / "no.pt2").write_bytes(b"nothing")
    ran = hardpoint("run", tmp_path / "no.pt2", "--json")
    assert ran.exit_code == 4
    assert json.loads(ran.stdout)["error"] == "PackageError"


def test_an_unknown_target_or_partitioner_ends_with_code_3_and_says_what_there_is(model):
    ran = hardpoint("plan", model, "-t", "cqu")
    assert ran.exit_code == 3
    assert "nothing installed provides backend:cqu" in ran.stderr
    assert "did you mean 'cpu'?" in ran.stderr
    ran = hardpoint("plan", model, "-t", "cpu", "--partitioner", "capabillity")
    assert ran.exit_code == 3
    assert "did you mean 'capability'?" in ran.stderr


def test_a_model_that_is_none_ends_with_code_1_and_says_what_can_be_one(tmp_path):
    ran = hardpoint("plan", tmp_path / "nothing")
    assert ran.exit_code == 1
    assert "there is no model at" in ran.stderr
    assert "remedy: pass an nn.Module" in ran.stderr


def test_an_unknown_option_of_a_backend_is_refused(folder, model):
    ran = hardpoint("compile", model, "-t", "cpu", "--option", "cpu.moda=eager",
                    "-o", folder / "never.pt2")  # fmt: skip
    assert ran.exit_code == 2
    assert "did you mean 'mode'?" in ran.stderr
    ran = hardpoint("compile", model, "-t", "cpu", "--option", "npu.mode=eager",
                    "-o", folder / "never.pt2")  # fmt: skip
    assert ran.exit_code == 2
    assert "'npu' is no backend of this plan" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "m:f", "-t", "cpu:"], "'cpu:' is not a target; write backend[:device]"),
        (["plan", "m:f", "-t", "cpu", "--targets", "auto"], "give --target or --targets, not both"),
        (["plan", "m:f", "--dynamic", "x=batch"], "'x=batch' is not NAME.DIM=SIZE"),
        (["plan", "m:f", "--dynamic", "x.0=a", "--dynamic", "x.0=b"], "x.0 is named twice"),
        (["plan", "m:f", "--html", "no/such/page.html"], "cannot be written: there is no folder"),
        (["compile", "m:f"], "Missing option '-o'"),
        (["compile", "m:f", "-o", "."], "cannot be written: it is a folder"),
        (["compile", "m:f", "-o", "x.pt2", "--option", "mode=aot"], "is not BACKEND.NAME=VALUE"),
        (["compile", "m:f", "-o", "x.pt2", "--timeout", "9"], "--timeout needs --isolate"),
        (["run", "x.pt2", "--repeat", "0"], "Invalid value for '--repeat'"),
    ],
)
def test_a_wrong_command_line_ends_with_code_2_at_once(arguments, said):
    ran = hardpoint(*arguments)
    assert ran.exit_code == 2
    assert said in " ".join(ran.stderr.replace("│", " ").split())


def test_targets_and_partitioners_complete_without_torch_or_a_plugin(tmp_path):
    site = FakeSite(tmp_path / "site")
    site.add_backend("npu")
    site.add_backend("npx")
    for words in (
        ["plan", "m:f", "-t"],
        ["compile", "m:f", "--target"],
        ["run", "p", "--fallback"],
    ):
        assert complete(site, *words, "np") == ["npu", "npx"]
    assert complete(site, "plan", "m:f", "--partitioner", "cap") == ["capability"]
    assert site.imported() == set()


def complete(site, *words):
    code = (
        "import sys; from hardpoint.cli import main\n"
        "try: main(prog_name='hardpoint')\n"
        "finally: assert 'torch' not in sys.modules"
    )
    environment = {"_HARDPOINT_COMPLETE": "bash_complete", "COMP_CWORD": str(len(words)),
                   "COMP_WORDS": " ".join(("hardpoint", *words))}  # fmt: skip
    ran = site.run("-c", code, **environment)
    assert "Error" not in ran.stderr, ran.stderr
    return [line.partition(",")[2] for line in ran.stdout.splitlines()]


names = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True)


@given(st.dictionaries(names, st.dictionaries(st.integers(-3, 5), names, min_size=1), min_size=1))
def test_dynamic_sizes_are_read_as_they_are_written(dynamic):
    words = [f"{name}.{dim}={size}" for name, dims in dynamic.items() for dim, size in dims.items()]
    assert parse_dynamic(tuple(words)) == dynamic


@given(st.lists(st.text()))
def test_any_dynamic_words_are_read_or_are_a_usage_error(words):
    try:
        dynamic = parse_dynamic(tuple(words))
    except click.BadParameter as refusal:
        assert refusal.param_hint == "'--dynamic'"
    else:
        assert _leaves(dynamic or {}) == len(words)


def _leaves(tree):
    return sum(_leaves(each) if isinstance(each, dict) else 1 for each in tree.values())


def test_dynamic_sizes_reach_into_nested_arguments():
    words = ("batch.ids.0=b", "batch.ids.1=s", "many.1.0=b")
    assert parse_dynamic(words) == {"batch": {"ids": {0: "b", 1: "s"}}, "many": {1: {0: "b"}}}
    assert parse_dynamic(()) is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(names, names, values)
def test_options_are_json_where_they_can_be(backend, name, value):
    assert parse_options((f"{backend}.{name}={json.dumps(value)}",)) == {backend: {name: value}}


def test_options_are_strings_where_they_are_no_json():
    words = ("cpu.mode=aot", "cpu.threads=2", "a.b.hint=x=y", "cpu.text=")
    assert parse_options(words) == {
        "cpu": {"mode": "aot", "threads": 2, "text": ""}, "a.b": {"hint": "x=y"},
    }  # fmt: skip
    with pytest.raises(click.BadParameter, match=r"cpu\.mode is given twice"):
        parse_options(("cpu.mode=a", "cpu.mode=b"))


def test_a_tensor_in_figures_leaves_nan_out_and_counts_it():
    row = summarize(torch.tensor([1.0, math.nan, 3.0, math.inf]))
    assert (row.least, row.mean, row.greatest, row.nan) == (1.0, math.inf, math.inf, 1)
    assert row.to_json()["max"] == "inf"
    json.dumps(row.to_json(), allow_nan=False)
    assert summarize(torch.tensor([True, False])).mean == 0.5
    assert summarize(torch.tensor([3 + 4j])).greatest == 5.0
    empty = summarize(torch.empty(0, 3, dtype=torch.int64))
    assert (empty.dtype, empty.shape, empty.mean, empty.nan) == ("int64", (0, 3), None, 0)


def test_quantiles_are_values_that_were_measured():
    assert _quantile([7.0], 0.95) == 7.0
    assert _quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert _quantile([float(i) for i in range(1, 101)], 0.95) == 95.0
