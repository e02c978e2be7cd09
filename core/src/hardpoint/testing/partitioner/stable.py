"""The same question has the same answer: now, again, and in another process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from hardpoint.interfaces.partitioner import Partitioner
from hardpoint.registry.registry import Registry
from hardpoint.testing.check import check, expect
from hardpoint.testing.partitioner.asking import ask, first_objective, opened
from hardpoint.testing.partitioner.programs import graph, layers
from hardpoint.testing.partitioner.targets import drawn
from hardpoint.testing.process import answer_of, run_python
from hardpoint.testing.subject import Subject

Answers = Mapping[str, Mapping[str, str]]

_SOURCE = """
import json
from hardpoint.testing.partitioner.stable import answers_apart
answer(answers_apart(json.loads(sys.argv[1])))
"""
_SETS = 6  # of targets


class Stable:
    """Determinism."""

    @check("assigns")
    def test_the_same_question_has_the_same_answer(self, subject: Subject) -> None:
        """Asked again, after other questions, and of another instance, the answer is the same."""
        objective = first_objective(subject)
        partitioner = opened(subject)
        first = _answers(partitioner, objective)
        for who, asked in {"asked again": partitioner, "another instance": opened(subject)}.items():
            _expect_same(first, _answers(asked, objective, backwards=True), who)

    @check("assigns")
    def test_another_process_gives_the_same_answer(self, subject: Subject) -> None:
        """In another process, where sets and hashes have another order, the answer is the same."""
        here = _answers(opened(subject), first_objective(subject))
        order = {
            "name": subject.name,
            "config": dict(subject.settings.config),
            "objective": first_objective(subject),
        }
        seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
        done = run_python(_SOURCE, json.dumps(order), environment={"PYTHONHASHSEED": seed})
        there = answer_of(done, "partitioning in another process")
        _expect_same(here, there, "in another process (PYTHONHASHSEED differs)")


def answers_apart(order: Mapping[str, Any]) -> Answers:
    """The same questions, in the process that this is called in."""
    partitioner = Registry().open("partitioner", order["name"], order["config"])
    return _answers(partitioner, order["objective"])


def _answers(
    partitioner: Partitioner, objective: Any, *, backwards: bool = False
) -> dict[str, Mapping[str, str]]:
    """The answers to all questions, the last one first where ``backwards``."""
    found: dict[str, Mapping[str, str]] = {}
    questions = [(program, seed) for program in (layers(), graph(0)) for seed in range(_SETS)]
    for program, seed in reversed(questions) if backwards else questions:
        targets = drawn(program.exported, seed, count=4)
        answer = ask(partitioner, program, targets, objective)
        key = f"{program.name}, targets {seed}"
        found[key] = {name: str(t) for name, t in answer.targets.items()}
        found[f"{key}, reasons"] = dict(answer.reasons)
    return found


def _expect_same(first: Answers, second: Answers, who: str) -> None:
    for key, answer in first.items():
        other = second[key]
        differs = sorted(n for n in {*answer, *other} if answer.get(n) != other.get(n))
        expect(
            not differs,
            lambda k=key, d=differs, a=answer, o=other: (  # type: ignore[misc]
                f"{k}: {who}, it answers otherwise: {d[0]} was {a.get(d[0])!r}, now {o.get(d[0])!r}"
            ),
        )
