"""Programs and commands in processes that are forked from one in which PyTorch is imported.

To import it costs each process two seconds, more than most examples themselves. What is forked is a
process like any other, with its own directory, environment, arguments and output.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from types import ModuleType

# Nothing that starts threads, which a fork would lose, and nothing of ours: it is under test.
PRELOADED = ["torch"]

# Of the program that runs in this process: where it writes.
_OUTPUTS: list[Path] = []


def run_program(
    program: Path,
    *,
    cwd: Path,
    env: Mapping[str, str],
    path: Sequence[str],
    timeout: float,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """``python program``, with what it wrote.

    :param env: the whole of it. :param path: ``sys.path`` after the program's own folder.
    :param timeout: seconds, after which it is killed, with exit status -9.
    :param fresh: in a new interpreter, which has imported nothing yet.
    """
    out, err = cwd / "stdout.txt", cwd / "stderr.txt"
    context = multiprocessing.get_context("spawn" if fresh else "forkserver")
    code = _wait(context, _program, (program, cwd, dict(env), list(path), out, err), timeout)
    return subprocess.CompletedProcess([str(program)], code, out.read_text(), err.read_text())


def hardpoint(*words: str) -> None:
    """``hardpoint words``; programs that :func:`run_program` runs have it as ``_hardpoint``.

    :raises CalledProcessError: it ended with another exit status than 0.
    """
    sys.stdout.flush()
    context = multiprocessing.get_context("forkserver")
    told = (words, Path.cwd(), dict(os.environ), sys.path[1:], *_OUTPUTS)
    code = _wait(context, _command, told, None)
    if code:
        raise subprocess.CalledProcessError(code, ["hardpoint", *words])


def _wait(
    context: ForkServerContext | SpawnContext,
    target: Callable[..., None],
    arguments: tuple[object, ...],
    timeout: float | None,
) -> int:
    # Here, for every process that starts others: in Python 3.11 a forked one cannot reach the server
    # that it came from, and has one of its own.
    multiprocessing.set_forkserver_preload(PRELOADED)
    process = context.Process(target=target, args=arguments)
    # A child would first run its parent's program once more, to have what that defines.
    program, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    sys.path.append(str(Path(__file__).parent))  # it imports this module before it is told a path
    try:
        process.start()
    finally:
        sys.path.pop()
        sys.modules["__main__"] = program
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
    code = process.exitcode
    assert code is not None
    return code


def _program(
    program: Path, cwd: Path, env: Mapping[str, str], path: Sequence[str], out: Path, err: Path
) -> None:
    def body() -> None:
        runpy.run_path(str(program), {"_hardpoint": hardpoint}, run_name="__main__")

    _as_told(body, [str(program)], cwd, env, [str(program.parent), *path], out, err)


def _command(
    words: Sequence[str], cwd: Path, env: Mapping[str, str], path: Sequence[str], out: Path, err: Path
) -> None:  # fmt: skip
    def body() -> None:
        runpy.run_module("hardpoint.cli", run_name="__main__", alter_sys=True)

    _as_told(body, ["hardpoint", *words], cwd, env, [str(cwd), *path], out, err)


def _as_told(
    body: Callable[[], None],
    argv: list[str],
    cwd: Path,
    env: Mapping[str, str],
    path: list[str],
    out: Path,
    err: Path,
) -> None:
    """Run ``body`` as the interpreter would have started it; its exit is this process' exit."""
    for number, file in ((1, out), (2, err)):
        with file.open("a") as opened:
            os.dup2(opened.fileno(), number)
    _OUTPUTS[:] = [out, err]
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv, sys.path = argv, path
    try:
        body()
    finally:
        # multiprocessing leaves by os._exit, which skips them.
        atexit._run_exitfuncs()
