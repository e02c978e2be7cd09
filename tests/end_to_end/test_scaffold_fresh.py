"""``hardpoint new`` as a vendor meets it: from our wheels alone to a green ``hardpoint check``.

A plugin of each kind, and one of all four, is made by the wheel's own command in an environment
outside the checkout, built, installed from its wheel, put to the conformance kit and to its own
tests. Two run at a time. The modules of the plugin of all four are those of the others (a test says
so), and the kit has judged them there: here it asks of each kind what plugin and entry points can
get wrong, and something of every level. The backend is brought to its highest level by
test_tutorial_backend.py, whose plugin is the same one with one operator more; here, in minutes more,
by `make conformance`. While core, templates and kit are those that reached it, no kind does so again:
see tests/conformance/passed.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from fresh_env import ROOT, Fresh, asked, completed, requirements, run, wheels
from hardpoint.interfaces.kinds import KINDS, Kind
from hardpoint.testing.check import LEVELS
from hardpoint.testing.suites import checks_of_kind
from harness import whole_kit
from passed import reason

pytestmark = pytest.mark.slow

PLUGINS: dict[str, tuple[Kind, ...]] = {f"new{kind}": (kind,) for kind in KINDS}
PLUGINS["newall"] = KINDS

# What pytest runs of the kit, by the plugin's own test class.
LIGHT = "declares_what_it_is,loads_without_torch,probe_answers,unknown_option_is_named"
SOME = dict.fromkeys(PLUGINS, LIGHT)
SOME["newall"] += ",survives_threads,leaves_torch_alone,opens_twice"
SOME["newall"] += ",parts_of_convolutional,works_in_a_new_process"
SOME["newall"] += (
    ",every_dtype_round_trips,what_is_no_file_is_refused,readers_see_a_whole_file_while_it_is_replaced"
)
SOME["newall"] += ",every_assignment_is_valid,memory_limits_are_kept,its_plans_run_and_are_right"
SOME["newall"] += ",collectives_are_right,fsdp2_trains,a_killed_rank_is_an_error"
# Whose highest level is shown here.
RESTS = "" if whole_kit() else reason("scaffold")
WHOLE = tuple(k for k in KINDS if k != "backend" or whole_kit())

Ran = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def fresh(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """What ``pip install "hardpoint[standard,testing]"`` gives, and no more."""
    ours = wheels(built)
    extras = ("standard", "testing")
    lent = [text for wheel in ours.values() for text in asked(requirements(wheel), extras)]
    folder = tmp_path_factory.mktemp("vendor")
    return Fresh.make(folder, built, lent, f"hardpoint[{','.join(extras)}]")


@pytest.fixture(scope="module")
def projects(fresh: Fresh) -> dict[str, Path]:
    """Each plugin, made and installed: its folder."""
    work = fresh.folder / "work"
    work.mkdir()
    for name, kinds in PLUGINS.items():
        run(fresh.tool("hardpoint"), "new", name, "--kinds", ",".join(kinds), cwd=work)
        build = (sys.executable, "-m", "build", "--wheel", "--no-isolation")
        run(*build, "--outdir", fresh.folder / "theirs", work / f"hardpoint-{name}", cwd=work)
    theirs = wheels(fresh.folder / "theirs")
    fresh.install(*(f"{wheel}[test]" for wheel in theirs.values()))
    return {name: work / f"hardpoint-{name}" for name in PLUGINS}


@pytest.fixture(scope="module")
def runs(fresh: Fresh, projects: dict[str, Path]) -> Iterator[dict[tuple[str, str], Future[Ran]]]:
    """(plugin, "check" or "pytest") -> its run; those that take long begin first."""
    check, tests = (fresh.tool("hardpoint"), "check"), (fresh.tool("python"), "-m", "pytest", "-q")
    commands: dict[tuple[str, str], tuple[str | Path, ...]] = {
        (f"new{kind}", "check"): (*check, f"{kind}:new{kind}", "--require", LEVELS[kind][-1])
        for kind in (() if RESTS else WHOLE)
    }
    commands |= {(name, "pytest"): (*tests, "--checks", SOME[name]) for name in PLUGINS}
    with ThreadPoolExecutor(2) as pool:
        yield {
            key: pool.submit(completed, *command, cwd=projects[key[0]], timeout=900)
            for key, command in commands.items()
        }


def passed(run_: Future[Ran]) -> str:
    answer = run_.result()
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(RESTS), reason=RESTS)
@pytest.mark.parametrize("kind", WHOLE)
def test_a_new_plugin_reaches_the_highest_level_of_its_kind(
    kind: Kind, runs: dict[tuple[str, str], Future[Ran]]
) -> None:
    said = passed(runs[f"new{kind}", "check"])
    assert f"{kind}:new{kind}: level {LEVELS[kind][-1]}" in said


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PLUGINS)
def test_the_tests_of_a_new_plugin_pass(
    name: str, runs: dict[tuple[str, str], Future[Ran]]
) -> None:
    said = passed(runs[name, "pytest"])
    assert "passed" in said
    assert "failed" not in said


def test_a_plugin_of_all_four_kinds_has_the_modules_of_the_others(
    projects: dict[str, Path],
) -> None:
    together = projects["newall"]
    for kind in KINDS:
        folder = projects[f"new{kind}"]
        for path in (folder / "src" / f"hardpoint_new{kind}").glob("*.py"):
            if path.name not in ("__init__.py", "plugin.py"):
                text = path.read_text("utf-8").replace(f"new{kind}", "newall")
                text = text.replace(f"New{kind}", "Newall").replace(f"NEW{kind.upper()}", "NEWALL")
                assert text == (together / "src" / "hardpoint_newall" / path.name).read_text(
                    "utf-8"
                )


def test_the_vendor_sees_nothing_of_the_checkout(fresh: Fresh) -> None:
    code = (
        "import hardpoint, hardpoint_newall, sys; print(hardpoint.__file__, *sys.path, sep='\\n')"
    )
    said = run(fresh.tool("python"), "-c", code, cwd=fresh.folder)
    assert str(ROOT) not in said


def test_the_names_in_the_table_are_those_of_the_kit() -> None:
    known = {check.name for kind in KINDS for check in checks_of_kind(kind)}
    assert set(",".join(SOME.values()).split(",")) <= known
