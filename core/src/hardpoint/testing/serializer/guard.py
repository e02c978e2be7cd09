"""Is anything in a file run? Watched by an audit hook, while files full of traps are opened.

https://docs.python.org/3/library/audit_events.html
"""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

import torch

from hardpoint.interfaces.serializer import Serializer
from hardpoint.testing.check import expect
from hardpoint.testing.serializer.apart import apart
from hardpoint.testing.serializer.bench import Bench, attempt
from hardpoint.testing.serializer.samples import pattern

_MODULE = "hardpoint_canary"  # there is none; looking for it is the finding
_NEVER = {
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile",
    "subprocess.Popen", "pty.spawn", "socket.connect", "code.__new__", "marshal.loads",
}  # fmt: skip
# What pickles of plain data and tensors name; anything else is a file choosing what to call.
_DATA_ONLY = ("collections", "torch")


class _Trap:
    """What a pickle calls when it is read, given as its function and arguments."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self._call


def nothing_runs(at: Bench) -> Mapping[str, Any]:
    """Open traps; the check fails where one of them went off."""
    traps = at.folder / "traps"
    traps.mkdir()
    canary = at.folder / "canary"
    good = at.specimen()
    start = good.read_bytes()[:8] if good.is_file() else b""
    for i, data in enumerate(_traps(canary, start)):
        (traps / f"{i}{at.suffix}").write_bytes(data)
    if at.info.can_save:
        for i, text in enumerate(_expressions(canary)):
            path = traps / f"saved{i}{at.suffix}"
            attempt(
                "save() of a tensor and metadata that look like code",
                at.serializer.save,
                {text: pattern(2)},
                path,
                metadata={text: text},
            )
    return apart(_watch, at, "opening files with code in them", canary=str(canary), good=str(good))


def _expressions(canary: Path) -> Iterator[str]:
    call = f"__import__('os').mkdir({str(canary)!r})"
    yield call
    yield f"[{call}]"
    yield f"{{{call}}}"
    yield f"!!python/object/apply:os.mkdir [{str(canary)!r}]"
    yield f"import {_MODULE}"
    yield f"${{{call}}}"


def _traps(canary: Path, start: bytes) -> Iterator[bytes]:
    """Files that make a directory when they are run; ``start`` is how a good file begins."""
    trap = _Trap(os.mkdir, str(canary))
    stranger = f"c{_MODULE}\nboom\n(tR.".encode()
    pickles = [pickle.dumps(trap, protocol) for protocol in (0, 2, 4)]
    pickles += [stranger, pickle.dumps({"state_dict": {"weight": trap}})]
    texts = [text.encode() for text in _expressions(canary)]
    for data in [*pickles, *texts]:
        yield data
        yield start + data
        yield len(data).to_bytes(8, "little") + data
        as_json = json.dumps({"__metadata__": {"a": data.decode("latin-1")}}).encode()
        yield len(as_json).to_bytes(8, "little") + as_json
    for payload in pickles:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.writestr("archive/data.pkl", payload)
            zipped.writestr("archive/version", "3\n")
        yield archive.getvalue()
    whole = io.BytesIO()
    torch.save({"weight": torch.ones(2), "trap": trap}, whole)
    yield whole.getvalue()


def _watch(serializer: Serializer, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Open everything twice: what is imported on first use is no finding, what runs again is."""
    paths = [Path(facts["good"]), *sorted((folder / "traps").iterdir())]
    for path in paths:
        _use(serializer, path)
    seen: list[str] = []
    watching = [""]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching[0] and (what := _finding(event, arguments)):
            seen.append(f"{watching[0]}: {what}")

    sys.addaudithook(hook)
    for path in paths:
        watching[0] = path.name
        _use(serializer, path)
    watching[0] = ""
    ran = Path(facts["canary"]).exists()
    expect(not seen, lambda: f"opening a file did what the file says: {'; '.join(seen[:3])}")
    expect(not ran, "opening a file ran code that stands in it: a trap made its directory")
    return {"traps": len(paths) - 1}


def _use(serializer: Serializer, path: Path) -> None:
    """Open and read all; whatever that raises is another check's business."""
    try:
        serializer.recognizes(path)
        with serializer.open(path) as reader:
            _ = dict(reader.metadata)
            for name in reader:
                reader.tensor(name)
    except Exception:
        return  # refused, or broken


def _finding(event: str, arguments: tuple[Any, ...]) -> str:
    """Why an audit event is a finding, or ``""``."""
    if event in _NEVER:
        return f"{event}{arguments!r:.120}"
    if event == "exec":
        code = arguments[0]
        name = code.co_filename if isinstance(code, CodeType) else "text"
        return f"exec or eval of code from {name!r}"
    if event == "pickle.find_class" and str(arguments[0]).split(".")[0] not in _DATA_ONLY:
        return f"unpickling looked up {arguments[0]}.{arguments[1]}"
    if event == "import" and str(arguments[0]).split(".")[0] == _MODULE:
        return f"imported {_MODULE}, which only the file names"
    return ""
