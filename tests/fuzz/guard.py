"""What must never happen while a file of weights is read, seen by Python's own audit hook.

The hook cannot be taken out of a process again: only processes that fuzz install it.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# CPU time, so that a busy machine finds nothing; libFuzzer's own -timeout watches the clock.
MOST_SECONDS = 3.0
MOST_GROWTH = 256 << 20
_STATUS = Path("/proc/self/status")
_NEVER = frozenset({
    "exec", "compile", "import", "code.__new__", "function.__new__", "pickle.find_class", "ctypes.dlopen",
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn",
    "subprocess.Popen", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.putenv", "os.unsetenv", "os.kill", "signal.pthread_kill", "urllib.Request",
})  # fmt: skip
_NEVER_OF = ("socket.", "marshal.", "webbrowser.", "shutil.", "ftplib.", "http.", "smtplib.")
_LOOKS = frozenset({"open", "os.listdir", "os.scandir", "glob.glob", "os.walk"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Finding(AssertionError):
    """An invariant that an input broke.

    :param fault: in a line that is the same for the same fault.
    :param detail: of this input.
    """

    def __init__(self, fault: str, detail: str = "") -> None:
        super().__init__(f"{fault}: {detail}" if detail else fault)
        self.fault = fault


class _State:
    installed = False
    wanted = True
    folder: str | None = None
    seen: list[str]


_state = _State()
_state.seen = []


def install() -> None:
    """Begin to watch this process; once."""
    if not _state.installed:
        _state.installed = True
        sys.addaudithook(_hook)


def watching(wanted: bool) -> None:
    """Whether :func:`watched` watches: not while a process warms up."""
    _state.wanted = wanted


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Read a file of ``folder`` in here.

    :raises Finding: code was asked for, a file elsewhere opened, one written, or it took too much.
    """
    if not _state.wanted:
        yield
        return
    began, high = time.process_time(), _peak()
    _state.seen, _state.folder = [], str(folder)
    try:
        yield
    except Exception as error:
        if _state.seen:
            raise _forbidden() from error
        raise
    finally:
        _state.folder = None
    took, grown = time.process_time() - began, _peak() - high
    # Also where the parser caught what the hook raised.
    if _state.seen:
        raise _forbidden()
    # Memory first: where pages are slow to come, they are the time.
    if grown > MOST_GROWTH:
        raise Finding(f"memory grew by more than {MOST_GROWTH >> 20} MiB", f"{grown >> 20} MiB")
    if took > MOST_SECONDS:
        raise Finding(f"it took more than {MOST_SECONDS} s", f"{took:.1f} s")


def _forbidden() -> Finding:
    return Finding(f"forbidden: {_state.seen[0]}")


def _peak() -> int:
    """Greatest resident bytes of this program. ``ru_maxrss`` begins with those of its parent's."""
    if _STATUS.exists():
        line = next(x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    folder = _state.folder
    if folder is None:
        return
    if event in _LOOKS:
        # By number: it was opened before, by name.
        wrong = "" if isinstance(arguments[0], int) else _wrong(folder, arguments)
        if wrong:
            _refuse(f"{event} of {str(arguments[0])[:100]!r}: {wrong}")
    elif event in _NEVER or event.startswith(_NEVER_OF):
        _refuse(f"{event} {str(arguments)[:100]}")


def _wrong(folder: str, arguments: tuple[object, ...]) -> str:
    path = os.path.abspath(os.fsdecode(arguments[0] or "."))  # type: ignore[arg-type]  # noqa: PTH100 - resolve() looks at the disk
    if not f"{path}/".startswith(f"{folder}/"):
        return "outside the folder of the input"
    flags = arguments[2] if len(arguments) == 3 else 0
    return "for writing" if isinstance(flags, int) and flags & _WRITING else ""


def _refuse(what: str) -> None:
    _state.seen.append(what)
    raise PermissionError(f"the fuzzer forbids {what}")
