"""What importing hardpoint and listing 200 installed plugins cost, beside what others cost.

Budgets of the design: ``import hardpoint`` under 60 ms; listing 200 plugins under 100 ms, importing
none of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from _report import Page, Timing, arguments, interleaved, ratio, table, verdict

IMPORT_BUDGET = 0.060
LISTING_BUDGET = 0.100
PLUGINS = 200
GROUP = "hardpoint.backend.v1"

# The bare import loads almost nothing; whoever lists plugins pays for the second line too.
IMPORTS = {
    "hardpoint": "import hardpoint",
    "registry": "from hardpoint import Registry",
    "pluggy": "import pluggy",
    "stevedore": "import stevedore",
    "torch": "import torch",
}

# What a vendor's light module looks like: the hooks, and nothing of an SDK.
MODULE = """
from hardpoint import BackendInfo, Probe, ProbeRequest, hookimpl

@hookimpl
def hardpoint_backend_info() -> BackendInfo:
    return BackendInfo(requires_api=(1, 0), summary="a bench plugin", precisions=("fp32",))

@hookimpl
def hardpoint_backend_probe(request: ProbeRequest) -> Probe:
    return Probe.unavailable("it is made for the benchmark")

@hookimpl
def hardpoint_backend_open(config):
    raise NotImplementedError("never opened")
"""


@dataclass(frozen=True)
class Way:
    """One way of finding the plugins.

    :param prepare: run before the clock starts (imports of the library itself).
    :param work: timed; leaves the names it found in ``found``.
    :param note: what it gives.
    """

    prepare: str
    work: str
    note: str
    warm_cache: bool = False


WAYS = {
    "hardpoint `Registry().records()`": Way(
        "from hardpoint import Registry",
        "found = [r.name for r in Registry().records('backend')]",
        "name, distribution, version, policy, state",
    ),
    "importlib.metadata `entry_points(group=)`": Way(
        "from importlib.metadata import entry_points",
        f"found = [e.name for e in entry_points(group={GROUP!r})]",
        "names",
    ),
    "stevedore `ExtensionManager`, its disk cache empty": Way(
        "from stevedore import ExtensionManager",
        f"found = ExtensionManager({GROUP!r}, invoke_on_load=False).names()",
        "imported modules",
    ),
    "stevedore `ExtensionManager`, its disk cache warm": Way(
        "from stevedore import ExtensionManager",
        f"found = ExtensionManager({GROUP!r}, invoke_on_load=False).names()",
        "imported modules",
        warm_cache=True,
    ),
    "pluggy `load_setuptools_entrypoints`": Way(
        "import pluggy; m = pluggy.PluginManager('hardpoint')",
        f"m.load_setuptools_entrypoints({GROUP!r}); found = [n for n, _ in m.list_name_plugin()]",
        "imported modules",
    ),
}
OURS = next(iter(WAYS))


def install_plugins(folder: Path, count: int) -> None:
    """Write ``count`` distributions as pip leaves them: a package, and a dist-info beside it."""
    for number in range(count):
        name = f"hp_bench_{number:03}"
        package = folder / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("", "utf-8")
        (package / "plugin.py").write_text(MODULE, "utf-8")
        info = folder / f"{name}-1.{number}.0.dist-info"
        info.mkdir()
        header = [
            "Metadata-Version: 2.4",
            f"Name: {name.replace('_', '-')}",
            f"Version: 1.{number}.0",
            "Summary: A generated plugin.",
            "License-Expression: Apache-2.0",
            "Requires-Python: >=3.10",
            "Requires-Dist: hardpoint<1,>=0.1",
        ]
        body = "A paragraph of a README, as every distribution carries one.\n" * 60
        (info / "METADATA").write_text("\n".join(header) + "\n\n" + body, "utf-8")
        entry = f"[{GROUP}]\n{name} = {name}.plugin\n"
        (info / "entry_points.txt").write_text(entry, "utf-8")
        (info / "INSTALLER").write_text("pip\n", "utf-8")
        files = [f"{name}/__init__.py", f"{name}/plugin.py", f"{info.name}/METADATA"]
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in files), "utf-8")


def fresh(code: str, **environment: str) -> dict[str, float]:
    """Run ``code`` in a fresh interpreter; it prints one JSON object."""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise RuntimeError(f"{code}\n{answer.stderr}")
    result: dict[str, float] = json.loads(answer.stdout)
    return result


def import_case(statement: str) -> Callable[[], float]:
    """Time an import in a process that has imported next to nothing."""
    code = (
        "from time import perf_counter as now; start = now()\n"
        f"{statement}\n"
        "print('{\"seconds\":', now() - start, '}')"
    )
    return lambda: fresh(code)["seconds"]


def listing_code(way: Way) -> str:
    """A script that times one listing, and counts what it found and imported."""
    return (
        "import fnmatch, sys; from time import perf_counter as now\n"
        f"{way.prepare}\n"
        f"start = now()\n{way.work}\ntook = now() - start\n"
        "mine = sum(name.startswith('hp_bench') for name in found)\n"
        "modules = len(fnmatch.filter(sys.modules, 'hp_bench_*.plugin'))\n"
        "print('{\"seconds\":', took, ', \"found\":', mine, ', \"imported\":', modules, '}')"
    )


def listing_case(way: Way, folder: Path, caches: Path) -> Callable[[], dict[str, float]]:
    """One listing in a fresh process; stevedore's disk cache is empty or warm, as ``way`` says."""

    def once() -> dict[str, float]:
        with tempfile.TemporaryDirectory(dir=caches) as empty:
            cache = str(caches / "warm") if way.warm_cache else empty
            return fresh(listing_code(way), PYTHONPATH=str(folder), XDG_CACHE_HOME=cache)

    return once


