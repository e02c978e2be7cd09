"""Mistakes on the command line: nothing is overwritten, and the answer says what was meant."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fakes.dists import PLUGIN, FakeSite
from hardpoint.cli import main

_STANDARD = {"hardpoint-cpu", "hardpoint-partitioners", "hardpoint-safetensors"}
pytestmark = pytest.mark.skipif(
    not {d.metadata["Name"] for d in importlib.metadata.distributions()} >= _STANDARD,
    reason="needs the standard plugins (cpu, partitioners, safetensors)",
)

MODEL = """
import torch
def make():
    return torch.nn.Linear(4, 2).eval(), (torch.ones(3, 4),)
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    file = tmp_path / "mistaken_toy.py"
    file.write_text(MODEL)
    return file


def hardpoint(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="hardpoint")


def said(ran: Result) -> str:
    return " ".join(ran.stderr.replace("│", " ").split())


# What a command may overwrite.


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_the_models_own_file_is_never_overwritten(toy: Path, force: list[str]) -> None:
    for command in (["compile", "-o"], ["plan", "--html"]):
        ran = hardpoint(command[0], f"{toy}:make", "-t", "cpu", command[1], toy, *force)
        assert ran.exit_code == 2
        assert "is the model's own file" in said(ran)
        assert toy.read_text() == MODEL


def test_a_module_that_is_named_by_its_dotted_path_is_the_models_file_too(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(toy.parent)
    ran = hardpoint("compile", "mistaken_toy:make", "-o", toy, "--force")
    assert ran.exit_code == 2
    assert "is the model's own file" in said(ran)


def test_nothing_is_written_into_the_models_directory(tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    ran = hardpoint("compile", folder, "-o", folder / "model.safetensors", "--force")
    assert ran.exit_code == 2
    assert "lies in the model's directory" in said(ran)


def test_a_file_that_is_no_package_is_replaced_only_by_force(toy: Path) -> None:
    output = toy.parent / "notes.txt"
    output.write_text("months of work")
    words = ("compile", f"{toy}:make", "-t", "cpu", "-o", output)
    ran = hardpoint(*words)
    assert ran.exit_code == 2
    assert "is there already, and is not a package" in said(ran)
    assert "--force" in said(ran)
    assert output.read_text() == "months of work"
    assert hardpoint(*words, "--force").exit_code == 0
    assert hardpoint(*words).exit_code == 0, "a package replaces a package"


def test_a_page_replaces_pages_only(toy: Path) -> None:
    words = ("plan", f"{toy}:make", "-t", "cpu", "--html")
    page, other = toy.parent / "plan.html", toy.parent / "plan.txt"
    page.write_text("an old page")
    other.write_text("mine")
    assert hardpoint(*words, page).exit_code == 0
    ran = hardpoint(*words, other)
    assert ran.exit_code == 2
    assert "is not an .html page" in said(ran)
    assert other.read_text() == "mine"


def test_results_replace_nothing_unless_forced_and_never_what_is_read(toy: Path) -> None:
    package, output = toy.parent / "toy.pt2", toy.parent / "out.npz"
    assert hardpoint("compile", f"{toy}:make", "-t", "cpu", "-o", package).exit_code == 0
    assert hardpoint("run", package, "--output", output).exit_code == 0
    ran = hardpoint("run", package, "--output", output)
    assert ran.exit_code == 2
    assert "is there already; name another file, or replace it with --force" in said(ran)
    assert hardpoint("run", package, "--output", output, "--force").exit_code == 0
    for read in (package, output):
        ran = hardpoint("run", package, "--inputs", output, "--output", read, "--force")
        assert ran.exit_code == 2
        assert "is read by this command" in said(ran)


def test_a_lock_replaces_locks_only(tmp_path: Path) -> None:
    site = FakeSite(tmp_path / "site")
    site.add_backend("npu")
    other = tmp_path / "poetry.lock"
    other.write_text("[[package]]")
    ran = site.cli("lock", "-o", str(other))
    assert ran.returncode == 2
    assert "is not a lock file" in " ".join(ran.stderr.replace("│", " ").split())
    assert other.read_text() == "[[package]]"
    assert site.cli("lock", "-o", str(other), "--force").returncode == 0
    assert site.cli("lock", "-o", str(other)).returncode == 0


# A lock that does not fit.


def test_list_shows_what_the_lock_refuses_and_says_why_once(tmp_path: Path) -> None:
    site = FakeSite(tmp_path / "site")
    site.add_backend("npu")
    site.add_backend("npv")
    lock = tmp_path / "empty.lock"
    lock.write_text('{"hardpoint-lock": 1, "providers": {}}')
    ran = site.cli("list", "--kind", "backend", HARDPOINT_LOCK=str(lock))
    assert ran.returncode == 4
    assert ran.stdout.count("not as locked") == 2 + ran.stdout.count("hardpoint-")
    assert ran.stderr.count("error:") == 1
    assert "providers above cannot be loaded: the lock does not match" in ran.stderr
    assert "is not in the lock" in ran.stderr
    assert site.imported() == set()


@pytest.mark.parametrize("words", [["list"], ["doctor"], ["doctor", "backend:npu"]])
def test_an_unusable_lock_is_one_error_with_one_exit_code(tmp_path: Path, words: list[str]) -> None:
    site = FakeSite(tmp_path / "site")
    site.add_backend("npu")
    ran = site.cli(*words, HARDPOINT_LOCK=str(tmp_path / "missing.lock"))
    assert ran.returncode == 4
    assert ran.stderr.count("is unusable") == 1
    assert "missing.lock is unusable" in ran.stderr
    assert ("unusable lock" in ran.stdout) == (words == ["list"])


def test_run_ends_alike_under_an_unusable_lock(toy: Path, tmp_path: Path) -> None:
    package = tmp_path / "toy.pt2"
    assert hardpoint("compile", f"{toy}:make", "-t", "cpu", "-o", package).exit_code == 0
    site = FakeSite(tmp_path / "site")
    ran = site.cli("run", str(package), HARDPOINT_LOCK=str(tmp_path / "missing.lock"))
    assert ran.returncode == 4
    assert ran.stderr.count("is unusable") == 1


# What no backend can do is refused before the model is captured.


def test_what_a_backend_cannot_do_is_refused_without_torch(tmp_path: Path) -> None:
    site = FakeSite(tmp_path / "site")
    assert 'precisions=("fp32",)' in PLUGIN
    site.add_backend("npu")
    code = (
        "import sys; from hardpoint.cli import main\n"
        "try: main(prog_name='hardpoint')\n"
        "finally: assert 'torch' not in sys.modules"
    )
    for words, wanted in (
        (["--precision", "int8"], "npu cannot compute in int8, but has: fp32"),
        (["--option", "npu.fast=1"], "npu has no option 'fast'"),
        (["--option", "npx.fast=1"], "'npx' is no backend of this plan; did you mean 'npu'?"),
    ):
        ran = site.run("-c", code, "compile", "no.py:make", "-t", "npu", "-o", "x.pt2", *words)
        assert ran.returncode == 2, ran.stderr
        assert wanted in " ".join(ran.stderr.replace("│", " ").split())


def test_an_unknown_fallback_is_refused_though_it_is_not_needed(toy: Path) -> None:
    package = toy.parent / "toy.pt2"
    assert hardpoint("compile", f"{toy}:make", "-t", "cpu", "-o", package).exit_code == 0
    ran = hardpoint("run", package, "--fallback", "foo")
    assert ran.exit_code == 3
    assert "nothing installed provides backend:foo" in ran.stderr


# What was meant.


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["lst"], "No such command 'lst'; did you mean 'list'?"),
        (["weights", "inf"], "No such command 'inf'; did you mean 'info'?"),
        (["doctor", "cpu"], "'cpu' is not KIND:NAME; did you mean backend:cpu?"),
        (["plan", "m:f", "--targets", "auto,cpu"], "auto stands alone"),
        (["inspect", "no.pt2"], "there is no file no.pt2"),
        (["verify-package", "no.pt2"], "there is no file no.pt2"),
        (["run", "no.pt2"], "there is no file no.pt2"),
        (["run", __file__, "--inputs", "no.npz"], "there is no file no.npz"),
        (["weights", "info", "no.bin"], "there is no file no.bin"),
        (["weights", "convert", "no.bin", "x.safetensors"], "there is no file no.bin"),
    ],
)
def test_a_slip_ends_with_code_2_and_the_way_out(words: list[str], wanted: str) -> None:
    ran = hardpoint(*words)
    assert ran.exit_code == 2
    assert wanted in said(ran)


