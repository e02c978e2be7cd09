"""One way to run a program: where, in which arithmetic, with which options. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hardpoint.interfaces.backend import Precision
from hardpoint.interfaces.kinds import Target


@dataclass(frozen=True, eq=False)
class Candidate:
    """A way to run a whole program.

    :param targets: one; several in order of preference where a partitioner cuts the program.
    :param precisions: backend -> what it computes in, for each backend in ``targets``.
    :param variant: the word of :attr:`hardpoint.BackendInfo.variants`; ``""``: the defaults.
    :param options: backend -> its options, the variant's among them.
    :param partitioner: who cuts the program; ``""``: nobody, the one target runs all of it.
    """

    targets: tuple[Target, ...]
    precisions: Mapping[str, Precision]
    variant: str = ""
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    partitioner: str = ""

    @property
    def target(self) -> str:
        """For people: ``"openvino:CPU"``, ``"npu + cpu"``."""
        return " + ".join(map(str, self.targets))

    @property
    def precision(self) -> str:
        """For people: ``"fp16"``, or ``"fp16 + fp32"`` where the targets' differ."""
        used = [self.precisions[t.backend] for t in self.targets]
        return used[0] if len(set(used)) == 1 else " + ".join(used)

    @property
    def label(self) -> str:
        """For people, unlike that of every other candidate of a program."""
        words = [self.target, self.precision, self.variant]
        return " ".join(filter(None, words)) + (f" by {self.partitioner}" * bool(self.partitioner))

    @property
    def key(self) -> str:
        """The same text for the same candidate, here and in any other process."""
        return json.dumps(self.to_json(), sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable; :func:`from_json` reads it back."""
        return {
            "targets": [str(t) for t in self.targets],
            "precisions": dict(self.precisions),
            "variant": self.variant,
            "options": {backend: dict(chosen) for backend, chosen in self.options.items()},
            "partitioner": self.partitioner,
        }


def from_json(data: Mapping[str, Any]) -> Candidate:
    """What :meth:`Candidate.to_json` wrote."""
    return Candidate(
        targets=tuple(Target.parse(t) for t in data["targets"]),
        precisions=data["precisions"],
        variant=data["variant"],
        options=data["options"],
        partitioner=data["partitioner"],
    )
