"""Every answer is a valid one, with reasons that mean something, and the question is left as is."""

from __future__ import annotations

import copy
from typing import Any

from hardpoint.planning.graph import compute_nodes
from hardpoint.testing.check import check, expect
from hardpoint.testing.partitioner.asking import (
    ask,
    fingerprint,
    first_objective,
    must_refuse,
    opened,
    question,
)
from hardpoint.testing.partitioner.programs import graph, layers, programs
from hardpoint.testing.partitioner.targets import drawn, target
from hardpoint.testing.subject import Subject

_SETS = 5  # sets of targets for each program


class Assigns:
    """The answer itself."""

    @check("assigns")
    def test_every_assignment_is_valid(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Every compute node once, on a target that supports it: models and random graphs."""
        partitioner, objective = opened(subject), first_objective(subject)
        seen = asked = nodes = 0
        for program in programs():
            seen += 1
            for seed in range(_SETS):
                targets = drawn(program.exported, seed, count=2 + seed % 3)
                answer = ask(partitioner, program, targets, objective)
                asked, nodes = asked + 1, nodes + len(answer.targets)
            ask(partitioner, program, [target(program.exported, "cpu")], objective)
        figures.update(programs=seen, questions=asked, nodes=nodes)

    @check("assigns")
    def test_reasons_are_words_about_its_nodes(self, subject: Subject) -> None:
        """Assignment.reasons speaks of nodes that it assigned, in words."""
        partitioner, objective = opened(subject), first_objective(subject)
        for program in programs():
            targets = drawn(program.exported, 0)
            answer = ask(partitioner, program, targets, objective)
            what = question(program, targets, objective)
            strangers = sorted(answer.reasons.keys() - answer.targets.keys())
            expect(not strangers, f"{what}: it gives reasons for {strangers[:3]}, no compute nodes")
            for name, reason in answer.reasons.items():
                expect(
                    isinstance(reason, str) and reason.strip(),
                    f"{what}: its reason for {name!r} is {reason!r}; give words, or no reason",
                )

    @check("assigns")
    def test_the_program_is_left_as_it_was(self, subject: Subject) -> None:
        """The program, the targets and their support are only looked at."""
        partitioner, objective = opened(subject), first_objective(subject)
        for program in (layers(), graph(0)):
            targets = drawn(program.exported, 0)
            before = fingerprint(program.exported)
            kept = list(targets), [copy.deepcopy(t.support) for t in targets]
            ask(partitioner, program, targets, objective)
            what = question(program, kept[0], objective)
            expect(
                fingerprint(program.exported) == before,
                f"{what}: the program is not as it was: work on a copy of what you annotate",
            )
            expect(targets == kept[0], f"{what}: the list of targets is not as it was")
            expect(
                [t.support for t in targets] == kept[1], f"{what}: a target's support is changed"
            )

    @check("assigns")
    def test_what_nobody_supports_is_an_error_with_its_name(self, subject: Subject) -> None:
        """A node that no target supports, or no target at all, is a PlanError that names it."""
        partitioner, objective = opened(subject), first_objective(subject)
        for program in (layers(), graph(1)):
            orphans = [node.name for node in compute_nodes(program.exported)][2::5]
            targets = [target(program.exported, name, lacks=orphans) for name in ("npu", "cpu")]
            error = must_refuse(partitioner, program, targets, objective)
            expect(
                any(name in str(error) for name in orphans),
                f"nobody supports {orphans[:3]}, and its PlanError names none of them: {error}",
            )
            must_refuse(partitioner, program, [], objective)
