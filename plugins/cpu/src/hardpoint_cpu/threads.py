"""Option ``threads``: how many threads a call computes on, changed for that call alone.

``torch.set_num_threads`` belongs to the process. OpenMP keeps the number for each calling thread,
and so does MKL (its ``_Local`` function): these are set before a call and put back after it, so
that no other thread, and nothing that the caller does next, sees a change.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hardpoint import ConfigError, Executable
from hardpoint_cpu import forks
from hardpoint_cpu.origin import ORIGIN, PROVIDER

_LIBRARY = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}


@functools.cache
def _library() -> tuple[Any, Any, Any]:
    """OpenMP's (to set threads, to tell of binding) and MKL's, of what PyTorch itself is linked to.

    :raises ConfigError: this build of PyTorch has no OpenMP that can be reached.
    """
    path = Path(torch.__file__).parent / "lib" / _LIBRARY.get(sys.platform, "libtorch_cpu.so")
    try:
        library = ctypes.CDLL(str(path))
        openmp, bind = library.omp_set_num_threads, library.omp_get_proc_bind
    except (OSError, AttributeError) as error:
        raise ConfigError(
            "options threads and numa cannot be obeyed here",
            provider=PROVIDER,
            origin=ORIGIN,
            cause=f"PyTorch's OpenMP is out of reach: {error}",
            remedy="leave them out, and call torch.set_num_threads in your program",
        ) from error
    openmp.restype = None
    return openmp, bind, getattr(library, "MKL_Set_Num_Threads_Local", lambda _: 0)


def places_its_own() -> bool:
    """Whether OpenMP binds the threads that it starts, by what the environment said at its start.

    :raises ConfigError: it cannot be asked.
    """
    return bool(_library()[1]())  # omp_proc_bind_false is 0 (OpenMP 5.2, omp_get_proc_bind)


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """This thread's calls compute on ``threads`` threads; nobody else's do."""
    openmp, _, mkl = _library()
    before = torch.get_num_threads()  # also lets PyTorch set up this thread: later it would undo
    openmp(threads)
    own = mkl(threads)
    try:
        yield
    finally:
        mkl(own)
        openmp(before)


class Threaded(Executable):
    """An executable whose calls compute on a number of threads of their own."""

    def __init__(self, inner: Executable, threads: int) -> None:
        _library()
        self._inner, self._threads = inner, threads

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run, on that many threads."""
        if forks.state.forked is not None and forks.here():
            return forks.elsewhere(self, inputs)
        with limited(self._threads):
            return self._inner(*inputs)

    def facts(self) -> Mapping[str, object]:
        """The inner one's, with the number of threads that PyTorch tells inside of a call."""
        with limited(self._threads):
            return self._inner.facts()

    def close(self) -> None:
        """Let go of what the inner one holds."""
        self._inner.close()
