"""SARIF 2.1.0 as far as we write it, stricter than the standard: nothing else may be there.

The whole schema is 110 kB: https://json.schemastore.org/sarif-2.1.0.json. Names, types and what is
required are its own.
"""

import jsonschema

TEXT = {"type": "string", "minLength": 1}


def shape(required, **optional):
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def several(items, **more):
    return {"type": "array", "items": items, **more}


MESSAGE = shape({"text": TEXT})
ADDRESS = shape(
    {"uri": {"type": "string", "format": "uri-reference", "minLength": 1}},
    uriBaseId={"const": "%SRCROOT%"},
)
REGION = shape(
    {
        "byteOffset": {"type": "integer", "minimum": 0},
        "byteLength": {"type": "integer", "minimum": 1},
    }
)
LOCATION = shape(
    {"physicalLocation": shape({"artifactLocation": ADDRESS}, region=REGION)},
    logicalLocations=several(
        shape({"name": TEXT, "fullyQualifiedName": TEXT, "kind": {"const": "resource"}})
    ),
)
RULE = shape(
    {
        "id": {"type": "string", "pattern": "^[a-z-]+$"},
        "shortDescription": MESSAGE,
        "fullDescription": MESSAGE,
        "help": MESSAGE,
        "defaultConfiguration": shape({"level": {"const": "error"}}),
        "properties": {"type": "object"},
    }
)
RESULT = shape(
    {
        "ruleId": {"enum": ["dangerous-global", "refused-file"]},
        "ruleIndex": {"enum": [0, 1]},
        "level": {"const": "error"},
        "message": MESSAGE,
        "locations": several(LOCATION, minItems=1, maxItems=1),
        "partialFingerprints": {"type": "object", "additionalProperties": TEXT},
    }
)
NOTIFICATION = shape(
    {
        "descriptor": shape({"id": {"const": "unknown-file"}, "index": {"const": 0}}),
        "level": {"const": "note"},
        "message": MESSAGE,
        "locations": several(LOCATION, minItems=1, maxItems=1),
    }
)
DRIVER = shape(
    {
        "name": {"const": "hardpoint"},
        "version": TEXT,
        "rules": several(RULE, minItems=2, maxItems=2),
        "notifications": several(shape({"id": TEXT, "shortDescription": MESSAGE})),
    }
)
RUN = shape(
    {
        "tool": shape({"driver": DRIVER}),
        "originalUriBaseIds": shape(
            {"%SRCROOT%": shape({"uri": {"type": "string", "pattern": "^file:///(.*/)?$"}})}
        ),
        "invocations": several(
            shape(
                {
                    "executionSuccessful": {"const": True},
                    "toolExecutionNotifications": several(NOTIFICATION),
                }
            )
        ),
        "artifacts": several(shape({"location": ADDRESS, "properties": {"type": "object"}})),
        "results": several(RESULT),
        "columnKind": {"const": "utf16CodeUnits"},
    }
)
LOG = shape(
    {
        "$schema": {"type": "string", "pattern": "sarif-schema-2\\.1\\.0\\.json$"},
        "version": {"const": "2.1.0"},
        "runs": several(RUN, minItems=1, maxItems=1),
    }
)


def checked(log):
    """The one run of a SARIF log that is valid."""
    jsonschema.validate(log, LOG, cls=jsonschema.Draft7Validator)
    [run] = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
    return run
