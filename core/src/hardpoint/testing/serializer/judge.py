"""Hold a serializer to what must become of damaged files, in processes that it may crash.

Many files a process, with a journal: a crash, a hang or the memory limit costs one file.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import Serializer
from hardpoint.processes import signal_name
from hardpoint.testing.journal import Journal, read
from hardpoint.testing.serializer.apart import apart
from hardpoint.testing.serializer.bench import Bench
from hardpoint.testing.serializer.damage import Case
from hardpoint.testing.serializer.samples import raw_bytes, word

_SECONDS = 6  # wall time on one small file
_MEMORY = 2 << 30  # bytes on top of what the process has; the files are smaller by far
_LONGEST_MESSAGE = 4000
_ENOUGH = 5  # findings that are told; then it stops

# What is wrong, or ""; and whether the file was taken for good.
Answer = tuple[str, bool]
Verdict = Callable[[Serializer, Path, str], Answer]


def hold(at: Bench, what: str, cases: Iterable[Case], verdict: Verdict) -> dict[str, Any]:
    """Write each case to a file, and judge them.

    :returns: ``findings`` (texts) and figures: ``files``, ``refused``, ``accepted``.
    """
    folder = at.folder / "cases"
    folder.mkdir()
    listed = []
    for i, case in enumerate(cases):
        path = folder / f"{i}{at.suffix}"
        path.write_bytes(case.data)
        listed.append([case.what, str(path), case.rule])
    return hold_paths(at, what, listed, verdict)


def hold_paths(at: Bench, what: str, listed: list[list[str]], verdict: Verdict) -> dict[str, Any]:
    """As :func:`hold`, for ``[what, path, rule]`` of paths that are there."""
    (at.folder / "cases.json").write_text(json.dumps(listed))
    return dict(apart(_judge_all, at, what, verdict=verdict.__name__))


def opens(serializer: Serializer, path: Path, rule: str) -> Answer:
    """Open and read all of it."""
    try:
        with serializer.open(path) as reader:
            _ = dict(reader.metadata)
            names = list(reader)
            for name in names:
                info, tensor = reader[name], reader.tensor(name)
                if (info.dtype, info.shape) != (word(tensor.dtype), tuple(tensor.shape)):
                    said = f"{info.dtype}{list(info.shape)}"
                    given = f"{word(tensor.dtype)}{list(tensor.shape)}"
                    return f"announces {name!r:.60} as {said}, and gives {given}", True
                if tensor.dim():
                    reader.slice(name, slice(0, 1))
                if tensor.numel():
                    raw_bytes(tensor).max()
    except WeightsError as error:
        return _bad_message(str(error)), False
    except MemoryError:
        wrong = "asks for more memory than the file can justify: it believes a number in it"
        return wrong, False
    return (f"opens, as a file of {names[:3]!r:.200}" if rule == "refused" else ""), True


def recognizes(serializer: Serializer, path: Path, rule: str) -> Answer:
    """Ask whether it is of the format."""
    answer: object = serializer.recognizes(path)
    if not isinstance(answer, bool):
        return f"is answered with {answer!r}, not with True or False", False
    wrong = "is taken for a file of the format" if answer and rule == "refused" else ""
    return wrong, answer


_VERDICTS: Mapping[str, Verdict] = {"opens": opens, "recognizes": recognizes}


def _bad_message(text: str) -> str:
    """What is wrong with a message that may quote a hostile file, or ``""``."""
    if len(text) > _LONGEST_MESSAGE:
        return f"is refused in a message of {len(text)} characters: cut what it quotes"
    control = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs")} - set("\n\t")
    if control:
        return f"is refused in a message with the raw characters {sorted(control)!r}: escape them"
    return ""


def _judge_all(serializer: Serializer, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    cases = json.loads((folder / "cases.json").read_text())
    journal = folder / "journal"
    findings: list[str] = []
    counts = {"files": len(cases), "refused": 0, "accepted": 0}
    next_case, offset = 0, 0
    while next_case < len(cases) and len(findings) < _ENOUGH:
        child = os.fork()
        if child == 0:
            _work(serializer, cases, next_case, _VERDICTS[facts["verdict"]], Journal(journal))
        _, status = os.waitpid(child, 0)
        begun = next_case - 1
        for at, line in read(journal, offset):
            offset = at
            if line["event"] == "begin":
                begun = line["case"]
            elif line["wrong"]:
                findings.append(f"{cases[line['case']][0]}: {line['wrong']}")
            else:
                counts["accepted" if line["accepted"] else "refused"] += 1
        if os.waitstatus_to_exitcode(status) == 0:
            break
        findings.append(f"{cases[begun][0]}: {_death(status)}")
        if _hung(status):
            break  # the next one would take as long
        next_case = begun + 1
    return {"findings": findings, **counts}


def _hung(status: int) -> bool:
    return os.waitstatus_to_exitcode(status) == -signal.SIGALRM


def _death(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if _hung(status):
        return f"hangs: no answer in {_SECONDS} s"
    if code < 0:
        return f"kills the process by {signal_name(-code)}"
    return f"ends the process with status {code}"


def _work(
    serializer: Serializer, cases: list[list[str]], first: int, verdict: Verdict, journal: Journal
) -> None:
    """The child: judge case after case; never returns."""
    status = 1
    try:
        _limit_memory()
        found = 0
        for i in range(first, len(cases)):
            _, path, rule = cases[i]
            journal.write("begin", case=i)
            signal.setitimer(signal.ITIMER_REAL, _SECONDS)
            wrong, accepted = _judged(verdict, serializer, Path(path), rule)
            signal.setitimer(signal.ITIMER_REAL, 0)
            journal.write("end", case=i, wrong=wrong, accepted=accepted)
            found += bool(wrong)
            if found >= _ENOUGH:
                break
        status = 0
    finally:
        os._exit(status)


def _judged(verdict: Verdict, serializer: Serializer, path: Path, rule: str) -> Answer:
    try:
        return verdict(serializer, path, rule)
    except BaseException as error:
        return f"raises {type(error).__name__}: {str(error)[:200]!r}, no WeightsError", False


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except FileNotFoundError:  # not Linux: the limit counts other things there
        return
    limit = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
