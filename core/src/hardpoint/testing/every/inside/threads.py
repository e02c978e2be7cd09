"""Load, probe, open and use a provider from many threads at once."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from hardpoint import Event, Kind, Registry
from hardpoint.testing.every.inside.use import load_and_open, prepare, use

THREADS = 8
_LIMIT_S = 40.0  # for each of two rounds; who asks waits 120 s


def main(kind: Kind, name: str, config: str) -> dict[str, Any]:
    """What went wrong in the threads, and what they opened."""
    given = json.loads(config)
    registry = Registry()
    registry.record(kind, name)
    loads: list[Event] = []
    registry.observe(lambda event: loads.append(event) if event.kind == "loaded" else None)
    sys.setswitchinterval(1e-5)
    opened: dict[int, Any] = {}

    def open_it(number: int) -> None:
        opened[number] = load_and_open(registry, kind, name, given)

    problems = _at_once(open_it)
    providers = [provider for provider in opened.values() if provider is not None]
    if not problems and providers:
        prepared = prepare(kind)
        problems = _at_once(lambda number: use(opened[number], prepared))
    return {
        "problems": problems,
        "types": sorted({type(provider).__qualname__ for provider in opened.values()}),
        "loads": len(loads),
    }


def _at_once(work: Callable[[int], None]) -> list[str]:
    """Run ``work`` in all threads, begun together; what they raised."""
    barrier = threading.Barrier(THREADS)
    problems: list[str] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:
            problems.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _LIMIT_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    stuck = sum(thread.is_alive() for thread in threads)
    return problems + ([f"{stuck} thread(s) were not done after {_LIMIT_S:.0f} s"] if stuck else [])
