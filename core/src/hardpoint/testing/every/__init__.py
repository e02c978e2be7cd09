"""What every provider must do, whatever its kind.

``declaration`` and ``lightness`` look at the light module, ``twice`` and ``processes`` at loading
and opening more than once, ``probing`` and ``configuration`` at the answers to a machine and a
user that lack something, ``leftovers`` at what stays behind. ``inside`` holds what runs in
processes of its own.
"""

from __future__ import annotations

from typing import ClassVar

from hardpoint.interfaces.kinds import Kind
from hardpoint.testing.every.configuration import ConfigurationChecks
from hardpoint.testing.every.declaration import DeclarationChecks
from hardpoint.testing.every.leftovers import LeftoverChecks
from hardpoint.testing.every.lightness import LightnessChecks
from hardpoint.testing.every.probing import ProbingChecks
from hardpoint.testing.every.processes import ProcessChecks
from hardpoint.testing.every.twice import TwiceChecks


# pytest runs the checks of the last base first: what the rest stands on.
class EveryKind(
    LeftoverChecks,
    ConfigurationChecks,
    ProbingChecks,
    ProcessChecks,
    TwiceChecks,
    LightnessChecks,
    DeclarationChecks,
):
    """The checks that all kinds share.

    :cvar provider: ``kind:name`` of the provider under test; empty: pytest's ``--provider``.
    """

    kind: ClassVar[Kind]
    provider: ClassVar[str] = ""
