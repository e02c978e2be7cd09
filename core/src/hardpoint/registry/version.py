"""Whether a provider and this core speak the same contract.

The major stands in the entry point group's name, so that it is known without an import; the minor
in ``info().requires_api``. The core accepts any minor up to its own. Versions of distributions are
never compared.
"""

from __future__ import annotations

import importlib.metadata as metadata
import re

import hardpoint
from hardpoint.interfaces.kinds import API_MAJOR, API_MINOR
from hardpoint.registry.reserved import normalize

HAVE = f"{API_MAJOR}.{API_MINOR}"


def objection_to_major(major: int) -> tuple[str, str]:
    """(cause, remedy) if the contract's ``major`` is not this core's, else two empty strings."""
    if major == API_MAJOR:
        return "", ""
    cause = f"it is written for contract v{major}; this is hardpoint {_core()}, contract {HAVE}"
    return cause, _upgrade(newer=major > API_MAJOR)


def objection_to(requires_api: object) -> tuple[str, str]:
    """(cause, remedy) if the core cannot serve ``requires_api``, else two empty strings."""
    if not (
        isinstance(requires_api, tuple)
        and len(requires_api) == 2
        and all(type(part) is int and part >= 0 for part in requires_api)
    ):
        return (
            f"its info() says requires_api={requires_api!r}, which is not (major, minor)",
            f"its authors: state requires_api=({API_MAJOR}, {API_MINOR}) in info()",
        )
    major, minor = requires_api
    if major == API_MAJOR and minor <= API_MINOR:
        return "", ""
    cause = f"it requires contract {major}.{minor}; this is hardpoint {_core()}, contract {HAVE}"
    return cause, _upgrade(newer=major >= API_MAJOR)


def declared_requirement(dist: metadata.Distribution) -> str:
    """What the distribution's metadata asks of hardpoint, e.g. ``"hardpoint>=1,<2"``, or ``""``."""
    for requirement in dist.requires or ():
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        if match and normalize(match[0]) == "hardpoint":
            return requirement
    return ""


def _core() -> str:
    return hardpoint.__version__


def _upgrade(*, newer: bool) -> str:
    if newer:
        return "pip install --upgrade hardpoint, or install an older release of the plugin"
    return "upgrade the plugin, or install the hardpoint release that it was written for"
