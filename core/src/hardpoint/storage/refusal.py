"""The one way a serializer says no: a WeightsError with the file, the tensor and the way out."""

from __future__ import annotations

import difflib
import itertools
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from hardpoint.errors import WeightsError

_LONGEST = 80
_FEW = 5000

DAMAGED = "get the file again from where it came from: it is damaged, or made to mislead"

# Cuts while it prints: a hostile value may be as long as its file, or nested to the very limit.
_cut = reprlib.Repr()
_cut.maxlevel = 3
_cut.maxlist = _cut.maxtuple = _cut.maxdict = 8
_cut.maxstring = _cut.maxother = _LONGEST


def show(value: object) -> str:
    """``value`` as it can be printed whoever wrote it: escaped, and cut where it is long."""
    text = _cut.repr(value).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


@dataclass(frozen=True, slots=True)
class Refusal:
    """Makes the errors of one serializer.

    :param name: of the provider, e.g. ``"gguf"``.
    :param dist: the distribution that it is in, e.g. ``"hardpoint-gguf"``.
    """

    name: str
    dist: str

    @property
    def origin(self) -> str:
        """Distribution and version."""
        try:
            return f"{self.dist} {version(self.dist)}"
        except PackageNotFoundError:  # run from a source tree that was never installed
            return self.dist

    @property
    def provider(self) -> str:
        """Kind and name."""
        return f"serializer:{self.name}"

    def __call__(self, file: object, what: str, cause: str, remedy: str = DAMAGED) -> WeightsError:
        """The error to raise about ``file``; ``what`` completes the sentence "FILE: ..."."""
        return WeightsError(
            f"{file}: {what}",
            provider=self.provider,
            origin=self.origin,
            cause=cause,
            remedy=remedy,
        )

    def no_such_tensor(self, file: object, name: object, names: Iterable[str]) -> WeightsError:
        """The error for a name that is not in the file, with the nearest one that is."""
        few = list(itertools.islice(names, _FEW))
        near = difflib.get_close_matches(name, few, n=1) if isinstance(name, str) else []
        return self(
            file,
            f"there is no tensor {show(name)}",
            "the file does not hold that name",
            f"did you mean {show(near[0])}?"
            if near
            else "list the names: hardpoint weights info FILE",
        )
