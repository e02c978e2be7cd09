"""Fork before and after a provider was opened, and use it in the children."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from hardpoint import Kind, Registry
from hardpoint.testing.every.inside.use import load_and_open, outcome, prepare, use

_FIRST_LIMIT_S = 90.0
_LEAST_LIMIT_S = 5.0


def main(kind: Kind, name: str, config: str) -> dict[str, Any]:
    """How it went in each child; ``hung`` or ``died`` where that gave no answer."""
    given = json.loads(config)
    registry = Registry()
    registry.record(kind, name)
    before = _in_child(lambda: outcome(registry, kind, name, given), _FIRST_LIMIT_S)
    start = time.perf_counter()
    # What the second child does, done here before: it finds the heavy modules imported, and has
    # ten times what this takes.
    kept = load_and_open(registry, kind, name, given)
    if kept is not None:
        use(kept, prepare(kind))
    limit = _LEAST_LIMIT_S + 10 * (time.perf_counter() - start)
    after = _in_child(lambda: outcome(registry, kind, name, given), limit)
    del kept
    return {"before": before, "after": after, "limit": limit}


def _in_child(work: Callable[[], dict[str, str]], limit: float) -> dict[str, str]:
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(sender, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(sender)
    answered = bool(select.select([receiver], [], [], limit)[0])
    with os.fdopen(receiver) as file:
        if not answered:
            os.kill(child, signal.SIGKILL)
        text = file.read() if answered else ""
    status = os.waitpid(child, 0)[1]
    if not answered:
        return {"how": "hung", "words": f"no answer within {limit:.0f} s"}
    if not text:
        return {"how": "died", "words": f"wait status {status}"}
    found: dict[str, str] = json.loads(text)
    return found
