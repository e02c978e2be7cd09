"""Whether a model that was compiled in this process still has the weights that it was made from.

The captured program shares them with the user's model. What a backend makes of them differs: one
reads them where they lie, another has copies of some and not of others (OpenVINO reads tables of
embeddings in place and repacks all else). So after an edit a compiled model would compute with the
old weights, the new ones, or some of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

import torch

from hardpoint.errors import VerificationError

_versions = attrgetter("_version")


class Unchanged:
    """Holds weights, by name, to PyTorch's counts of the writes to them.

    Called before each run; takes some 30 ns a weight. Writes through ``.data`` or another library
    are not counted, nor are those to inference tensors.
    """

    def __init__(self, program: str, weights: Mapping[str, torch.Tensor]) -> None:
        self._program = program
        self._names = [name for name, t in weights.items() if not t.is_inference()]
        self._tensors = [weights[name] for name in self._names]
        self._counts = list(map(_versions, self._tensors))

    def __call__(self) -> None:
        """:raises VerificationError: some were written to."""
        if list(map(_versions, self._tensors)) != self._counts:
            raise VerificationError(
                f"{self._program} was not run: the model's weights changed since it was compiled",
                cause=f"{self.in_words()}; a backend reads some where they lie and copied others",
                remedy="compile again; what goes on being trained is compiled from "
                "copy.deepcopy(model)",
            )

    def changed(self) -> list[str]:
        """The names of those that were written to."""
        counts = zip(self._names, map(_versions, self._tensors), self._counts, strict=True)
        return [name for name, now, then in counts if now != then]

    def in_words(self) -> str:
        """How many were written to, and one of them."""
        names = self.changed()
        return f"{len(names)} changed, e.g. {names[0]}"
