"""Check what is asked of backends against what they declare, before a model is captured for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import rich_click as click

from hardpoint.errors import ProviderError, did_you_mean
from hardpoint.interfaces.backend import PRECISIONS, BackendInfo
from hardpoint.interfaces.kinds import Target
from hardpoint.registry.registry import default_registry


def check_backends(
    targets: Sequence[str],
    options: Mapping[str, Mapping[str, object]],
    precision: str | Mapping[str, str],
) -> None:
    """Refuse what no backend can do. Imports light plugin modules only, never torch.

    :param targets: as given on the command line; none for every available backend.
    :raises click.BadParameter: no such backend, option or precision.
    :raises ProviderError: a target that was named cannot be loaded.
    """
    infos = _named(targets) if targets else _installed()
    for backend, chosen in options.items():
        if backend not in infos:
            _refuse("--option", f"{backend!r} is no backend of this plan", backend, infos)
        for name in chosen:
            if name not in infos[backend].options:
                known = infos[backend].options
                _refuse("--option", f"{backend} has no option {name!r}", name, known)
    if not isinstance(precision, str):
        for backend, one in precision.items():
            if backend not in infos:
                _refuse("--precision", f"{backend!r} is no backend of this plan", backend, infos)
            _check_precision(one, {backend: infos[backend]})
    elif infos and precision != "auto":
        _check_precision(precision, infos)


def _check_precision(precision: str, infos: Mapping[str, BackendInfo]) -> None:
    """One of these backends can compute in it."""
    declared = {p for info in infos.values() for p in info.precisions}
    if precision not in declared:
        has = ", ".join(p for p in PRECISIONS if p in declared)
        verb = "has" if len(infos) == 1 else "have"
        raise click.BadParameter(
            f"{', '.join(infos)} cannot compute in {precision}, but {verb}: {has}",
            param_hint="'--precision'",
        )


def _named(targets: Sequence[str]) -> dict[str, BackendInfo]:
    names = dict.fromkeys(Target.parse(target).backend for target in targets)
    return {name: default_registry().info("backend", name) for name in names}


def _installed() -> dict[str, BackendInfo]:
    """Of every backend that loads; why one does not is told where backends are picked."""
    infos = {}
    for name in default_registry().names("backend"):
        try:
            infos[name] = default_registry().info("backend", name)
        except ProviderError:
            continue
    return infos


def _refuse(option: str, what: str, name: str, known: Mapping[str, object]) -> NoReturn:
    near = did_you_mean(name, known) or "it has none"
    raise click.BadParameter(f"{what}; {near}", param_hint=f"'{option}'")
