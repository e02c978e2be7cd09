"""Work that none of the caller's modes reaches."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def in_thread_of_its_own(work: Callable[[], Result]) -> Result:
    """What ``work`` gives or raises, from a thread where PyTorch's modes are as at the start.

    A call may come under inference mode, autocast or another default device; what is compiled
    during it must not depend on that, and outlives it. Context variables (a tracer's span) stay.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            results.append(context.run(work))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="hardpoint-fallback", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
