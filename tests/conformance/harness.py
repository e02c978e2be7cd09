"""Run checks of the kit on deliberately broken providers, each a real installed distribution.

A run happens in a process forked from a server that has imported torch and computed nothing: that
is as clean as a new interpreter, and seconds quicker.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import killed
from fakes.dists import FakeSite
from hardpoint.interfaces.kinds import KINDS
from hardpoint.testing.journal import Result, read

WHOLE_KIT = "HARDPOINT_WHOLE_KIT"
MODULES = Path(__file__).parent / "mutants"
_WARM = [
    "torch", "torch.export", "torch.testing",
    *(f"hardpoint.testing.suite.test_{kind}" for kind in KINDS),
    "hardpoint.program.capture", "hardpoint.compiler.compile", "hardpoint.package.load",
]  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A broken provider.

    :param name: its provider's name.
    :param where: ``module`` or ``module:attribute`` under ``mutants/``.
    :param kills: the check that must fail on it.
    :param says: words that the check's reason must hold.
    :param settings: text of a ``conformance.toml`` for it.
    :param options: more options for the kit's pytest.
    """

    name: str
    where: str
    kills: str
    says: str
    settings: str = ""
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kills}-{self.name}"


def whole_kit() -> bool:
    """Whether this is `make conformance`, which runs what a commit has no time for."""
    return bool(os.environ.get(WHOLE_KIT))


def asked_for(mutants: Sequence[Mutant]) -> list[Any]:
    """The first mutant of each check; all in `make conformance`.

    That each check can fail is shown by one; the others are the flaws that it has more to say of.
    Most are skipped while the kit is one that killed all of them: see ``killed.py``.
    """
    if whole_kit():
        return list(mutants)
    first: dict[str, Mutant] = {}
    for mutant in mutants:
        first.setdefault(mutant.kills, mutant)
    said, code = killed.read(), killed.code_hash()
    asked: list[Any] = []
    for mutant in first.values():
        why = killed.reason(str(mutant), said, code)
        asked.append(pytest.param(mutant, marks=pytest.mark.skip(reason=why)) if why else mutant)
    return asked


def run_checks(
    key: str,
    where: str,
    checks: Sequence[str],
    *,
    settings: str = "",
    options: Sequence[str] = (),
    timeout: float = 300,
) -> dict[str, Result]:
    """Run the named checks on provider ``key``, whose module is ``where``; how each ended."""
    kind, name = key.split(":")
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        site = FakeSite(Path(folder, "site"))
        site.add("acme-mutants", entries={f"{kind}.v1:{name}": where})
        options = ["--provider", key, "--checks", ",".join(checks), *options]
        if settings:
            Path(folder, "conformance.toml").write_text(settings)
        journal = Path(folder, "journal")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_WARM)
        child = context.Process(
            target=_child, args=([str(site.root), str(MODULES)], options, folder, str(journal))
        )
        child.start()
        child.join(timeout)
        if child.is_alive():
            child.kill()
            child.join()
            raise AssertionError(f"{key}: the checks {checks} did not end within {timeout} s")
        ended = [line for _, line in read(journal) if line.pop("event") == "end"]
        output = Path(folder, "output").read_text()
    found = {line["name"]: Result(**line) for line in ended}
    assert set(checks) <= set(found), f"{sorted(set(checks) - set(found))} did not end:\n{output}"
    return found


def _child(paths: list[str], options: list[str], folder: str, journal: str) -> None:
    output = os.open(str(Path(folder, "output")), os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.path[:0] = paths
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *([inherited] if inherited else [])])
    importlib.invalidate_caches()
    import pytest

    given = [
        "-p", "hardpoint.testing", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", folder,
        "--pyargs", "hardpoint.testing.suite", "--journal", journal, "-q", *options,
    ]  # fmt: skip
    sys.exit(int(pytest.main(given)))


def judged(kind: str, mutant: Mutant) -> Result:
    """How the kit's check that the mutant is made for ended on it."""
    found = run_checks(
        f"{kind}:{mutant.name}",
        mutant.where,
        [mutant.kills],
        settings=mutant.settings,
        options=mutant.options,
    )
    return found[mutant.kills]
