"""The results of a scan as SARIF 2.1.0, which code hosts and CI systems show.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hardpoint.weights.scan import REFUSED, UNKNOWN, Scanned

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_ROOT = "%SRCROOT%"
DANGEROUS, UNSOUND = "dangerous-global", "refused-file"
_RULES = (
    (
        DANGEROUS,
        "A pickle asks for a function or class that weights do not need.",
        "Loading the file with pickle runs what it names. Save the tensors alone, e.g. as"
        " safetensors, or get the file from somebody you trust.",
    ),
    (
        UNSOUND,
        "A file of weights is damaged, or made to mislead.",
        "hardpoint refuses to load it. Get it again from where it came from.",
    ),
)


def sarif(results: Iterable[Scanned], *, version: str, base: Path) -> dict[str, Any]:
    """One run: a result for each dangerous global and each refused file.

    What is allowed is no result. Files that nobody knows are notifications of the run, and every
    file that was looked at is among its artifacts.

    :param version: of hardpoint.
    :param base: the folder that the files' addresses are relative to.
    """
    results = list(results)
    found = [each for result in results for each in _results(result, base)]
    unknown = [_notification(each, base) for each in results if each.status == UNKNOWN]
    driver = {
        "name": "hardpoint",
        "version": version,
        "rules": [
            {
                "id": name,
                "shortDescription": {"text": short},
                "fullDescription": {"text": short},
                "help": {"text": text},
                "defaultConfiguration": {"level": "error"},
                "properties": {"tags": ["security"], "security-severity": "9.0"},
            }
            for name, short, text in _RULES
        ],
        "notifications": [
            {"id": "unknown-file", "shortDescription": {"text": "No serializer reads the file."}}
        ],
    }
    run = {
        "tool": {"driver": driver},
        "originalUriBaseIds": {_ROOT: {"uri": f"{base.resolve().as_uri().rstrip('/')}/"}},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": unknown}],
        "artifacts": [
            {
                "location": _artifact(each.file, base),
                "properties": {"status": each.status, "format": each.format},
            }
            for each in results
        ],
        "results": found,
        "columnKind": "utf16CodeUnits",
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _results(result: Scanned, base: Path) -> Iterable[dict[str, Any]]:
    for each in result.dangerous:
        asked = f"{each['module']}.{each['name']}"
        where = f"byte {each['position']} of {each['pickle']}"
        file = Path(each.get("path") or result.file)
        yield _result(
            DANGEROUS,
            f"The pickle asks for {asked}, at {where}.",
            _location(file, base, each),
            f"{file.name} {each['pickle']} {asked}",
        )
    if result.status == REFUSED:
        yield _result(
            UNSOUND,
            result.reason or "It is refused.",
            _location(result.file, base, {}),
            result.file.name,
        )


def _result(rule: str, text: str, location: dict[str, Any], print_of: str) -> dict[str, Any]:
    names = [name for name, *_ in _RULES]
    digest = hashlib.sha256(f"{rule} {print_of}".encode()).hexdigest()
    return {
        "ruleId": rule,
        "ruleIndex": names.index(rule),
        "level": "error",
        "message": {"text": text},
        "locations": [location],
        "partialFingerprints": {"hardpoint/v1": digest},
    }


def _location(file: Path, base: Path, place: Mapping[str, Any]) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": _artifact(file, base)}
    if place.get("offset") is not None:
        physical["region"] = {"byteOffset": place["offset"], "byteLength": place.get("length", 1)}
    location: dict[str, Any] = {"physicalLocation": physical}
    if place.get("member"):
        name = str(place["member"])
        location["logicalLocations"] = [
            {"name": name.rpartition("/")[2], "fullyQualifiedName": name, "kind": "resource"}
        ]
    return location


def _artifact(file: Path, base: Path) -> dict[str, str]:
    """Relative to ``base`` where it is below; links are not followed."""
    absolute = Path(file if file.is_absolute() else base / file)
    try:
        relative = absolute.relative_to(base)
    except ValueError:
        return {"uri": absolute.as_uri()}
    return {"uri": quote(relative.as_posix()), "uriBaseId": _ROOT}


def _notification(result: Scanned, base: Path) -> dict[str, Any]:
    return {
        "descriptor": {"id": "unknown-file", "index": 0},
        "level": "note",
        "message": {"text": f"No serializer reads it: {result.reason}."},
        "locations": [{"physicalLocation": {"artifactLocation": _artifact(result.file, base)}}],
    }
