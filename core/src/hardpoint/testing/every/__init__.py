"""What every provider must do, whatever its kind."""

from __future__ import annotations

from typing import ClassVar

from hardpoint.interfaces.kinds import Kind
from hardpoint.testing.check import check, expect
from hardpoint.testing.subject import Subject


class EveryKind:
    """The checks that all kinds share.

    :cvar provider: ``kind:name`` of the provider under test; empty: pytest's ``--provider``.
    """

    kind: ClassVar[Kind]
    provider: ClassVar[str] = ""

    @check("loads")
    def test_declares_what_it_is(self, subject: Subject) -> None:
        """It loads, and its info says what it is and which contract it was written for."""
        info = subject.info
        expect(info.summary.strip(), "info.summary is empty: say in one line what it is")
