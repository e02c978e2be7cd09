"""What every backend must do."""

from __future__ import annotations

from hardpoint.testing.backend.calling import CallingChecks
from hardpoint.testing.backend.claims import ClaimChecks
from hardpoint.testing.backend.damage import DamageChecks
from hardpoint.testing.backend.lasting import LastingChecks
from hardpoint.testing.backend.memory import MemoryChecks
from hardpoint.testing.backend.models import ModelChecks
from hardpoint.testing.backend.packages import PackageChecks
from hardpoint.testing.backend.parts import PartsChecks
from hardpoint.testing.backend.said import SaidChecks
from hardpoint.testing.backend.sizes import SizeChecks
from hardpoint.testing.backend.values import ValueChecks
from hardpoint.testing.every import EveryKind
from hardpoint.testing.operators.checks import OperatorChecks


class BackendSuite(
    EveryKind,
    SizeChecks,
    ValueChecks,
    MemoryChecks,
    CallingChecks,
    SaidChecks,
    ModelChecks,
    ClaimChecks,
    PartsChecks,
    PackageChecks,
    DamageChecks,
    LastingChecks,
    OperatorChecks,
):
    """The checks of a backend; subclass it and set ``provider``."""

    kind = "backend"
