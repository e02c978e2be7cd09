"""Open a provider, spawn a process with multiprocessing, and use the provider there too."""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

from hardpoint import Kind, Registry
from hardpoint.testing.every.inside.use import load_and_open, outcome

_LIMIT_S = 90.0


def main(kind: Kind, name: str, config: str) -> dict[str, Any]:
    """How it went in the child; ``hung`` or ``died`` where that gave no answer."""
    # By its full name: this script is compiled by itself, and the child must import the function.
    from hardpoint.testing.every.inside.spawn import work

    kept = load_and_open(Registry(), kind, name, json.loads(config))
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(sender, kind, name, config))
    child.start()
    sender.close()
    try:
        if not receiver.poll(_LIMIT_S):
            return {"how": "hung", "words": f"no answer within {_LIMIT_S:.0f} s"}
        found: dict[str, str] = receiver.recv()
    except EOFError:
        child.join()
        return {"how": "died", "words": f"exit code {child.exitcode}"}
    finally:
        child.kill()
        child.join()
        del kept
    return found


def work(sender: Connection, kind: Kind, name: str, config: str) -> None:
    """In the child."""
    sender.send(outcome(Registry(), kind, name, json.loads(config)))
