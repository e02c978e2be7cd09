"""What two files of weights do not have in common: names, dtypes, shapes, values, metadata."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hardpoint.errors import WeightsError
from hardpoint.weights.choose import open_named
from hardpoint.weights.compare import Distance, coordinates, distance
from hardpoint.weights.opened import bytes_in_memory
from hardpoint.weights.progress import Progress, ticker
from hardpoint.weights.provenance import without_records

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry
    from hardpoint.weights.opened import Opened

Verdict = Literal["identical", "equal", "within", "different"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDiff:
    """One tensor that both files have.

    :param verdict: ``"identical"``: dtype and bytes; ``"equal"``: dtype and values (NaN is equal to
        NaN); ``"within"``: values, with the tolerance given; else ``"different"``.
    :param dtypes: in the one file and in the other.
    :param differing: elements whose values differ; ``None`` where shapes do, and in the following.
    :param beyond: those of them that differ by more than the tolerance, or are not finite.
    :param not_finite: those of them that are NaN or infinite in one file, and not in the other.
    :param max_abs: the largest absolute error of the others.
    :param max_rel: the largest relative error of those, of the larger magnitude.
    :param worst: index of the element with ``max_abs``, or of the first that is not finite.
    :param opaque: PyTorch cannot compute with the dtype: what is counted are bytes.
    """

    name: str
    verdict: Verdict
    dtypes: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    differing: int | None = None
    beyond: int | None = None
    not_finite: int | None = None
    max_abs: float | None = None
    max_rel: float | None = None
    worst: tuple[int, ...] | None = None
    opaque: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsDiff:
    """What :func:`diff_weights` found.

    :param formats: the serializers that read the two files.
    :param only_a: names that only the first has.
    :param tensors: of the names that both have, the worst first.
    :param metadata: keys whose values differ; ``None`` on the side that has none. Where the
        tensors came from (:mod:`hardpoint.weights.provenance`) is left out.
    """

    files: tuple[Path, Path]
    formats: tuple[str, str]
    tolerance: float | None
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    tensors: tuple[TensorDiff, ...]
    metadata: Mapping[str, tuple[str | None, str | None]]

    @property
    def same(self) -> bool:
        """Whether both have the same tensors. Metadata is not asked: each format has its own."""
        return not (
            self.only_a or self.only_b or any(each.verdict == "different" for each in self.tensors)
        )


def diff_weights(
    a: Path,
    b: Path,
    *,
    registry: Registry,
    tolerance: float | None = None,
    progress: Progress | None = None,
) -> WeightsDiff:
    """Compare two files of weights, of any formats.

    One tensor of each is looked at at a time, in pieces: of files that are mapped, no tensor is
    ever copied whole. Quantized tensors are compared as their reader gives them.

    :param tolerance: ``None``: dtypes and values must be the same; else values alone decide, and
        elements may differ by that much, absolutely or relatively.
    :raises WeightsError: a file is damaged, or of no known format; a tolerance that is none.
    """
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise WeightsError(
            f"{tolerance} is no tolerance",
            cause="it is negative, infinite or no number",
            remedy="give e.g. 1e-3, or 0 for equal values of any dtype",
        )
    one, other = (open_named(path, registry=registry) for path in (a, b))
    with one.reader as in_a, other.reader as in_b:
        both = [name for name in in_a if name in in_b]
        total = sum(bytes_in_memory(in_a[name]) for name in both)
        tick = ticker(progress, total)
        found = [_compare(one, other, name, tolerance, tick) for name in both]
        return WeightsDiff(
            files=(a, b),
            formats=(one.name, other.name),
            tolerance=tolerance,
            only_a=tuple(name for name in in_a if name not in in_b),
            only_b=tuple(name for name in in_b if name not in in_a),
            tensors=tuple(sorted(found, key=_badness, reverse=True)),
            metadata=_metadata_diff(in_a.metadata, in_b.metadata),
        )


def _compare(
    one: Opened,
    other: Opened,
    name: str,
    tolerance: float | None,
    tick: Callable[[int], None] | None,
) -> TensorDiff:
    first, second = one.reader[name], other.reader[name]
    dtypes, shapes = (first.dtype, second.dtype), (first.shape, second.shape)
    if first.shape != second.shape:
        if tick is not None:
            tick(bytes_in_memory(first))
        return TensorDiff(name=name, verdict="different", dtypes=dtypes, shapes=shapes)
    found = distance(one.tensor(name), other.tensor(name), tolerance or 0.0, tick)
    return TensorDiff(
        name=name,
        verdict=_verdict(found, dtypes, tolerance),
        dtypes=dtypes,
        shapes=shapes,
        differing=found.differing,
        beyond=found.beyond,
        not_finite=found.not_finite,
        max_abs=None if found.opaque else found.max_abs,
        max_rel=None if found.opaque else found.max_rel,
        worst=None if found.worst is None else coordinates(found.worst, first.shape),
        opaque=found.opaque,
    )


def _verdict(found: Distance, dtypes: tuple[str, str], tolerance: float | None) -> Verdict:
    if found.identical:
        return "identical"
    if dtypes[0] == dtypes[1] and not found.differing:
        return "equal"
    return "different" if tolerance is None or found.beyond else "within"


def _badness(found: TensorDiff) -> tuple[bool, float, float, float]:
    """To sort by: another shape, no number where there was one, then the error."""
    order: tuple[Verdict, ...] = ("identical", "equal", "within", "different")
    return (
        found.differing is None,
        order.index(found.verdict),
        math.inf if found.not_finite or found.opaque else found.max_abs or 0.0,
        found.differing or 0,
    )


def _metadata_diff(
    a: Mapping[str, str], b: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    a, b = without_records(a), without_records(b)  # the same tensors may come from elsewhere
    keys = sorted(a.keys() | b.keys())
    return {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}
