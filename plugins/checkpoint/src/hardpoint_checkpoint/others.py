"""What other scanners say of a pickle: shown beside our own decision, and deciding nothing.

Each is asked in a process of its own, and not for ever: a kilobyte of lists within lists keeps
fickling 0.1.12 busy until it is stopped. An archive may hold thousands of those, so that the whole
of a scan has one budget.
"""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec

from hardpoint.storage.refusal import show

# fickling takes five seconds for a megabyte.
_MOST = 1 << 20
_SECONDS = 10
# Of one scan: pickles, and seconds.
_MOST_PICKLES = 16
_ALL_SECONDS = 30
# Nothing from the folder that is being scanned is imported.
_PROGRAM = (
    "import sys; sys.path.remove('') if '' in sys.path else None;"
    " from hardpoint_checkpoint.others import main; main(sys.argv[1])"
)


class Others:
    """The scanners that are installed, asked about the pickles of one scan while its budget lasts.

    They run nothing of it either.
    """

    def __init__(self) -> None:
        self._tools = {
            name: f"{name} {version(name)}" for name in TOOLS if find_spec(name) is not None
        }
        self._pickles = 0
        self._until = time.monotonic() + _ALL_SECONDS
        self._told = False

    def verdicts(self, raw: bytes) -> dict[str, str]:
        """By name and version of each; that the budget is spent is told once, then nothing."""
        if self._told:
            return {}
        self._pickles += 1
        said = {}
        for name, tool in self._tools.items():
            seconds = min(_SECONDS, self._until - time.monotonic())
            if self._pickles > _MOST_PICKLES:
                verdict, self._told = "not asked: too many pickles", True
            elif seconds <= 0:
                verdict, self._told = "not asked: time is up", True
            elif len(raw) > _MOST:
                verdict = f"not asked: more than {_MOST} bytes would take too long"
            else:
                verdict = _in_a_process(name, raw, seconds)
            said[tool] = verdict
        return said


def _in_a_process(name: str, raw: bytes, seconds: float) -> str:
    command = [sys.executable, "-c", _PROGRAM, name]
    try:
        done = subprocess.run(command, input=raw, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"nothing: it was stopped after {seconds:.0f} seconds"
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
