"""Which tensors, and which part of each: globs, indices written as text, a rank's share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from hardpoint.errors import WeightsError, did_you_mean
from hardpoint.interfaces.serializer import Index, TensorInfo
from hardpoint.storage.refusal import show
from hardpoint.weights.content import printable, some
from hardpoint.weights.opened import words

_NUMBER = r"[+-]?[0-9]{1,18}"
_PART = re.compile(
    rf"\s*(?:({_NUMBER})|({_NUMBER})?\s*:\s*({_NUMBER})?\s*(?::\s*([0-9]{{1,18}})?)?)\s*"
)
_MOST_DIMENSIONS = 64
_LONGEST = 2000
_ACCEPTED = (
    "write e.g. [0:10, :, 3]: whole numbers and slices start:stop:step, with a positive step"
)


def parse_index(text: str) -> tuple[int | slice, ...]:
    """An index as Python writes it, e.g. ``[0:10, :, 3]``.

    :raises WeightsError: it is anything but whole numbers and slices of them.
    """
    inner = text.strip()
    if len(text) > _LONGEST or not (inner.startswith("[") and inner.endswith("]")):
        raise _no_index(text, "an index stands between square brackets")
    parts = inner[1:-1].split(",")
    if len(parts) > _MOST_DIMENSIONS:
        raise _no_index(text, f"a tensor has at most {_MOST_DIMENSIONS} dimensions")
    return tuple(_part(part, text) for part in parts)


def index_text(index: Index) -> str:
    """What :func:`parse_index` would read as ``index``."""
    parts = index if isinstance(index, tuple) else (index,)
    return f"[{', '.join(_part_text(part) for part in parts)}]"


def _part_text(part: int | slice) -> str:
    if isinstance(part, int):
        return str(part)
    start, stop = ("" if number is None else number for number in (part.start, part.stop))
    return f"{start}:{stop}" if part.step is None else f"{start}:{stop}:{part.step}"


def _part(part: str, text: str) -> int | slice:
    found = _PART.fullmatch(part)
    if found is None:
        raise _no_index(text, f"{show(part.strip())} is neither a whole number nor a slice")
    if found[1] is not None:
        return int(found[1])
    start, stop, step = (None if number is None else int(number) for number in found.groups()[1:])
    if step == 0:
        raise _no_index(text, f"{show(part.strip())} has a step of 0")
    return slice(start, stop, step)


def _no_index(text: str, cause: str) -> WeightsError:
    return WeightsError(f"{show(text)} is no index", cause=cause, remedy=_ACCEPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What of a file to take.

    :param tensors: globs of names; a tensor is taken that fits one of them.
    :param exclude: globs of names to leave out all the same.
    :param index: by glob, the part of each tensor, as in ``tensor[index]``; the first that fits.
    :param rank: whose share of ``of`` equal ones to cut, counted from 0; ``None``: none.
    :param dims: by glob, the dimension to cut it along; the first that fits. Others stay whole.
    """

    tensors: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    index: Mapping[str, Index] = field(default_factory=dict)
    rank: int | None = None
    of: int = 1
    dims: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rank is not None and not 0 <= self.rank < self.of:
            raise WeightsError(
                f"there is no rank {self.rank} of {self.of}",
                cause="ranks are counted from 0",
                remedy=f"choose one from 0 to {max(0, self.of - 1)}",
            )
        if (self.rank is None) != (not self.dims):
            raise WeightsError(
                "a rank's share needs a rank and a dimension",
                cause="a dimension is given, and no rank"
                if self.dims
                else "a rank is given, and no dimension to cut along",
                remedy="give rank, of and dims (--rank 0 --of 2 --dim 0), or none of them",
            )

    def of_file(self, infos: Mapping[str, TensorInfo], file: object) -> dict[str, Index]:
        """The part of each tensor taken, by name; ``()`` is the whole.

        :raises WeightsError: a glob that fits no tensor, or a tensor that cannot be cut so.
        """
        for glob in (*self.tensors, *self.exclude):
            if not any(fnmatchcase(name, glob) for name in infos):
                raise _unmatched(glob, infos, file)
        names = [
            name
            for name in infos
            if _first(self.tensors, name) is not None and _first(self.exclude, name) is None
        ]
        if not names:
            raise WeightsError(
                f"{file}: nothing is taken",
                cause="every tensor that fits --tensor is excluded",
                remedy="exclude fewer",
            )
        for glob in (*self.index, *self.dims):
            if not any(fnmatchcase(name, glob) for name in names):
                raise _unmatched(glob, names, file)
        return {name: self._part(infos[name]) for name in names}

    def _part(self, info: TensorInfo) -> Index:
        by_index, by_dim = _first(self.index, info.name), _first(self.dims, info.name)
        if by_index is not None and by_dim is not None:
            raise WeightsError(
                f"tensor {printable(info.name)} would be cut twice",
                cause=f"by the index of {show(by_index)}, and as a rank's share by {show(by_dim)}",
                remedy="let one of the two globs leave it out",
            )
        if by_index is not None:
            return _checked(self.index[by_index], info)
        if by_dim is not None and self.rank is not None:
            return self._share(info, self.dims[by_dim], self.rank)
        return ()

    def _share(self, info: TensorInfo, dim: int, rank: int) -> Index:
        rank_of_tensor = len(info.shape)
        at = dim + rank_of_tensor if dim < 0 else dim
        if not 0 <= at < rank_of_tensor or info.shape[at] % self.of:
            raise WeightsError(
                f"tensor {printable(info.name)} cannot be cut in {self.of} along dimension {dim}",
                cause=f"it is {words(info.dtype, info.shape)}"
                + (", which does not divide" if 0 <= at < rank_of_tensor else ""),
                remedy="give it another dimension (--dim 'GLOB=1'), or one that leaves it out",
            )
        size = info.shape[at] // self.of
        return (*(slice(None) for _ in range(at)), slice(rank * size, (rank + 1) * size))


def _checked(index: Index, info: TensorInfo) -> Index:
    from hardpoint.storage.slices import block_of, checked

    try:
        parts = checked(index, len(info.shape))
        block_of(info.shape, parts)
    except (IndexError, ValueError) as error:
        raise WeightsError(
            f"tensor {printable(info.name)} has no such part",
            cause=f"it is {words(info.dtype, info.shape)}: {error}",
            remedy="choose an index within it, or a glob that leaves it out",
        ) from error
    return parts


def _first(globs: Iterable[str], name: str) -> str | None:
    return next((glob for glob in globs if fnmatchcase(name, glob)), None)


def _unmatched(glob: str, names: Iterable[str], file: object) -> WeightsError:
    known = list(names)
    return WeightsError(
        f"{file}: no tensor taken is called {show(glob)}",
        cause=f"there are: {some(known)}" if known else "there is none",
        remedy=did_you_mean(glob, known[:5000]) or "list them: hardpoint weights info --tensors",
    )