def test_a_forgotten_function_is_asked_for(toy: Path) -> None:
    ran = hardpoint("plan", toy)
    assert ran.exit_code == 1
    assert "is a Python file, and no function in it is named" in ran.stderr
    assert f"remedy: name a function that makes the model, e.g. {toy}:make" in ran.stderr


def test_a_wrong_dimension_is_told_in_the_words_of_the_command_line(toy: Path) -> None:
    ran = hardpoint("plan", f"{toy}:make", "-t", "cpu", "--dynamic", "input.5=batch")
    assert ran.exit_code == 1
    assert "names dimension 5 of a 2-d tensor" in ran.stderr
    assert "remedy: write --dynamic NAME.DIM=SIZE, e.g. x.0=batch" in ran.stderr


def test_a_plan_counts_segments_and_operations_as_people_do(toy: Path) -> None:
    ran = hardpoint("plan", f"{toy}:make", "-t", "cpu")
    assert ": 1 segment; " in ran.stdout
    assert "linear x1" in ran.stdout


def test_parameters_are_written_with_separators(tmp_path: Path) -> None:
    import torch

    import hardpoint as hp

    file = tmp_path / "w.safetensors"
    hp.save_weights({"w": torch.zeros(1200, 1000)}, file)
    words = " ".join(hardpoint("weights", "info", file).stdout.split())
    assert "parameters 1,200,000 bytes 4.8 MB" in words
    listed = json.loads(hardpoint("weights", "info", file, "--json").stdout)
    assert listed["parameters"] == 1_200_000


PRECISIONS = {
    "fp8": "'fp8' is no precision; known: ",
    "cpu=fp8": "'fp8' is no precision of a backend; known: ",
    "cpu=auto": "'auto' is no precision of a backend",
    "cpu=bf16,fp32": "'fp32' is not BACKEND=PRECISION, e.g. npu=fp16",
    "cpu=bf16,cpu=fp32": "cpu is given twice",
    "cpu=fp16": "cpu cannot compute in fp16, but has: fp32, bf16",
    "gpu=fp16": "'gpu' is no backend of this plan; did you mean 'cpu'?",
}


@pytest.mark.parametrize("given", PRECISIONS)
def test_a_precision_that_cannot_be_is_refused_in_words(given, tmp_path):
    command = [
        "compile",
        "m.py:f",
        "-t",
        "cpu",
        "-o",
        str(tmp_path / "m.pt2"),
        "--precision",
        given,
    ]
    ran = CliRunner(env={"COLUMNS": "200"}).invoke(main, command)
    assert ran.exit_code == 2, ran.output
    assert PRECISIONS[given] in " ".join(ran.output.replace("│", " ").split())
