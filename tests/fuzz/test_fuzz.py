"""Every parser of weights keeps its invariants on its corpus and on what a fuzzer makes of it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
TARGETS = sorted(path.stem for path in (HERE / "targets").glob("[!_]*.py"))
# Together under a minute of one core, most of it the starts of a process each.
RUNS = 500

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: it has wheels for Linux on x86-64 only",
)


def python(script, *arguments):
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    return answer.returncode, answer.stdout, answer.stderr


def replay(findings, *targets):
    """What came of each file: ``{target: {file: "ok" or the fault}}``."""
    _, output, errors = python("worker.py", "replay", findings, *targets)
    found = {}
    for line in output.splitlines():
        place, _, said = line.partition(": ")
        target, _, file = place.partition(" ")
        found.setdefault(target, {})[file] = said
    assert found, errors
    return found


# --- the corpus


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    return replay(tmp_path_factory.mktemp("findings"), *TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_every_file_of_the_corpus_keeps_the_invariants(replayed, target):
    said = replayed[target]
    assert {path.name for path in (CORPUS / target).iterdir()} == set(said)
    assert {file: fault for file, fault in said.items() if fault != "ok"} == {}


def test_the_corpus_has_a_folder_for_each_target_and_is_small():
    assert sorted(path.name for path in CORPUS.iterdir()) == TARGETS
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert max(sizes) <= 64 << 10
    assert sum(sizes) <= 1_500_000


# --- fuzzing, for a moment


@needs_atheris
@pytest.mark.parametrize("target", TARGETS)
def test_a_bounded_run_finds_nothing(tmp_path, target):
    rc, output, errors = python(
        "run.py", target, "--runs", RUNS, "--seed", 1, "--findings", tmp_path
    )
    reasons = [path.read_text() for path in tmp_path.glob("*.txt")]
    assert rc == 0, "\n".join([errors, *reasons])
    [row] = [line for line in output.splitlines() if f"`{target}`" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert int(cells[1].replace(",", "")) >= RUNS
    edges = [int(number) for number in cells[3].split(" → ")]
    assert 50 < edges[0] <= edges[1], "our sources are not instrumented"


# --- the fuzzer itself, on a parser that is wrong on purpose

FAULTS = {
    "exec": "Finding: forbidden: compile",
    "open": "Finding: forbidden: open of '/etc/hostname': outside the folder of the input",
    "save": "for writing",
    "import": "Finding: forbidden: ",  # of the folder or the file, whichever it looks at first
    "slow": "Finding: it took more than 3.0 s",
    "large": "Finding: memory grew by more than 256 MiB",
    "control characters": "Finding: an error that is not printable",
    "quiet": "Finding: an error without cause or remedy",
    "slice": "Finding: a slice differs",
}


def test_each_kind_of_planted_fault_is_found(tmp_path):
    corpus, findings = tmp_path / "corpus", tmp_path / "findings"
    corpus.mkdir()
    (corpus / "good").write_bytes(b"good1234")
    (corpus / "short").write_bytes(b"x")
    for name in FAULTS:
        (corpus / name).write_bytes(name.encode()[:4] + bytes(8))
    # A child's peak, as the system counts it, begins with that of a parent larger than itself.
    parent = bytearray(b"x") * (1 << 30)
    said = replay(findings, f"_planted={corpus}")["_planted"]
    del parent
    assert (said.pop("good"), said.pop("short")) == ("ok", "ok")
    assert said.keys() == FAULTS.keys()
    for name, fault in FAULTS.items():
        assert fault in said[name], name
    saved = [path for path in findings.iterdir() if path.suffix != ".txt"]
    assert sorted(path.read_bytes()[:4] for path in saved) == sorted(n.encode()[:4] for n in FAULTS)
    assert all("Traceback" in Path(f"{path}.txt").read_text() for path in saved)


@needs_atheris
def test_a_fault_that_only_guidance_leads_to_is_found_and_saved(tmp_path):
    corpus, findings = tmp_path / "corpus", tmp_path / "findings"
    (corpus / "_planted_deep").mkdir(parents=True)
    options = ["--runs", 200_000, "--findings", findings, "--corpus", corpus]
    rc, output, errors = python("run.py", "_planted_deep", *options)
    assert rc == 1, output
    assert "IndexError at planted_parser.py" in errors
    assert any(path.read_bytes().startswith(b"hpF!") for path in findings.iterdir())


@needs_atheris
def test_a_crash_of_the_process_is_found_and_saved(tmp_path):
    corpus, findings = tmp_path / "corpus", tmp_path / "findings"
    (corpus / "_planted").mkdir(parents=True)
    (corpus / "_planted" / "bad").write_bytes(b"segv")
    options = ["--runs", 10, "--findings", findings, "--corpus", corpus]
    rc, output, errors = python("run.py", "_planted", *options)
    assert rc == 1, output
    [saved] = findings.glob("_planted-crash-*")
    assert saved.read_bytes() == b"segv"
    assert f"{saved.name}: " in errors


# --- the command


def test_mistakes_are_told(tmp_path):
    rc, _, errors = python("run.py", "safetensor_file", "--runs", 1)
    assert rc == 2
    assert "no target safetensor_file" in errors
    rc, _, errors = python("run.py", "safetensors_file")
    assert rc == 2
    assert "say --seconds, --runs or --merge" in errors


@needs_atheris
def test_the_page_keeps_what_a_person_wrote(tmp_path):
    page = tmp_path / "fuzzing.md"
    page.write_text("# Old\n\n## Found and mended\n\nA fault, and its commit.\n\n## The machine\n")
    rc, output, errors = python("run.py", "core_pickles", "--runs", 50, "--output", page)
    assert rc == 0, errors
    text = page.read_text()
    assert text.startswith("# Fuzzing the parsers of weights\n")
    assert "A fault, and its commit." in text
    assert output.strip() in text
    assert f"Python {sys.version.split()[0]}" in text
    assert os.fspath(tmp_path) not in text
