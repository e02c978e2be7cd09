"""Ask a fresh process something about the provider under test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import Any
from weakref import WeakKeyDictionary

from hardpoint.testing.check import CheckFailed, fail
from hardpoint.testing.process import answer_of, run_python
from hardpoint.testing.subject import Subject

# The script is compiled, not imported: its package would bring the kit, and pytest, with it.
_RUN = """
scope = {"__name__": "inside", "__file__": sys.argv[1]}
with open(sys.argv[1], "rb") as file:
    exec(compile(file.read(), sys.argv[1], "exec"), scope)
try:
    value = {"value": scope["main"](*sys.argv[2:])}
except BaseException as error:
    value = {"raised": f"{type(error).__name__}: {error}"}
answer(value)
"""

_ANSWERS: WeakKeyDictionary[Subject, dict[tuple[str, ...], Any]] = WeakKeyDictionary()


def ask(
    subject: Subject,
    script: str,
    *more: str,
    what: str,
    timeout: float = 120.0,
    environment: Mapping[str, str] | None = None,
) -> tuple[Any, str]:
    """What ``main(kind, name, config as JSON, *more)`` of ``inside/<script>.py`` answers in a
    process of its own; and that process's stderr. The check fails where it gives none.

    :param what: what is done there, for the message.
    """
    config = json.dumps(dict(subject.settings.config), default=str)
    with as_file(files("hardpoint.testing.every.inside") / f"{script}.py") as path:
        arguments = (str(path), subject.kind, subject.name, config, *more)
        done = run_python(_RUN, *arguments, timeout=timeout, environment=environment)
    answer = answer_of(done, what)
    if "raised" in answer:
        fail(f"{what}: {answer['raised']}")
    return answer["value"], done.err


def ask_once(subject: Subject, script: str, *more: str, what: str) -> Any:
    """As :func:`ask`; checks that look at the same answer share one process, or its failure."""
    known = _ANSWERS.setdefault(subject, {})
    key = (script, *more)
    if key not in known:
        try:
            known[key] = ask(subject, script, *more, what=what)[0]
        except CheckFailed as failure:
            known[key] = failure
    if isinstance(known[key], CheckFailed):
        fail(str(known[key]))
    return known[key]
