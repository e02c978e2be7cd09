"""Python's garbage collector, kept from walking all that PyTorch has made while somebody waits."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Full collections are put off by a threshold that no load reaches; young ones go on.
_NEVER = 1 << 30


class _PutOff:
    """How many want it now, and the thresholds that hold again when nobody does."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.before = gc.get_threshold()


_state = _PutOff()


@contextmanager
def young_only() -> Iterator[None]:
    """No full collection within, in any thread.

    Importing PyTorch leaves one due, of 80 ms; a load of 300 ms is what would set it off. It comes
    with the collector's next turn after that.
    """
    with _state.lock:
        if _state.count == 0:
            _state.before = gc.get_threshold()
            gc.set_threshold(*_state.before[:2], _NEVER)
        _state.count += 1
    try:
        yield
    finally:
        with _state.lock:
            _leave(_state.count - 1)


def _leave(remaining: int) -> None:
    if remaining == 0:
        gc.set_threshold(*_state.before)
    _state.count = max(remaining, 0)  # one that forked within leaves there a second time


def _in_child() -> None:
    """A forked child has none of the threads that are within."""
    _state.lock = threading.Lock()
    if _state.count:
        _leave(0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
