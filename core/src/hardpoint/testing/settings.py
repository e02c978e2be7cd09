"""``conformance.toml``: how the kit is to open a provider, and which failures are known.

::

    ["backend:acme"]
    precision = "fp16"            # what models and operators are computed in; default: fp32
    config = { device_count = 1 } # for ``open``
    options = { mode = "fast" }   # for ``compile``
    golden = "tests/golden"       # serializers: files that must stay readable, beside their .json
    hostile = "tests/hostile"     # serializers: files that must be refused

    ["backend:acme".expected-failures]
    nan_and_infinity = "the firmware flushes NaN to zero (bug 1234)"
    "operator:kthvalue" = "sorts descending (bug 1250)"
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hardpoint.errors import ConfigError, did_you_mean
from hardpoint.interfaces.kinds import KINDS

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the same parser under its older name
    import tomli as tomllib

FILE = "conformance.toml"
_LONGEST = 1 << 20  # bytes; it is written by hand


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``conformance.toml`` says of one provider; see the module for an example.

    :param expected_failures: check (or ``operator:NAME``) -> why it fails. Strict: one that does
        not fail any more fails the run.
    :param path: the file, or ``None``.
    """

    precision: str = ""
    config: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    golden: str = ""
    hostile: str = ""
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None

    def folder(self, name: str) -> Path | None:
        """The folder that setting ``golden`` or ``hostile`` names, relative to the file.

        :raises ConfigError: it is not there.
        """
        value: str = getattr(self, name)
        if not value:
            return None
        found = (self.path.parent if self.path else Path()) / value
        if not found.is_dir():
            raise _wrong(self.path, f"{name} is {value!r}, and there is no such folder")
        return found

    @classmethod
    def read(cls, path: Path | None, provider: str) -> Settings:
        """What the file says of ``provider``; nothing, where ``path`` is ``None``.

        :raises ConfigError: the file cannot be read, or holds something that no setting is.
        """
        if path is None:
            return cls()
        try:
            with path.open("rb") as file:
                text = file.read(_LONGEST + 1)
            if len(text) > _LONGEST:
                raise _wrong(path, f"it has more than {_LONGEST} bytes")
            parsed = tomllib.loads(text.decode())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise _wrong(path, f"{type(error).__name__}: {error}") from error
        for key, table in parsed.items():
            if not isinstance(table, dict):
                raise _wrong(path, f"{key!r} is no table; every table is named after a provider")
            kind, colon, name = key.partition(":")
            if kind not in KINDS or not colon or not name:
                raise _wrong(path, f'table {key!r} names no provider; write ["kind:name"]')
        return cls._of(parsed.get(provider, {}), path)

    @classmethod
    def _of(cls, table: Mapping[str, Any], path: Path) -> Settings:
        known = {f.name.replace("_", "-"): f for f in fields(cls) if f.name != "path"}
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key not in known:
                raise _wrong(path, f"there is no setting {key!r}; {did_you_mean(key, known)}")
            wanted = dict if "Mapping" in str(known[key].type) else str
            if not isinstance(value, wanted):
                kind = "a table" if wanted is dict else "text"
                raise _wrong(path, f"setting {key!r} is {value!r}, not {kind}")
            values[known[key].name] = value
        for name, reason in values.get("expected_failures", {}).items():
            if not isinstance(reason, str) or not reason.strip():
                raise _wrong(path, f"the expected failure {name!r} has no reason")
        return cls(**values, path=path)


def _wrong(path: Path | None, cause: str) -> ConfigError:
    return ConfigError(
        f"the settings of the conformance kit are unusable: {path}",
        cause=cause,
        remedy="docs/how-to/check-a-plugin.md shows every setting",
    )
