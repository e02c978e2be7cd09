"""Which candidates there are for a program, and why others are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardpoint.errors import ConfigError, did_you_mean
from hardpoint.interfaces.backend import PRECISIONS, Precision
from hardpoint.interfaces.kinds import Target
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.results import Failure

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

Options = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Survey:
    """What can be tried.

    :param candidates: each target x precision x variant that runs the whole program, in the order
        of the targets.
    :param partial: target -> why it does not run the whole program, e.g. ``"covers 37 of 40
        operations: ..."``; it may still have a part in a mix.
    :param left_out: (target or backend, why it was left out).
    """

    candidates: tuple[Candidate, ...]
    partial: Mapping[Target, Failure]
    left_out: tuple[tuple[str, Failure], ...]


def find_targets(
    registry: Registry, targets: Sequence[str | Target] | None
) -> tuple[list[Target], list[tuple[str, Failure]]]:
    """The targets asked for; for ``None`` every device of every available backend.

    :raises ProviderError: one that was named is not there or does not load.
    """
    found: list[Target] = []
    left: list[tuple[str, Failure]] = []
    if targets is not None:
        found = list(dict.fromkeys(Target.parse(t) for t in targets))
        for target in found:
            registry.info("backend", target.backend)
    else:
        available = registry.available("backend")
        for name, reason in available.skipped:
            left.append(
                (name, Failure("left out", "", "; ".join(map(str.strip, reason.splitlines()))))
            )
        for name, probe in available.ready:
            many = len(probe.devices) > 1
            found += [Target(name, d.id if many else "") for d in probe.devices] or [Target(name)]
    reachable = []
    for target in found:
        if registry.record("backend", target.backend).dist:
            reachable.append(target)
        else:
            why = "it was added in this process, so no child process can find it"
            left.append((str(target), Failure("left out", "", why)))
    return reachable, left


def survey(
    registry: Registry,
    cover: Callable[[Target], Failure | None],
    *,
    targets: Sequence[str | Target] | None = None,
    precisions: Sequence[Precision] | None = None,
    options: Options | None = None,
    variants: bool = True,
) -> Survey:
    """Find the candidates.

    :param cover: asks a target whether it runs the whole program; a failure says why not.
    :param precisions: that count; ``None``: all that the backends declare.
    :param options: backend -> options that each of its candidates has; they go before a variant's.
    :param variants: with the backends' own variants.
    :raises ConfigError: a word that is no precision.
    """
    for asked in precisions or ():
        if asked not in PRECISIONS:
            near = did_you_mean(asked, PRECISIONS)
            raise ConfigError(f"{asked!r} is no precision", remedy=near)
    wanted, left_out = find_targets(registry, targets)
    candidates: list[Candidate] = []
    partial: dict[Target, Failure] = {}
    for target in wanted:
        info = registry.info("backend", target.backend)
        shared = [p for p in info.precisions if precisions is None or p in precisions]
        if not shared:
            why = f"it computes in {', '.join(info.precisions)}"
            left_out.append((str(target), Failure("left out", "", why)))
            continue
        refusal = cover(target)
        if refusal is not None:
            if refusal.kind == "not whole":
                partial[target] = refusal
            else:
                left_out.append((str(target), refusal))
            continue
        ways: dict[str, Mapping[str, object]] = {"": {}, **(info.variants if variants else {})}
        given = (options or {}).get(target.backend, {})
        seen: list[Mapping[str, object]] = []
        for word, chosen in ways.items():
            whole = {**chosen, **given}
            if whole in seen:  # what the caller fixed is all that it varies
                continue
            seen.append(whole)
            named = {target.backend: whole} if whole else {}
            candidates += [Candidate((target,), {target.backend: p}, word, named) for p in shared]
    return Survey(tuple(candidates), partial, tuple(left_out))
