"""What is saved comes back: every dtype, shape, layout and name, to the last bit."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from typing import Any

import torch

from hardpoint.errors import WeightsError
from hardpoint.testing.check import check, expect, fail
from hardpoint.testing.serializer.bench import Bench, attempt, bench
from hardpoint.testing.serializer.samples import (
    ODD_NAMES,
    PLAIN_NAMES,
    SHAPES,
    dtypes,
    layouts,
    pattern,
    random,
    same,
    shown,
    word,
    words,
)
from hardpoint.testing.subject import Subject

_MEGA = 1 << 20


class RoundTrips:
    """Saving and reading again; each is skipped for a serializer that only reads."""

    @check("round-trips")
    def test_every_dtype_round_trips(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Every dtype of PyTorch comes back bit by bit, or is refused by the tensor's name."""
        held: list[str] = []
        refused: list[str] = []
        with bench(subject, saves=True) as at:
            for dtype in dtypes():
                name = f"tensor.{word(dtype)}"
                whole = _held(at, name, random((16, 33), dtype), word(dtype))
                (held if whole else refused).append(word(dtype))
        figures["held"], figures["refused"] = held, refused
        expect("float32" in held, "it refuses float32: a serializer of weights must hold that")

    @check("round-trips")
    def test_every_shape_round_trips(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Shapes of 0 to 6 dimensions, scalars and empty ones among them, come back as they are."""
        refused = []
        with bench(subject, saves=True) as at:
            for i, shape in enumerate(SHAPES):
                whole = _held(at, f"shape{i}", random(shape, seed=i), f"a tensor of shape {shape}")
                if not whole:
                    refused.append(list(shape))
                usual = 0 < len(shape) <= 2 and math.prod(shape) > 0
                expect(whole or not usual, f"it refuses shape {shape}: every format holds that")
            together = {
                f"shape{i}": random(shape, torch.float32, seed=i)
                for i, shape in enumerate(SHAPES)
                if list(shape) not in refused
            }
            _compare(at, together, "a file of tensors of many shapes")
        figures["shapes"], figures["refused"] = len(SHAPES), refused

    @check("round-trips")
    def test_any_layout_is_saved_as_it_looks(self, subject: Subject) -> None:
        """Views, lazy conjugates and parameters are saved as the values they show.

        Tensors that share memory are each saved whole.
        """
        with bench(subject, saves=True) as at:
            for what, tensor in layouts():
                _held(at, "t", tensor, f"a tensor that is {what}")
            base = pattern(6, 2)
            sharing = {"whole": base, "again": base, "part": base[2:4], "across": base.t()}
            _compare(at, sharing, "a file of tensors that share memory")

    @check("round-trips")
    def test_any_name_round_trips(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Names are data: what the format cannot spell is refused, and nothing is renamed."""
        refused = []
        with bench(subject, saves=True) as at:
            for name in PLAIN_NAMES:
                whole = _held(at, name, pattern(2), f"a tensor named {name!r}")
                expect(whole, f"it refuses the name {name!r}, as state dicts have them")
            for what, name in ODD_NAMES.items():
                if not _held(at, name, pattern(2), f"a tensor whose name is {what}", named=False):
                    refused.append(what)
            similar = {"a": pattern(1), "A": pattern(2), "a.b": pattern(3), "a_b": pattern(4)}
            _compare(at, similar, "a file of tensors with similar names")
            _compare(at, {}, "a file of no tensors")
        figures["refused"] = refused

    @check("round-trips")
    def test_a_large_file_round_trips(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A tensor of 32 MB among a thousand small ones of several dtypes."""
        small = (torch.float32, torch.float16, torch.int64, torch.uint8)
        with bench(subject, saves=True) as at:
            kinds = [dtype for dtype in small if _held(at, "t", random((2,), dtype), word(dtype))]
            tensors = {
                f"layers.{i}.weight": random((i % 7 + 1, 3), kinds[i % len(kinds)], seed=i)
                for i in range(1000)
            }
            large = random((32, 1 << 18))
            path = _compare(at, {"embed": large, **tensors}, "a file of 1,001 tensors")
            figures["megabytes"] = round(path / _MEGA, 1)

    @check("round-trips")
    def test_metadata_round_trips(self, subject: Subject) -> None:
        """The file's own metadata comes back whole, or is refused; it is never dropped."""
        samples: tuple[Mapping[str, str], ...] = (
            {"format": "pt"},
            {"a": "1", "b": "", "größe": "重み \U0001f600", "long": "x" * 20_000},
            {"json": '{"a": [1, 2]}', "quotes": "\"'\\", "lines": "a\nb\r\n", "": "empty key"},
        )
        with bench(subject, saves=True) as at:
            for metadata in samples:
                path = at.path()
                answer = attempt(
                    f"save() with the metadata {sorted(metadata)}",
                    at.serializer.save,
                    {"t": pattern(2)},
                    path,
                    metadata=metadata,
                )
                if isinstance(answer, WeightsError):
                    continue
                with at.read(path) as reader:
                    _compare_metadata(reader.metadata, metadata)
            with at.read(at.save({"t": pattern(2)}, metadata=None)) as reader:
                _compare_metadata(reader.metadata, {})


def _compare_metadata(found: object, wanted: Mapping[str, str]) -> None:
    if not isinstance(found, Mapping):
        fail(f"reader.metadata is a {type(found).__name__}, not a mapping of text to text")
    for key, value in found.items():
        expect(
            isinstance(key, str) and isinstance(value, str),
            f"reader.metadata holds {key!r}: {value!r}; both sides must be text",
        )
    for key, value in wanted.items():
        expect(key in found, f"saved with metadata {key!r}, and reader.metadata has no such key")
        expect(
            found[key] == value,
            f"metadata {key!r} was saved as {value[:60]!r} and came back as {found[key][:60]!r}",
        )


def _held(at: Bench, name: str, tensor: torch.Tensor, what: str, *, named: bool = True) -> bool:
    """Whether the format holds the tensor; the check fails where it comes back changed.

    :param named: whether a refusal must say the tensor's name as it stands.
    """
    path = at.path("single")
    if path.is_dir():  # a format of directories
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    refusal = attempt(f"save() of {what}", at.serializer.save, {name: tensor}, path)
    if isinstance(refusal, WeightsError):
        expect(
            not named or name in str(refusal),
            f"save() refused {what} without naming the tensor {name!r}: {refusal}",
        )
        left = sorted(p.name for p in at.folder.iterdir() if p.name.startswith("single"))
        expect(
            not left, f"save() refused {what} and yet left {left} behind: nothing may be written"
        )
        return False
    _read_back(at, {name: tensor}, path, what)
    return True


def _compare(at: Bench, tensors: Mapping[str, torch.Tensor], what: str) -> int:
    """Save and read back; the size of the file."""
    path = at.save(tensors, what=f"save() of {what}")
    _read_back(at, tensors, path, what)
    return path.stat().st_size


def _read_back(at: Bench, tensors: Mapping[str, torch.Tensor], path: Any, what: str) -> None:
    with at.read(path, f"open() of {what}") as reader:
        names = list(reader)
        expect(
            len(names) == len(tensors) and set(names) == set(tensors),
            lambda: (
                f"saved {what} as {sorted(tensors)[:5]!r}, and it reads back as "
                f"{sorted(names)[:5]!r} ({len(tensors)} tensors saved, {len(names)} read)"
            ),
        )
        for name, tensor in tensors.items():
            back = attempt(f"tensor({name!r}) of {what}", reader.tensor, name)
            if isinstance(back, WeightsError):
                fail(f"{what} was saved, and tensor({name!r}) is refused: {back}")
            expect(isinstance(back, torch.Tensor), f"tensor() gave a {type(back).__name__}")
            want = shown(tensor)
            if not same(back, want):
                fail(f"{what}: {name!r} was saved as {words(want)} and came back as {words(back)}")
