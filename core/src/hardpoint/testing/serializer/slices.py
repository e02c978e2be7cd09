"""A slice is what indexing the whole tensor gives, for a fraction of the bytes."""

from __future__ import annotations

import json
import os
import random as randomness
import resource
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import Index, Reader, Serializer
from hardpoint.testing.check import check, expect, fail
from hardpoint.testing.serializer.apart import apart
from hardpoint.testing.serializer.bench import Bench, attempt, bench
from hardpoint.testing.serializer.samples import random, same, seeded, words
from hardpoint.testing.subject import Subject

_MEGA = 1 << 20
_LARGE = 64 * _MEGA
_SHAPES = ((), (1,), (17,), (0, 3), (5, 7), (4, 1, 6), (3, 2, 4, 2), (2, 2, 2, 2, 2))
_EACH = 40  # indices tried on each tensor


class Slices:
    """``Reader.slice``."""

    @check("round-trips")
    def test_slices_equal_the_whole(self, subject: Subject, figures: dict[str, Any]) -> None:
        """slice(name, index) is tensor(name)[index], for whole numbers and slices of any bounds."""
        with bench(subject) as at, at.read(_shaped(at)) as reader:
            draw = seeded()
            tried = 0
            for name, info in reader.items():
                whole = reader.tensor(name)
                for _ in range(_EACH):
                    _compare(reader, name, whole, _draw_index(draw, info.shape))
                    tried += 1
            figures["slices"] = tried

    @check("round-trips")
    def test_an_index_outside_the_tensor_is_an_error(self, subject: Subject) -> None:
        """An index past either end, one too many, or a step that is not positive: WeightsError."""
        with bench(subject) as at, at.read(_shaped(at)) as reader:
            for name, info in reader.items():
                for index in _outside(info.shape):
                    given = attempt(
                        f"slice() of shape {info.shape} with {index!r}",
                        reader.slice,
                        name,
                        index,
                    )
                    if not isinstance(given, WeightsError):
                        fail(
                            f"slice() of a tensor of shape {info.shape} with {index!r} gave "
                            f"{words(given)}; that is outside the tensor: WeightsError"
                        )

    @check("round-trips")
    def test_a_slice_takes_no_more_memory_than_it_needs(
        self, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """Eight rows of a tensor of 64 MB take a fraction of it in memory."""
        with bench(subject, saves=True) as at:
            path = at.save({"embed": torch.ones(1024, _LARGE // 4096)}, "large")
            used = apart(_take_rows, at, "slicing a tensor of 64 MB", path=str(path))
            figures.update(used)
            expect(
                used["megabytes"] < _LARGE / _MEGA / 3,
                f"a slice of {used['needed']} MB made the process grow by {used['megabytes']} MB: "
                f"it reads the whole tensor of {_LARGE // _MEGA} MB; read the rows asked for",
            )


def _shaped(at: Bench) -> Path:
    """A file of tensors of several ranks, as far as the format holds them."""
    if not at.info.can_save:
        return at.specimen()
    held = {}
    for i, shape in enumerate(_SHAPES):
        tensor = random(shape, seed=i)
        refusal = attempt(
            f"save() of shape {shape}",
            at.serializer.save,
            {"t": tensor},
            at.path("single"),
        )
        if not isinstance(refusal, WeightsError):
            held[f"rank{len(shape)}.{i}"] = tensor
    return at.save(held, what="save() of tensors of several ranks")


def _compare(reader: Reader, name: str, whole: torch.Tensor, index: Index) -> None:
    given = attempt(f"slice() with {index!r}", reader.slice, name, index)
    want = whole[index]
    if isinstance(given, WeightsError):
        fail(
            f"slice() of a tensor of shape {tuple(whole.shape)} with {index!r} is refused; whole, "
            f"it gives {words(want)}: {given}"
        )
    expect(
        same(given, want),
        lambda: (
            f"slice() of a tensor of shape {tuple(whole.shape)} with {index!r} gave "
            f"{words(given)}; tensor()[{index!r}] is {words(want)}"
        ),
    )


def _draw_index(draw: randomness.Random, shape: tuple[int, ...]) -> Index:
    """An index that fits ``shape``."""
    parts = tuple(_draw_part(draw, size) for size in shape[: draw.randint(0, len(shape))])
    return parts[0] if len(parts) == 1 and draw.random() < 0.5 else parts


def _draw_part(draw: randomness.Random, size: int) -> int | slice:
    if size and draw.random() < 0.4:
        return draw.randrange(-size, size)

    def bound() -> int | None:
        # Bounds past the ends are cut to them, as Python does.
        return None if draw.random() < 0.3 else draw.randint(-size - 3, size + 3)

    return slice(bound(), bound(), draw.choice((None, None, 1, 2, 3, size + 1)))


def _outside(shape: tuple[int, ...]) -> Iterator[Index]:
    yield (0,) * (len(shape) + 1)
    yield (slice(None),) * (len(shape) + 1)
    if shape:
        first, last = shape[0], shape[-1]
        yield first
        yield -first - 1
        yield 1 << 40
        yield (*(slice(None),) * (len(shape) - 1), last)
        yield (*(slice(None),) * (len(shape) - 1), -last - 1)
        yield slice(None, None, 0)
        yield slice(None, None, -1)


def _take_rows(serializer: Serializer, folder: Path, facts: Mapping[str, Any]) -> dict[str, float]:
    """Bytes that a slice makes a process grow by; in a child, whose record begins at its birth."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        before = _peak()
        with serializer.open(Path(facts["path"])) as reader:
            rows = reader.slice("embed", slice(500, 508)).clone()
        used = {"megabytes": _peak() - before, "needed": rows.nbytes / _MEGA}
        os.write(writing, json.dumps(used).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        fail(f"slicing a tensor of 64 MB ended the process (status {status})")
    return {key: round(value, 2) for key, value in json.loads(answer).items()}


def _peak() -> float:
    """The most megabytes that this process ever had in memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MEGA if sys.platform == "darwin" else peak / 1024
