"""How an event's details are called as span attributes.

Names follow OpenTelemetry's conventions: a namespace, dots between parts, ``error.type`` and
``exception.*`` as specified (https://opentelemetry.io/docs/specs/semconv/general/naming/ and
/exceptions/exceptions-spans/).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry.util.types import AttributeValue

from hardpoint import Event

Attributes = dict[str, AttributeValue]

PROVIDER: Final = "hardpoint.provider"
KIND: Final = "hardpoint.kind"
STAGE: Final = "hardpoint.stage"
SEVERITY: Final = "hardpoint.severity"
ERROR_TYPE: Final = "error.type"

# Details of an event that become attributes of its span; the others are in the span itself.
_NAMES: Final[Mapping[str, str]] = {
    "dist": "hardpoint.distribution.name",
    "version": "hardpoint.distribution.version",
    "origin": "hardpoint.distribution.origin",
    "import_ms": "hardpoint.import_ms",
    "program": "hardpoint.program.name",
    "nodes": "hardpoint.program.nodes",
    "segments": "hardpoint.plan.segments",
    "targets": "hardpoint.plan.targets",
    "precision": "hardpoint.precision",
    "max_error": "hardpoint.verification.max_error",
    "path": "hardpoint.package.path",
    "segment": "hardpoint.fallback.segment",
    "from": "hardpoint.fallback.from",
    "to": "hardpoint.fallback.targets",
    "reason": "hardpoint.fallback.reason",
    "stage": STAGE,
    "remedy": "hardpoint.error.remedy",
}


def of_provider(key: str) -> Attributes:
    """Attributes that name a provider, ``kind:name``; none for ``""``."""
    kind, colon, _ = key.partition(":")
    return {PROVIDER: key, KIND: kind} if colon else {}


def of_event(event: Event) -> Attributes:
    """Attributes of an event's span. Details that are empty are left out."""
    found = of_provider(event.provider)
    for name, attribute in _NAMES.items():
        value = event.data.get(name)
        if isinstance(value, (list, tuple)):
            found[attribute] = [str(item) for item in value]
        elif isinstance(value, (bool, int, float, str)) and value != "":
            found[attribute] = value
    return found