def measure_imports(page: Page, rounds: int) -> Timing:
    """The first table; returns the time of ``import hardpoint``."""
    times = interleaved({name: import_case(text) for name, text in IMPORTS.items()}, rounds)
    ours = times["hardpoint"]
    rows: list[list[object]] = [
        [f"`{IMPORTS[name]}`", *time.cells("ms"), ratio(time.median, ours.median)]
        for name, time in times.items()
    ]
    page.add(f"## Import\n\nFresh processes, {rounds} interleaved rounds.")
    page.add(table(["", "median ms", "fastest ms", "spread", "to ours"], rows))
    return ours


def measure_listing(page: Page, rounds: int, folder: Path) -> tuple[Timing, int]:
    """The second table; returns our time, and how many plugins our listing imported."""
    plugins, caches = folder / "site-packages", folder / "caches"
    install_plugins(plugins, PLUGINS)
    caches.mkdir()
    cases = {name: listing_case(way, plugins, caches) for name, way in WAYS.items()}
    counts = {name: case() for name, case in cases.items()}  # compiles the modules, fills the cache

    def timed(case: Callable[[], dict[str, float]]) -> Callable[[], float]:
        return lambda: case()["seconds"]

    times = interleaved({name: timed(case) for name, case in cases.items()}, rounds)
    rows = []
    for name, time in times.items():
        found, imported = int(counts[name]["found"]), int(counts[name]["imported"])
        if found != PLUGINS:
            raise RuntimeError(f"{name} found {found} of {PLUGINS} plugins")
        how = [WAYS[name].note, imported]
        rows.append([name, *time.cells("ms"), ratio(time.median, times[OURS].median), *how])
    page.add(
        f"## Listing {PLUGINS} plugins\n\n"
        f"{PLUGINS} generated distributions beside those of this environment; the first listing "
        f"of a fresh process, the library itself already imported; {rounds} interleaved rounds."
    )
    header = ["", "median ms", "fastest ms", "spread", "to ours", "gives", "plugins imported"]
    page.add(table(header, rows))
    return times[OURS], int(counts[OURS]["imported"])


def main() -> None:
    """Measure, print, and write the page."""
    options = arguments(__doc__, rounds=15)
    page = Page("Import and listing")
    imported = measure_imports(page, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        listed, modules = measure_listing(page, options.rounds, Path(folder))
    rows: list[list[object]] = [
        ["`import hardpoint`", f"< {IMPORT_BUDGET * 1e3:.0f} ms", f"{imported.median * 1e3:.1f} ms",
         verdict(imported.median, IMPORT_BUDGET)],
        [f"listing {PLUGINS} plugins", f"< {LISTING_BUDGET * 1e3:.0f} ms",
         f"{listed.median * 1e3:.1f} ms", verdict(listed.median, LISTING_BUDGET)],
        ["plugins imported by listing", "0", modules, verdict(modules, 0)],
    ]  # fmt: skip
    page.add("## Budgets")
    page.add(table(["", "budget", "median", "verdict"], rows))
    page.finish(options.output, __file__)


if __name__ == "__main__":
    main()
