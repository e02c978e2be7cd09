"""A child's end of the line: a job and then commands on stdin, a line of JSON for each answer.

What a model or a runtime prints cannot disturb the exchange: answers go through a descriptor of
their own. When the parent is gone, so is the child, whatever it is doing.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Line:
    """The line to the parent.

    :param answers: the descriptor to answer on.
    """

    def __init__(self, answers: int) -> None:
        os.set_inheritable(answers, False)
        go_first()
        self._replies = os.fdopen(answers, "wb")
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def say(self, event: str, **data: object) -> None:
        """Answer with one line."""
        self._replies.write(json.dumps({"event": event, **data}).encode() + b"\n")
        self._replies.flush()

    def commands(self) -> Iterator[dict[str, Any]]:
        """What the parent asks, one after another, until it asks to leave."""
        while (command := self._commands.get()).get("do") != "leave":
            yield command

    def next(self) -> dict[str, Any]:
        """The next line from the parent."""
        return self._commands.get()

    def _listen(self) -> None:
        for line in sys.stdin.buffer:
            command = json.loads(line)
            self._commands.put(command)
            if command.get("do") == "leave":
                return
        os.killpg(0, signal.SIGKILL)  # compilers that were started here, too


def go_first() -> None:
    """Where memory runs out faster than the parent looks, the kernel ends this process and not the
    user's (Linux: proc(5), ``oom_score_adj``; what it starts inherits that).
    """
    score = Path("/proc/self/oom_score_adj")
    if score.exists():
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            score.write_text("1000")


def pin(threads: int, processors: list[int]) -> None:
    """Compute with so many threads, and on these processors where the system can be told so.

    Before any runtime is imported: most size their thread pools when they are.
    """
    if processors and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors)
    import torch

    torch.set_num_threads(threads)
