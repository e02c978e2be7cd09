"""Load, probe, open and let go of a provider, and note what that changed in its process."""

from __future__ import annotations

import gc
import json
import locale
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from hardpoint import HardpointError, Kind, ProbeRequest, Registry

OPENS = 20
# A pool that starts at its first use may add this much; what leaks adds something each time.
SLACK = 4
_WARM_UP = 3

State = dict[str, str]


def main(kind: Kind, name: str, config: str) -> dict[str, Any]:
    """Sentences about what changed, by subject; and how much is left over from many opens."""
    given = json.loads(config)
    before = {part: look() for part, look in _LOOKS.items()}
    changes: dict[str, dict[str, str]] = {part: {} for part in _LOOKS}
    registry = Registry()

    def open_it() -> object:
        try:
            return registry.open(kind, name, given)
        except HardpointError:
            if registry.probe(kind, name).available:
                raise
            return None  # what it says of that is for other checks

    registry.record(kind, name)
    kept: list[object] = []
    stages: dict[str, Callable[[], object]] = {
        "loading it": lambda: registry.load(kind, name),
        "a shallow probe": lambda: registry.probe(kind, name),
        "a deep probe": lambda: registry.probe(kind, name, ProbeRequest(deep=True)),
        "opening it": lambda: kept.append(open_it()),
        "letting go of it": lambda: _let_go(kept),
    }
    for stage, run in stages.items():
        run()
        for part, look in _LOOKS.items():
            _note(changes[part], stage, before[part], look())
    for _ in range(_WARM_UP):
        open_it()
    start = _held()
    for _ in range(OPENS):
        open_it()
    end = _held()
    return {
        "changes": {part: sorted(found.values()) for part, found in changes.items()},
        "grown": {what: end[what] - start[what] for what in end},
        "new descriptors": sorted(_descriptors() - set(_DESCRIPTORS_AT_START)),
        "opens": OPENS,
        "slack": SLACK,
    }


def _let_go(kept: list[object]) -> None:
    kept.clear()
    gc.collect()


def _note(changes: dict[str, str], stage: str, before: State, after: State) -> None:
    """Keep a sentence for each difference; one that is gone again was not left behind."""
    for key in before.keys() | after.keys():
        old, new = before.get(key, "nothing"), after.get(key, "nothing")
        if old == new:
            changes.pop(key, None)
        elif key not in changes:
            changes[key] = f"{stage} changed {key} from {_short(old)} to {_short(new)}"


def _short(value: str) -> str:
    return value if len(value) <= 120 else f"{value[:119]}…"


def _process() -> State:
    mask = os.umask(0)
    os.umask(mask)
    state = {f"os.environ[{name!r}]": repr(value) for name, value in os.environ.items()}
    numbers: set[int] = {*signal.valid_signals()}
    for number in numbers:
        state[f"the handler of {_signal(number)}"] = repr(signal.getsignal(number))
    for hook in ("excepthook", "unraisablehook", "displayhook", "breakpointhook"):
        state[f"sys.{hook}"] = _named(getattr(sys, hook))
    for stream in ("stdin", "stdout", "stderr"):
        state[f"sys.{stream}"] = repr(getattr(sys, stream))
    for handler in logging.root.handlers:
        state[f"logging's root handler {handler!r}"] = "there"
    for number, rule in enumerate(reversed(warnings.filters)):
        state[f"warnings.filters, rule {number}"] = repr(rule)
    return state | {
        "the current folder": str(Path.cwd()),
        "the umask": oct(mask),
        "sys.path": repr(sys.path),
        "sys.getrecursionlimit()": repr(sys.getrecursionlimit()),
        "sys.getswitchinterval()": repr(sys.getswitchinterval()),
        "sys.gettrace()": repr(sys.gettrace()),
        "threading.excepthook": _named(threading.excepthook),
        "gc.isenabled()": repr(gc.isenabled()),
        "logging's root level": logging.getLevelName(logging.root.level),
        "logging.disable": repr(logging.root.manager.disable),
        "the locale": locale.setlocale(locale.LC_ALL),
        "the time zone": repr(time.tzname),
        "multiprocessing's start method": repr(multiprocessing.get_start_method(allow_none=True)),
        "socket.getdefaulttimeout()": repr(socket.getdefaulttimeout()),
    }


def _signal(number: int) -> str:
    return number.name if isinstance(number, signal.Signals) else f"signal {number}"


