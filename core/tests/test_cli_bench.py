"""`hardpoint bench` on a real model and the cpu backend, beside backends that fail."""

import csv
import importlib.metadata
import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from fakes.dists import PLUGIN, FakeSite
from hardpoint.cli import main
from html_pages import Page

pytestmark = pytest.mark.skipif(
    not {"hardpoint-cpu"} <= {d.metadata["Name"] for d in importlib.metadata.distributions()},
    reason="needs the cpu plugin",
)

MODEL = """
import os
import torch

os.write(1, b"the model's file prints\\n")


def make():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5))
    return model.eval(), (torch.randn(2, 8),)
"""
# Claims everything, and takes the process down when it compiles.
BOOM = PLUGIN.replace(
    'return Support(frozenset(), {node.name: "it runs nothing" for node in program.graph.nodes})',
    "from hardpoint.planning import compute_nodes\n"
    "        return Support(frozenset(n.name for n in compute_nodes(program)))",
).replace(
    'raise CompileError("the null backend compiles nothing")',
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = FakeSite(tmp_path_factory.mktemp("bench") / "site")
    site.add_backend("null")
    site.add_backend("boom", BOOM)
    (site.root / "bench_model.py").write_text(MODEL, "utf-8")
    return site


def bench(site, *arguments):
    """Run ``hardpoint bench`` in a process that has the site beside what this one finds."""
    path = os.pathsep.join([str(site.root), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "hardpoint.cli", "bench", "bench_model:make", *arguments],
        env=site.environment(PYTHONPATH=path), cwd=site.root, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ran(site):
    return bench(
        site, "--targets", "cpu,boom,null", "--precisions", "fp32,bf16", "--variants", "default",
        "--dynamic", "input.0=batch", "--batch", "5,2", "--max-error", "1e-5", "--rounds", "2",
        "--threads", "1", "--csv", "out.csv", "--html", "out.html", "--json",
    )  # fmt: skip


@pytest.fixture(scope="module")
def told(ran):
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def rows(told, target):
    return [r for r in told["rows"] if r["target"] == target]


def test_the_candidate_that_is_right_has_every_figure_at_each_batch(told):
    right = [r for r in rows(told, "cpu") if r["precision"] == "fp32"]
    assert [r["batch"] for r in right] == [2, 5]
    for r in right:
        assert r["state"] == "timed"
        assert r["errors"]["max"] <= 1e-5
        assert r["errors"]["agreement"] == 1.0
        timing = r["timing"]
        assert 0 < timing["low"] <= timing["p50"] <= timing["high"]
        assert timing["p95"] <= timing["p99"]
        assert timing["rounds"] == 2
        assert timing["throughput"] > 0
        assert timing["ratio"] > 0
        assert 0 < r["artifact_bytes"] < r["bytes"]
        assert r["memory_bytes"] > 1_000_000
    started, other = right
    assert 0 < started["cold_seconds"] < started["process_seconds"]
    assert other["cold_seconds"] is None, "it did not start at this batch"


def test_the_baseline_is_a_row_too(told):
    assert [r["batch"] for r in rows(told, "eager PyTorch")] == [2, 5]
    assert rows(told, "eager PyTorch")[0]["timing"]["ratio"] == 1.0


def test_a_candidate_beyond_the_error_asked_for_is_refused_with_its_figures(told):
    (wrong,) = [r for r in rows(told, "cpu") if r["precision"] == "bf16"]
    assert wrong["failure"]["kind"] == "wrong"
    assert "at most 1e-05 is allowed" in wrong["failure"]["reason"]
    assert wrong["errors"]["max"] > 1e-5
    assert wrong["timing"] is None


def test_a_backend_that_crashes_is_a_row_and_stops_nobody(told):
    (crashed,) = rows(told, "boom")
    assert crashed["failure"] == {
        "kind": "crashed", "stage": "compiling s0 for boom", "reason": "killed by SIGSEGV"
    }  # fmt: skip


def test_a_backend_that_does_not_run_it_whole_says_how_far_it_gets(told):
    (part,) = rows(told, "null")
    assert part["failure"]["kind"] == "not whole"
    assert "it runs nothing" in part["failure"]["reason"]


def test_the_machine_is_described_and_stdout_is_one_document(told, ran):
    assert told["machine"]["threads"] == 1
    assert told["machine"]["processor"]["name"]
    assert told["rounds"] == 2
    assert "the model's file prints" in ran.stderr
    assert "\r" not in ran.stderr, "no progress where nobody looks"


def test_the_files_hold_the_same_rows(told, site):
    with (site.root / "out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["target"] for line in lines] == [r["target"] for r in told["rows"]]
    page = Page((site.root / "out.html").read_text("utf-8"))
    assert "killed by SIGSEGV" in page.text
    assert page.all("svg", **{"aria-label": "Latency by batch"})
    assert told["csv"] == "out.csv"


def test_a_batch_that_the_model_does_not_take_is_refused_before_anything_is_built(site):
    done = bench(site, "-t", "cpu", "--batch", "8")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "error: Sequential cannot be run at batch 8\n"
        "  cause: input: float32[2, 8] has a fixed first size\n"
        "  remedy: capture it with that size dynamic: dynamic={'x': {0: 'batch'}}, or on the "
        "command line --dynamic x.0=batch\n"
    ), done.stderr


def test_where_nothing_runs_it_whole_each_reason_is_told(site):
    done = bench(site, "-t", "null")
    assert done.returncode == 1
    assert "error: nothing runs Sequential as a whole, so there is nothing to bench" in done.stderr
    assert "cause: null: covers 0 of 3 operations: it runs nothing" in done.stderr


def hardpoint(*arguments):
    return CliRunner().invoke(main, arguments, prog_name="hardpoint")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ["-t", "cpuu"],
            3,
            "nothing installed provides backend:cpuu provider: backend:cpuu cause: did you mean 'cpu'",
        ),
        (["--precisions", "fp32,fp23"], 2, "'fp23'"),
        (["--batch", "1,zero"], 2, "'zero' is no batch size"),
        (["--variants", "fastest-of-all"], 2, "'fastest-of-all'"),
        (["--rounds", "0"], 2, "0 is not in the range"),
        (["--option", "cpu.moode=aot", "-t", "cpu"], 2, "cpu has no option 'moode'"),
        (["--csv", "nowhere/out.csv"], 2, "Invalid value for '--csv'"),
        (["--partitioner", "capability"], 2, "No such option"),
    ],
)
def test_mistakes_are_told_before_the_model_is_captured(arguments, code, says):
    done = hardpoint("bench", "module:that_is_not_there", *arguments)
    assert done.exit_code == code, done.output
    assert says in " ".join(done.stderr.split()), done.stderr


def test_a_file_that_is_not_ours_is_not_replaced(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    done = hardpoint("bench", "module:that_is_not_there", "--csv", str(notes))
    assert done.exit_code == 2
    assert "--force" in done.stderr
    assert notes.read_text() == "mine"


@pytest.mark.parametrize(
    ("typed", "offered"), [("b", "bf16"), ("fp32,bf", "fp32,bf16"), ("fp32,fp3", None)]
)
def test_lists_of_words_are_completed(typed, offered):
    from hardpoint.cli.listed_args import PrecisionsType

    found = [c.value for c in PrecisionsType().shell_complete(None, None, typed)]
    assert found == ([offered] if offered else [])
