"""Run a piece of Python in a fresh interpreter: what a check cannot do to its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardpoint.processes import kill_tree, signal_name
from hardpoint.testing.check import fail

# Python puts the current folder first on sys.path, where a module can stand in for a real one.
# Instead it gets this process's folders, made absolute: it stands in another one.
_START = "import sys; sys.path[:] = sys.argv.pop(1).split('\\n')\n"


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that ended.

    :param code: its exit status, or minus the number of the signal that killed it; ``None``: it
        did not end in time and was killed.
    :param answer: what it wrote to the file ``ANSWER``, parsed; ``None`` where it wrote none.
    """

    code: int | None
    out: str
    err: str
    answer: Any = None

    @property
    def ending(self) -> str:
        """How it ended, in words, with the last lines it wrote to stderr."""
        if self.code is None:
            how = "it did not end in time"
        elif self.code < 0:
            how = f"killed by {signal_name(-self.code)}"
        else:
            how = f"exit status {self.code}"
        return "; ".join([how, *self.err.strip().splitlines()[-6:]])


def run_python(
    source: str,
    *arguments: str,
    timeout: float = 120.0,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run ``source`` in a process of its own, in an empty folder, and wait for its end.

    The source finds ``arguments`` in ``sys.argv[1:]`` and a function ``answer(value)``, which
    hands JSON-serializable data back. The process and all it started are killed at the end.

    :param timeout: seconds.
    :param environment: variables set on top of this process's.
    """
    with tempfile.TemporaryDirectory(prefix="hardpoint-check-") as folder:
        reply = Path(folder, "answer.json")
        prologue = (
            f"def answer(value, _path={str(reply)!r}):\n"
            "    import json\n"
            "    with open(_path + '.part', 'w') as file: json.dump(value, file, default=str)\n"
            "    import os; os.replace(_path + '.part', _path)\n"
        )
        work = Path(folder, "work")
        work.mkdir()
        child = subprocess.Popen(
            [sys.executable, "-c", _START + prologue + source, module_path(), *arguments],
            cwd=work,
            env={**os.environ, "PYTHONSAFEPATH": "1", **(environment or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        code: int | None
        try:
            out, err = child.communicate(timeout=timeout)
            code = child.returncode
        except subprocess.TimeoutExpired:
            kill_group(child)
            out, err = child.communicate()
            code = None
        finally:
            kill_group(child)
        value = json.loads(reply.read_text()) if reply.exists() else None
        return Finished(code, out.decode(errors="replace"), err.decode(errors="replace"), value)


def module_path() -> str:
    """This process's ``sys.path``, each folder absolute, a line each: for a child's arguments."""
    return "\n".join(str(Path(folder).absolute()) for folder in sys.path)


def answer_of(done: Finished, what: str) -> Any:
    """Its answer; the check fails where the process ended otherwise.

    :param what: what it was to do, for the message.
    """
    if done.code != 0 or done.answer is None:
        fail(f"{what}: the process ended without an answer: {done.ending}")
    return done.answer


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its own group, and all that it started; wait for it."""
    kill_tree(child.pid)
    child.wait()
