"""What other scanners say of a pickle: shown beside our own decision, and deciding nothing.

Each is asked in a process of its own, and not for ever: a kilobyte of lists within lists keeps
fickling 0.1.12 busy until it is stopped.
"""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec

from hardpoint.storage.refusal import show

# fickling takes five seconds for a megabyte.
_MOST = 1 << 20
_SECONDS = 10
# Nothing from the folder that is being scanned is imported.
_PROGRAM = (
    "import sys; sys.path.remove('') if '' in sys.path else None;"
    " from hardpoint_checkpoint.others import main; main(sys.argv[1])"
)


def verdicts(raw: bytes) -> dict[str, str]:
    """By name and version of each scanner that is installed. They run nothing of it either."""
    said = {}
    for name in TOOLS:
        if find_spec(name) is None:
            continue
        if len(raw) > _MOST:
            verdict = f"not asked: more than {_MOST} bytes would take too long"
        else:
            verdict = _in_a_process(name, raw)
        said[f"{name} {version(name)}"] = verdict
    return said


def _in_a_process(name: str, raw: bytes) -> str:
    command = [sys.executable, "-c", _PROGRAM, name]
    try:
        done = subprocess.run(
            command, input=raw, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"nothing: it was stopped after {_SECONDS} seconds"
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"failed ({show(last)[1:-1]})"
    return done.stdout.decode("utf-8", "replace").strip()


def main(name: str) -> None:
    """The other process: a pickle on stdin, the verdict on stdout."""
    raw = sys.stdin.buffer.read()
    # They print what they notice.
    with redirect_stdout(io.StringIO()):
        verdict = TOOLS[name](raw)
    sys.stdout.write(verdict)


def _fickling(raw: bytes) -> str:
    pickled = importlib.import_module("fickling.fickle").StackedPickle.load(io.BytesIO(raw))
    analysis = importlib.import_module("fickling.analysis")
    worst = max((analysis.check_safety(each).severity for each in pickled), default=None)
    return "nothing to judge" if worst is None else str(worst.name).lower().replace("_", " ")


def _picklescan(raw: bytes) -> str:
    scanner = importlib.import_module("picklescan.scanner")
    result = scanner.scan_pickle_bytes(io.BytesIO(raw), "pickle")
    found = sorted(f"{each.module}.{each.name}" for each in result.globals
                   if each.safety.value == "dangerous")  # fmt: skip
    return f"{result.issues_count} issue(s)" + (f": {show(', '.join(found))}" if found else "")


TOOLS: dict[str, Callable[[bytes], str]] = {"fickling": _fickling, "picklescan": _picklescan}
