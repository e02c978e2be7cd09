"""Weights: hardpoint against every loader and writer that a user could pick instead.

A Llama-like bf16 checkpoint (4 GiB, 291 tensors), one file and four shards; a fresh process a run;
peers take turns. Memory is backed first: each process touches and frees as much just before, since
in a guest a cold run times the host's zeroing of pages. Times include a touch of every page.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import _weights_data
import _weights_device
from _limits import GIB, direct_limit, memcpy_limit, new_memory_limit, timed
from _page_cache import forget, warm
from _plot import plot
from _report import Page, ratio, table
from _weights_cases import back

HERE = Path(__file__).parent

# Scenario -> (what it is, ours, (peer, at most this share of its time), ...).
SCENARIOS: dict[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    "map": (
        "Lazy, zero copy: to the last handle, then a touch of every page.",
        (("load_file", 1 / 2), ("safe_open", 1.0), ("torch.load(mmap)", 1.0)),
    ),
    "own": (
        "Private memory, safe against a file that changes. torch.load reads a .pt of the same tensors.",
        (
            ("torch.load", 1 / 5),
            ("load_file + clone", 1 / 2.5),
            ("runai-model-streamer", 1 / 2),
            ("fastsafetensors", 1 / 2),
            ("fastsafetensors, O_DIRECT", 1.0),
        ),
    ),
    "into": ("Into an existing module.", (("load_model", 1 / 1.5),)),
    "slice, own": (
        "Rank 1 of 2 of a tensor-parallel model (rows, and columns of o_proj and down_proj), in private memory.",
        (("get_slice + clone", 1 / 3),),
    ),
    "slice, views": ("The same, as views of the map.", (("get_slice", 1.0),)),
    "directory": (
        "A Hugging Face directory to a model: meta construction and assignment.",
        (("from_pretrained", 1.0),),
    ),
    "device": ("To a CUDA GPU, until all has arrived there.", (("load_file", 1.0),)),
}
# Timed to the last handle, in milliseconds, three times as often.
LAZY = ("map", "slice, views")
SAVING = (
    ("hardpoint, no fsync", "save_file", 1.0),
    ("hardpoint", "save_file", 1.35),
)


class Setting(NamedTuple):
    """Where the bytes are, and where they go.

    :param name: of the set of files. :param backed: the process touched and freed as much memory
        just before; else the first touch of a page waits for the host of a virtual machine.
    """

    name: str
    cold: bool = False
    backed: bool = False


def run(case: str, files: Sequence[Path], backed: int) -> dict[str, float]:
    """One fresh process."""
    command = [sys.executable, "-W", "ignore", str(HERE / "_weights_cases.py"), case, str(backed)]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr[-2000:]}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(
    cases: Sequence[str], files: Sequence[Path], rounds: int, *, cold: bool, backed: int
) -> dict[str, list[dict[str, float]]]:
    """Every case once a round, in turning order."""
    found: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
    for number in range(rounds):
        for case in list(cases)[:: 1 if number % 2 else -1]:
            if cold:
                forget([*files, *(file.with_suffix(".pt") for file in files)])
            else:
                pickled = "torch.load" in case
                warm([file.with_suffix(".pt") if pickled else file for file in files])
            found[case].append(run(case, files, backed))
    return found


def total(result: dict[str, float]) -> float:
    """Seconds to the last handle and a touch of every page."""
    return result["handles"] + result["touch"]


def limits_of(scenario: str, files: Sequence[Path], ours: dict[str, float], *, cold: bool) -> str:
    """What the machine could do at most, measured right after, and how near ``ours`` comes.

    :param ours: the best of our results; ``handles`` is held against the limits.
    """
    nbytes = int(ours["bytes"])
    if cold:
        limits = {
            "reading past the cache, right after": min(direct_limit(files[0]) for _ in range(3))
        }
    elif scenario == "device":
        limits = {"copying as many bytes from pinned memory": _weights_device.limit(nbytes)}
    else:
        limits = {"copying as many bytes with all cores": memcpy_limit(nbytes)}
        if scenario != "into":
            limits["the same into memory that is new"] = new_memory_limit(nbytes)
    return "\n".join(
        f"- the machine's limit, {words}: {limit:.3f} s; "
        f"ours is at {limit / ours['handles']:.0%} of it"
        for words, limit in limits.items()
    )


def rows_of(
    scenario: str, found: dict[str, list[dict[str, float]]], *, unready: bool
) -> tuple[list[list[object]], list[str]]:
    """Rows of the table, and the verdicts on the goals.

    :param unready: the file is not cached, or the host must find memory first: what all wait for.
    """
    _, peers = SCENARIOS[scenario]
    key: Callable[[dict[str, float]], float] = (
        (lambda result: result["handles"]) if scenario in LAZY else total
    )
    ours = min(map(key, found[f"{scenario}: hardpoint"]))
    rows: list[list[object]] = []
    for case, results in found.items():
        best = min(results, key=key)
        rows.append(
            [
                case.partition(": ")[2],
                f"{min(r['handles'] for r in results) * 1e3:.1f}",
                f"{min(map(total, results)):.3f}",
                f"{statistics.median(map(total, results)):.3f}",
                f"{best['cpu']:.2f}",
                f"{best['faults'] / 1e3:.1f}",
                f"{best['peak']:.0f}",
                "" if case.endswith(": hardpoint") else ratio(min(map(key, results)), ours),
            ]
        )
    verdicts = []
    for peer, asked in peers:
        goal = 1.0 if unready else asked  # never slower than the best of them
        theirs = min(map(key, found[f"{scenario}: {peer}"]))
        word = "PASS" if ours <= goal * theirs else "FAIL"
        verdicts.append(
            f"- {word}: {ratio(ours, theirs)} the time of {peer} (goal: at most {goal:.2f}x)"
        )
    if scenario == "map":
        touch = {case: min(r["touch"] for r in results) for case, results in found.items()}
        verdicts.append(
            f"- touching every page takes {ratio(touch['map: hardpoint'], touch['map: load_file'])}"
            " the time that it takes with load_file (goal: the same)"
        )
    return rows, verdicts


def saving(page: Page, source: Path, folder: Path, rounds: int) -> dict[str, float]:
    """Writers, in this process, of tensors in memory; interleaved; each into a new file."""
    import safetensors.torch
    import torch

    import hardpoint as hp

    tensors = dict(hp.load_weights(source, mode="own", progress=False))
    goal = folder / "saved.safetensors"

    def ours(fsync: str, **options: bool) -> Callable[[], None]:
        def save() -> None:
            os.environ["HARDPOINT_FSYNC"] = fsync
            hp.save_weights(tensors, goal, progress=False, **options)

        return save

    def synced() -> None:
        safetensors.torch.save_file(tensors, goal)
        with goal.open("rb") as file:
            os.fsync(file.fileno())

    def in_background() -> None:
        os.environ["HARDPOINT_FSYNC"] = "1"
        saver.save(tensors, goal)

    saver = hp.save_in_background()
    writers: dict[str, Callable[[], object]] = {
        "hardpoint": ours("1"),
        "hardpoint, no fsync": ours("0"),
        "hardpoint, checksum": ours("1", checksum=True),
        "save_file": lambda: safetensors.torch.save_file(tensors, goal),
        "save_file, then fsync": synced,
        "torch.save": lambda: torch.save(tensors, goal),
        "hardpoint in background, the step": in_background,
        "memcpy": lambda: {name: tensor.clone() for name, tensor in tensors.items()},
    }
    in_background()  # its buffer is made once
    saver.wait()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in writers}
    for number in range(rounds):
        for name in list(writers)[:: 1 if number % 2 else -1]:
            goal.unlink(missing_ok=True)
            os.sync()
            back(2 * GIB)
            cpu = time.process_time()
            seconds = timed(writers[name])
            times[name].append((seconds, time.process_time() - cpu))
            saver.wait()
    saver.close()
    best = {name: min(found)[0] for name, found in times.items()}
    rows = [
        [
            name,
            f"{best[name]:.3f}",
            f"{statistics.median(seconds for seconds, _ in found):.3f}",
            f"{min(found)[1]:.2f}",
            ratio(best[name], best["hardpoint"]),
        ]
        for name, found in times.items()
    ]
    page.add(
        "## save\n\nFrom private memory to a new file. The plain save is durable: file and directory are synced."
    )
    page.add(table(["writer", "best s", "median s", "CPU s", "of ours"], rows))
    page.add(
        "\n".join(
            f"- {'PASS' if best[name] <= goal_ * best[peer] else 'FAIL'}: {name} takes"
            f" {ratio(best[name], best[peer])} the time of {peer} (goal: at most {goal_:.2f}x)"
            for name, peer, goal_ in SAVING
        )
    )
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the page to this Markdown file")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement")
    parser.add_argument("--gib", type=float, default=4.0, help="size of the checkpoint")
    parser.add_argument("--folder", type=Path, help="where the files go (kept, and used again)")
    parser.add_argument(
        "--only", action="append", help="these scenarios only; the page's others stay"
    )
    given = parser.parse_args()
    pictures = given.output.parent if given.output else None
    page = Page("Weights")
    page.add((__doc__ or "").strip())
    with tempfile.TemporaryDirectory(prefix="hardpoint-bench-") as scratch:
        folder = given.folder or Path(scratch)
        sets = {}
        for name, shards in (("one file", 1), ("4 shards", 4)):
            home = folder / name.replace(" ", "-")
            files = sorted(home.glob("model*.safetensors"))
            sets[name] = files or _weights_data.make(home, given.gib, shards)
        nbytes = sum(file.stat().st_size for file in sets["one file"])
        page.add(f"{nbytes / GIB:.2f} GiB.")
        wanted = given.only or [*SCENARIOS, "save"]
        for scenario in [name for name in SCENARIOS if name in wanted]:
            words, peers = SCENARIOS[scenario]
            page.add(f"## {scenario}\n\n{words}")
            if scenario == "device" and (reason := _weights_device.missing()):
                page.add(f"Not measured: {reason}.")
                continue
            cases = [f"{scenario}: {name}" for name in ("hardpoint", *(peer for peer, _ in peers))]
            lazy = scenario in LAZY
            # What is mapped needs no memory of its own; and what was just given back would be
            # taken from the guest by its host meanwhile.
            backs = not lazy and scenario != "device"
            settings = [Setting("one file", backed=backs), Setting("4 shards", backed=backs)]
            if scenario in ("own", "device"):
                settings.append(Setting("one file", cold=True, backed=backs))
            if scenario == "own":
                settings.append(Setting("one file"))
            if scenario == "into":
                settings = settings[:1]  # load_model knows no shards
            for setting in settings:
                name, cold = setting.name, setting.cold
                found = measure(
                    cases,
                    sets[name],
                    given.rounds * (3 if lazy else 1),
                    cold=cold,
                    backed=nbytes + GIB // 4 if setting.backed else 0,
                )
                unready = cold or (backs and not setting.backed)
                rows, verdicts = rows_of(scenario, found, unready=unready)
                said = ", memory that nobody has used" if backs and not setting.backed else ""
                page.add(f"### {name}, {'cold' if cold else 'warm'} cache{said}")
                header = [
                    "loader",
                    "handles ms",
                    "best s",
                    "median s",
                    "CPU s",
                    "1000 faults",
                    "peak MiB",
                    "of ours",
                ]
                page.add(table(header, rows))
                if scenario == "device":
                    verdicts.append(_weights_device.speeds(found))
                page.add("\n".join(verdicts))
                if not lazy and scenario != "directory" and setting.backed == backs:
                    ours = min(found[f"{scenario}: hardpoint"], key=lambda r: r["handles"])
                    page.add(limits_of(scenario, sets[name], ours, cold=cold))
                if setting is settings[0]:
                    times = {
                        case.partition(": ")[2]: min(
                            r["handles"] * 1e3 if lazy else total(r) for r in results
                        )
                        for case, results in found.items()
                    }
                    page.add(
                        plot(scenario, times, "ms to the last handle" if lazy else "s", pictures)
                    )
        if "save" in wanted:
            best = saving(page, sets["one file"][0], folder, given.rounds)
            page.add(plot("save", best, "s", pictures))
    if given.only:
        page.keep_others(given.output)
    page.finish(given.output, __file__)


if __name__ == "__main__":
    main()
