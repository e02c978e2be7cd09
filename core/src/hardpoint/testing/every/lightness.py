"""The light module: what a host imports of every installed provider, just to list it."""

from __future__ import annotations

import re
from typing import Any

from hardpoint.testing.check import check, fail
from hardpoint.testing.every.asking import ask
from hardpoint.testing.subject import Subject

BUDGET_MS = 100.0
_TRIES = 5
_LOADING = "importing its light module in a fresh process"
_SHOWN = 5
# "import time:       205 |        205 |   module", two spaces of indentation a level; a module
# stands after what it imports (python -X importtime).
_LINE = re.compile(r"import time: +(\d+) \| +(\d+) \| ( *)(\S+)")


class LightnessChecks:
    """What loading costs."""

    @check("loads")
    def test_loads_without_torch(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Its light module imports neither torch nor anything that imports torch."""
        _ = subject.info  # fails in this process first, with the whole story, if it cannot load
        found, _ = ask(subject, "light", what=_LOADING)
        figures["modules"] = len(found["modules"])
        if "torch" in found["modules"]:
            way = " > ".join(_way_to("torch", _profile(subject)))
            fail(
                f"loading it imported torch ({way}), which takes seconds: import what is heavy in "
                f"hardpoint_{subject.kind}_open, or in the functions that need it",
            )

    @check("loads")
    def test_loads_quickly(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Loading it takes less than 100 ms on top of hardpoint itself."""
        _ = subject.info
        # The fastest of several: what else the machine does must not count against the provider.
        taken = []
        for _ in range(_TRIES):
            found, _ = ask(subject, "light", what=_LOADING)
            taken.append(found["ms"])
            if len(taken) > 1 and min(taken) < BUDGET_MS:
                break
        figures["ms"] = min(taken)
        figures["budget_ms"] = BUDGET_MS
        figures["modules"] = found["modules"]
        if min(taken) >= BUDGET_MS:
            slowest = "; ".join(_slowest(_profile(subject)))
            fail(
                f"loading it takes {min(taken):.0f} ms, the fastest of {len(taken)} fresh "
                f"processes; the contract gives it {BUDGET_MS:.0f} ms. The slowest modules, "
                f"each without what it imports: {slowest}",
            )


def _profile(subject: Subject) -> list[tuple[int, int, str]]:
    """(depth, microseconds of itself, module) of each import that loading does."""
    profiler = {"PYTHONPROFILEIMPORTTIME": "1"}
    _, err = ask(subject, "light", "profiled", what=_LOADING, environment=profiler)
    lines = _LINE.findall(err.partition("== load ==")[2])
    return [(len(indent) // 2, int(own), name) for own, _, indent, name in lines]


def _way_to(module: str, profile: list[tuple[int, int, str]]) -> list[str]:
    """Who imports whom, from the light module down to ``module``."""
    way: list[str] = []
    least = -1
    for depth, _, name in profile:
        if not way and name == module:
            way, least = [name], depth
        elif way and depth < least:
            way, least = [name, *way], depth
    return way or [module]


def _slowest(profile: list[tuple[int, int, str]]) -> list[str]:
    most = sorted(profile, key=lambda line: -line[1])[:_SHOWN]
    return [f"{name} {own / 1e3:.0f} ms" for _, own, name in most if own >= 1000]
