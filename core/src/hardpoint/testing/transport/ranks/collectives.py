"""Parts about what collectives make of tensors."""

from __future__ import annotations

from dataclasses import replace

from hardpoint.testing.transport.ranks.judge import (
    SHORT,
    Case,
    asynchronous,
    both,
    declared,
    dtypes_of,
    every_move,
    judge,
    judge_refusals,
    reductions_of,
    usual,
)
from hardpoint.testing.transport.ranks.moves import MOVING, REDUCING
from hardpoint.testing.transport.ranks.scene import Scene
from hardpoint.testing.transport.ranks.values import dtype_named, has_meaning


def each(scene: Scene) -> None:
    """Every collective, at every root, waited for in both ways."""
    judge(scene, both(every_move(scene, 5), asynchronous))


def reductions(scene: Scene) -> None:
    """Every reduction of every dtype, by every collective that reduces."""
    info = scene.request.info
    judge(
        scene,
        [
            Case(name, dtype, 5, op)
            for name in declared(scene, REDUCING)
            for op in reductions_of(info)
            for dtype in dtypes_of(info)
            if has_meaning(op, dtype_named(dtype))
        ],
    )


def dtypes(scene: Scene) -> None:
    """Any bits of every dtype, by every collective that moves."""
    names = dtypes_of(scene.request.info)
    judge(scene, [Case(name, dtype, 33) for name in declared(scene, MOVING) for dtype in names])


def sizes(scene: Scene) -> None:
    """Nothing, one element, sizes that nothing divides, and shares that differ."""
    cases = [case for count in (0, 1, 3, 1021, 65_537) for case in every_move(scene, count)]
    shared = declared(scene, ("all_to_all_single", "all_to_all", "all_gather"))
    for shares in ("uneven", "some empty"):
        cases += [Case(name, usual(scene), 4, shares=shares) for name in shared]
    judge(scene, cases, SHORT)


def large(scene: Scene) -> None:
    """More than fits any buffer: 64 MiB of float32 at once."""
    count = 16 << 20
    parts = ("all_gather_into_tensor", "reduce_scatter_tensor", "all_to_all_single")
    whole = [case for case in every_move(scene, count) if case.name == "all_reduce"]
    judge(scene, [*whole, *(c for c in every_move(scene, count // 8) if c.name in parts)])


def strided(scene: Scene) -> None:
    """Tensors that are not contiguous: done rightly, or refused."""
    cases = [replace(case, strided=True) for case in every_move(scene, 6)]
    judge_refusals(scene, cases)