def _torch() -> State:
    library: Any = torch  # much of it is without types
    backends = library.backends
    found = {
        "get_default_dtype()": library.get_default_dtype(),
        "get_default_device()": library.get_default_device(),
        "get_num_threads()": library.get_num_threads(),
        "get_num_interop_threads()": library.get_num_interop_threads(),
        "is_grad_enabled()": library.is_grad_enabled(),
        "is_inference_mode_enabled()": library.is_inference_mode_enabled(),
        "is_anomaly_enabled()": library.is_anomaly_enabled(),
        "is_autocast_enabled('cpu')": library.is_autocast_enabled("cpu"),
        "is_autocast_enabled('cuda')": library.is_autocast_enabled("cuda"),
        "get_float32_matmul_precision()": library.get_float32_matmul_precision(),
        "get_deterministic_debug_mode()": library.get_deterministic_debug_mode(),
        "utils.deterministic": library.utils.deterministic.fill_uninitialized_memory,
        "set_flush_denormal": bool(torch.tensor(5e-324, dtype=torch.float64).mul(1.0) == 0),
        "backends.mkldnn.enabled": backends.mkldnn.enabled,
        "backends.quantized.engine": backends.quantized.engine,
        "backends.opt_einsum.enabled": backends.opt_einsum.enabled,
        "backends.cudnn.enabled": backends.cudnn.enabled,
        "backends.cudnn.benchmark": backends.cudnn.benchmark,
        "backends.cudnn.deterministic": backends.cudnn.deterministic,
        "backends.cudnn.allow_tf32": backends.cudnn.allow_tf32,
        "backends.cuda.matmul.allow_tf32": backends.cuda.matmul.allow_tf32,
        "backends.cuda.flash_sdp_enabled()": backends.cuda.flash_sdp_enabled(),
        "backends.cuda.math_sdp_enabled()": backends.cuda.math_sdp_enabled(),
        "multiprocessing.get_sharing_strategy()": library.multiprocessing.get_sharing_strategy(),
        "set_printoptions": library._tensor_str.PRINT_OPTS,
    }
    return {f"torch.{key}": repr(value) for key, value in found.items()}


def _random() -> State:
    state = {
        "the random state of torch": sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        "the random state of Python": sha256(repr(random.getstate()).encode()).hexdigest(),
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        mixed = numpy.random.get_state(legacy=False)["state"]
        raw = repr(mixed["pos"]).encode() + mixed["key"].tobytes()
        state["the random state of numpy"] = sha256(raw).hexdigest()
    cuda: Any = torch.cuda
    if cuda.is_available() and cuda.is_initialized():
        for number in range(cuda.device_count()):
            raw = cuda.get_rng_state(number).numpy().tobytes()
            state[f"the random state of cuda:{number}"] = sha256(raw).hexdigest()
    return state


def _threads() -> State:
    return {
        f"the thread {thread.name!r} ({'daemon' if thread.daemon else 'not daemon'})": "running"
        for thread in threading.enumerate()
    }


def _files() -> State:
    return {f"{path.name} in the current folder": "a file" for path in _FOLDER.iterdir()}


def _held() -> dict[str, int]:
    """How much of what leaks the process holds."""
    gc.collect()
    held = {"threads": threading.active_count(), "file descriptors": len(_descriptors())}
    tasks = Path("/proc/self/task")
    if tasks.is_dir():
        held["native threads"] = len(list(tasks.iterdir()))
    return held


def _descriptors() -> set[str]:
    """``number -> what`` of each open descriptor, without the one that lists them."""
    folder = Path("/dev/fd")
    found = set()
    for entry in folder.iterdir() if folder.is_dir() else ():
        try:
            os.fstat(int(entry.name))
        except OSError:
            continue  # it was the one of the listing
        found.add(f"{entry.name} -> {_target(entry.name)}")
    return found


def _target(descriptor: str) -> str:
    link = Path("/proc/self/fd", descriptor)
    return str(link.readlink()) if link.is_symlink() else "?"


def _named(hook: Any) -> str:
    return f"{getattr(hook, '__module__', '')}.{getattr(hook, '__qualname__', repr(hook))}"


_FOLDER = Path.cwd()
_DESCRIPTORS_AT_START = frozenset(_descriptors())
_LOOKS: dict[str, Callable[[], State]] = {
    "process": _process,
    "torch": _torch,
    "random": _random,
    "threads": _threads,
    "files": _files,
}
