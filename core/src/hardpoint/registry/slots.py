"""The table of providers: what metadata claims, after policy, contract majors and duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from hardpoint.errors import (
    DuplicateProvider,
    ProviderDenied,
    ProviderError,
    ProviderFailed,
    ProviderIncompatible,
    ProviderNotFound,
    did_you_mean,
)
from hardpoint.interfaces.kinds import API_MAJOR, Kind
from hardpoint.registry.contracts import Info
from hardpoint.registry.discovery import Claim
from hardpoint.registry.policy import Policy
from hardpoint.registry.record import Record, State
from hardpoint.registry.version import declared_requirement, objection_to_major


@dataclass(slots=True, eq=False)
class Slot:
    """One name: its record, and what was made of it so far.

    :param claim: the entry point, or ``None`` where this process added the provider.
    :param failure: what loading it raises, now and until ``reload``.
    :param info: set once it is loaded.
    """

    record: Record
    claim: Claim | None = None
    failure: ProviderError | None = None
    info: Info | None = None

    def fail(self, failure: ProviderError, state: State) -> None:
        """From now on, loading raises ``failure``."""
        self.failure = failure
        self.record = replace(self.record, state=state, error=str(failure))


def build(
    claims: Iterable[Claim], policy: Policy, reserved: Mapping[str, str]
) -> tuple[dict[str, Slot], tuple[str, ...]]:
    """Slots by ``kind:name``, and remarks about claims that policy set aside."""
    by_key: dict[str, list[Claim]] = {}
    for claim in claims:
        by_key.setdefault(claim.key, []).append(claim)
    slots: dict[str, Slot] = {}
    remarks: list[str] = []
    for key, rivals in by_key.items():
        # A plugin may serve several majors of the contract: ours is the one that counts.
        ours = [claim for claim in rivals if claim.major == API_MAJOR] or rivals
        objections = {id(c): policy.objection(c.kind, c.name, c.dist, reserved) for c in ours}
        permitted = [claim for claim in ours if not objections[id(claim)][0]]
        if permitted:
            remarks += [
                f"{claim.origin}: its {key} is left out: {objections[id(claim)][0]}"
                for claim in ours
                if claim not in permitted
            ]
            slots[key] = _permitted(sorted(permitted, key=lambda claim: claim.origin))
        else:
            slots[key] = _denied(ours[0], *objections[id(ours[0])])
    return slots, tuple(remarks)


def _permitted(claims: list[Claim]) -> Slot:
    claim = claims[0]
    slot = Slot(_record(claim), claim)
    cause, remedy = objection_to_major(claim.major)
    if cause:
        slot.fail(incompatible(slot, cause, remedy), "incompatible")
    elif len(claims) > 1:
        slot.record = replace(slot.record, rivals=tuple(each.origin for each in claims))
        slot.fail(_duplicate(claims), "failed")
    elif not claim.module:
        slot.fail(
            ProviderFailed(
                f"{claim.key} could not be loaded",
                provider=claim.key,
                origin=claim.origin,
                cause=f"its entry point {claim.value!r} is not 'module' or 'module:attribute'",
                remedy=f"report it to the authors of {claim.dist}",
            ),
            "failed",
        )
    return slot


def _record(claim: Claim) -> Record:
    return Record(
        claim.kind, claim.name, "discovered", claim.dist, claim.version, module=claim.value
    )


def _denied(claim: Claim, cause: str, remedy: str) -> Slot:
    slot = Slot(_record(claim), claim)
    slot.fail(denied(claim.key, claim.origin, cause, remedy), "denied")
    return slot


def denied(key: str, origin: str, cause: str, remedy: str) -> ProviderDenied:
    """The error for a provider that policy forbids."""
    what = f"{key} may not be used; nothing of it was imported"
    return ProviderDenied(what, provider=key, origin=origin, cause=cause, remedy=remedy)


def incompatible(slot: Slot, cause: str, remedy: str) -> ProviderIncompatible:
    """The error for a provider that wants another contract; adds what its metadata requires."""
    declared = declared_requirement(slot.claim.files) if slot.claim else ""
    return ProviderIncompatible(
        f"{slot.record.key} needs another version of the contract",
        provider=slot.record.key,
        origin=slot.record.origin,
        cause=f"{cause} (its metadata says: Requires-Dist: {declared})" if declared else cause,
        remedy=remedy,
    )


def _duplicate(claims: list[Claim]) -> DuplicateProvider:
    key, dists = claims[0].key, sorted({claim.dist for claim in claims})
    if len(dists) == 1:
        return DuplicateProvider(
            f"{dists[0]} provides {key} more than once",
            provider=key,
            origin=claims[0].origin,
            cause=f"its entry points: {', '.join(claim.value for claim in claims)}",
            remedy=f"report it to the authors of {dists[0]}",
        )
    origins = [claim.origin for claim in claims]
    return DuplicateProvider(
        f"{len(dists)} distributions provide {key}",
        provider=key,
        origin=" and ".join(origins),
        cause=f"{', '.join(origins[:-1])} and {origins[-1]} claim the name, so none is picked",
        remedy=f"pip uninstall {dists[-1]}, or leave it out with HARDPOINT_DENY=dist:{dists[-1]}",
    )


def taken(record: Record) -> DuplicateProvider:
    """The error for adding a name that is there already."""
    return DuplicateProvider(
        f"{record.key} is there already",
        provider=record.key,
        origin=record.origin,
        cause=f"it comes from: {' and '.join(record.rivals) or record.origin}",
        remedy=f"use another name, or first registry.remove({record.kind!r}, {record.name!r})",
    )


def circular(record: Record) -> ProviderFailed:
    """The error for a load that waits for itself; not remembered, since only this call is wrong."""
    return ProviderFailed(
        f"{record.key} could not be loaded",
        provider=record.key,
        origin=record.origin,
        cause="it was asked for while it is being loaded, by code that the load itself waits for",
        remedy="do not load providers while a provider's module is being imported",
    )


def given_up(record: Record) -> ProviderFailed:
    """The error, in a forked child, for what another thread was loading at the fork."""
    return ProviderFailed(
        f"{record.key} could not be loaded",
        provider=record.key,
        origin=record.origin,
        cause="another thread was importing it when this process was forked",
        remedy="load it before forking, or start processes with the 'spawn' method",
    )


def not_found(
    kind: Kind, name: str, slots: Mapping[str, Slot], problems: int, reserved: Mapping[str, str]
) -> ProviderNotFound:
    """The error for a name that nothing provides, with the nearest name that something does."""
    key = f"{kind}:{name}"
    installed = [slot.record.name for slot in slots.values() if slot.record.kind == kind]
    first_party = [known.partition(":")[2] for known in reserved if known.startswith(f"{kind}:")]
    elsewhere = [s.record.key for s in slots.values() if s.record.name == name]
    remedy = "`hardpoint list` shows what is installed"
    if key in reserved:
        cause = "it is a first-party provider that is not installed"
        remedy = f"pip install {reserved[key]}"
    elif elsewhere:
        cause = f"there is {' and '.join(elsewhere)}, of another kind"
    else:
        hint = did_you_mean(name, [*installed, *first_party])
        cause = hint if hint.startswith("did you mean") else did_you_mean(name, installed)
    if problems:
        found = "1 problem was" if problems == 1 else f"{problems} problems were"
        remedy += f" ({found} found in installed metadata: it shows that too)"
    return ProviderNotFound(
        f"nothing installed provides {key}", provider=key, cause=cause, remedy=remedy
    )
