"""What a provider leaves behind in the process that loads, probes, opens and lets go of it.

A provider is a guest. It may import what it likes; it changes no state that its host, or another
provider, also lives by. A thread that it leaves running must be a daemon, so that the process can
end, and there is one pool of them, not one more for every open; loading and probing leave none.
"""

from __future__ import annotations

from typing import Any

from hardpoint.testing.check import check, expect
from hardpoint.testing.every.asking import ask_once
from hardpoint.testing.subject import Subject

_WHAT = "loading, probing and opening it, letting go of it, and ending the process"
_SHOWN = 12


class LeftoverChecks:
    """All look at one process, in which the provider was loaded, probed, opened and let go of."""

    @check("loads")
    def test_leaves_the_process_alone(self, subject: Subject) -> None:
        """Environment, signals, warnings, logging, locale, paths and hooks are as before."""
        remedy = "put back what you change, or hand it to your library as an argument"
        _unchanged(subject, "process", remedy)

    @check("loads")
    def test_leaves_torch_alone(self, subject: Subject) -> None:
        """PyTorch's defaults, modes, threads and backend flags are as before."""
        _unchanged(subject, "torch", "set what you need around your own work, in a context manager")

    @check("loads")
    def test_leaves_random_state_alone(self, subject: Subject) -> None:
        """The random states of PyTorch, Python and numpy are as before."""
        _unchanged(subject, "random", "use a generator of your own, e.g. torch.Generator()")

    @check("loads")
    def test_leaves_no_files(self, subject: Subject) -> None:
        """Nothing is written into the current folder."""
        _unchanged(subject, "files", "caches belong into the user's cache folder")

    @check("loads")
    def test_leaves_no_threads(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Loading and probing start no thread that stays; opening starts none that must be ended.

        One pool of daemon threads may stay when it was opened.
        """
        found = _found(subject)["changes"]["threads"]
        figures["threads"] = found
        for sentence in found:
            expect(
                "opening it" in sentence and "(daemon)" in sentence,
                f"{sentence}: nothing tells a provider when to end it, so it must end by itself, "
                "or be a daemon and start no earlier than open",
            )

    @check("loads")
    def test_open_does_not_leak(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Opened twenty times and let go of, it holds no more threads and files than before."""
        found = _found(subject)
        figures.update(found["grown"])
        for what, more in found["grown"].items():
            held = f"; open now: {found['new descriptors'][:_SHOWN]}" if "desc" in what else ""
            expect(
                more <= found["slack"],
                f"opening it {found['opens']} times, and letting go of each, left {more} more "
                f"{what} than before{held}",
            )


def _found(subject: Subject) -> dict[str, Any]:
    answer: dict[str, Any] = ask_once(subject, "state", what=_WHAT)
    return answer


def _unchanged(subject: Subject, part: str, remedy: str) -> None:
    changes = _found(subject)["changes"][part]
    rest = f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    expect(not changes, f"{'; '.join(changes[:_SHOWN])}{rest}: {remedy}")
