"""Python's garbage collector, kept from walking all that PyTorch has made while one waits."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def young_only() -> Iterator[None]:
    """Collect nothing within, and afterwards only what was made lately.

    Importing PyTorch leaves a full collection due, of 80 ms; a load is 300 ms and makes next to no
    garbage. The full one comes with the collector's next turn, outside of what somebody waits for.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.collect(1)
            gc.enable()
