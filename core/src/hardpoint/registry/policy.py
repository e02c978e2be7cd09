"""Which providers may be used: decided from names alone, before anything is imported.

Entries are written ``kind:name`` or ``dist:NAME``. Three layers say what holds:

- ``allow`` and ``override`` come from the first layer that sets them: code, then environment
  (``HARDPOINT_ALLOW``), then the config file;
- ``deny`` is what any layer denies. Deny wins over allow.

This is no sandbox: an installed wheel can run code at interpreter start, whatever we do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from hardpoint.errors import ConfigError, did_you_mean
from hardpoint.interfaces.kinds import KINDS
from hardpoint.registry.reserved import RESERVED, normalize

_LISTS = ("allow", "deny", "override")


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be used. Entries are ``kind:name`` or ``dist:NAME``.

    :param allow: all that may be used; ``None`` allows everything, ``()`` allows nothing.
    :param deny: what may not be used, whatever ``allow`` says.
    :param override: reserved names (``kind:name``) that any distribution may provide.
    :raises ConfigError: an entry is neither ``kind:name`` nor ``dist:NAME``.
    """

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    override: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            given = getattr(self, field.name)
            if given is not None:
                checked = _entries(given, f"Policy({field.name}=...)")
                object.__setattr__(self, field.name, checked)

    def resolve(self) -> Policy:
        """This policy (the code's), completed by the environment and the config file.

        :raises ConfigError: the environment or the config file holds something unusable.
        """
        layers = (self, _from_environment(), _from_file())
        allow = next((layer.allow for layer in layers if layer.allow is not None), None)
        deny = dict.fromkeys(entry for layer in layers for entry in layer.deny)
        override = next((layer.override for layer in layers if layer.override), ())
        return Policy(allow, tuple(deny), override)

    def objection(
        self, kind: str, name: str, dist: str, reserved: Mapping[str, str] = RESERVED
    ) -> tuple[str, str]:
        """(cause, remedy) of why this provider may not be used, or two empty strings if it may.

        :param dist: its distribution, or ``""`` if this process added it.
        :param reserved: names that only one distribution may provide, and which.
        """
        key = f"{kind}:{name}"
        source = f"dist:{normalize(dist)}" if dist else ""
        for entry in self.deny:
            if entry in (key, source):
                where = "Policy(deny=...), HARDPOINT_DENY or the config file"
                return f"policy denies {entry}", f"take {entry} out of {where}"
        if self.allow is not None and key not in self.allow and source not in self.allow:
            allowed = ", ".join(self.allow) or "nothing"
            where = "Policy(allow=...), HARDPOINT_ALLOW or the config file"
            return f"policy allows only: {allowed}", f"add {key} to {where}"
        owner = reserved.get(key)
        if owner and key not in self.override and normalize(dist) != owner:
            trust = f"Policy(override=({key!r},)) to trust this one"
            return (
                f"the name {key} is reserved for {owner}",
                f"pip install {owner}, or pass {trust}",
            )
        return "", ""

    def unknown(
        self, keys: Iterable[str], dists: Iterable[str], reserved: Mapping[str, str] = RESERVED
    ) -> tuple[str, ...]:
        """A sentence for each entry that names nothing installed and nothing first-party."""
        known = {*keys, *reserved}
        known |= {f"dist:{normalize(dist)}" for dist in {*dists, *reserved.values()}}
        written = dict.fromkeys((*(self.allow or ()), *self.deny, *self.override))
        return tuple(
            f"policy names {entry!r}, which is not installed; {_nearest(entry, known)}"
            for entry in written
            if entry not in known
        )


def _nearest(entry: str, known: set[str]) -> str:
    """A suggestion, or where to look where nothing is near."""
    hint = did_you_mean(entry, known)
    return hint if hint.startswith("did you mean") else "`hardpoint list` shows what is"


def _from_environment() -> Policy:
    """``HARDPOINT_ALLOW`` and ``HARDPOINT_DENY``; set but empty, ALLOW allows nothing."""
    allow, deny = (os.environ.get(f"HARDPOINT_{which}") for which in ("ALLOW", "DENY"))
    return Policy(
        None if allow is None else _entries(_split(allow), "HARDPOINT_ALLOW"),
        _entries(_split(deny or ""), "HARDPOINT_DENY"),
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def config_path() -> Path:
    """``HARDPOINT_CONFIG``, else ``hardpoint/config.json`` in the user's config folder (XDG)."""
    named = os.environ.get("HARDPOINT_CONFIG")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "hardpoint" / "config.json"


def _from_file() -> Policy:
    """``{"policy": {"allow": [...], "deny": [...], "override": [...]}}``; all parts optional."""
    path = config_path()
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        if "HARDPOINT_CONFIG" in os.environ and str(path) == os.environ["HARDPOINT_CONFIG"]:
            raise ConfigError(
                f"HARDPOINT_CONFIG names {path}, which does not exist",
                remedy="correct the variable, or unset it",
            ) from error
        return Policy()
    except (OSError, UnicodeError) as error:
        raise _unusable(path, f"{type(error).__name__}: {error}") from error
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"not JSON: {error}") from error
    section = whole.get("policy", {}) if isinstance(whole, Mapping) else None
    if not isinstance(section, Mapping):
        raise _unusable(path, 'it is not an object with an object "policy"')
    for name in section:
        if name not in _LISTS:
            raise _unusable(path, f"unknown policy list {name!r}; {did_you_mean(name, _LISTS)}")
    lists = {name: _entries(section[name], f'"{name}" in {path}') for name in section}
    return Policy(lists.get("allow"), lists.get("deny", ()), lists.get("override", ()))


def _unusable(path: Path, cause: str) -> ConfigError:
    return ConfigError(
        f"the config file {path} is unusable",
        cause=cause,
        remedy='write {"policy": {"allow": [...], "deny": [...]}}, or delete the file',
    )


def _entries(given: object, where: str) -> tuple[str, ...]:
    """Entries in one spelling: kind in lower case, distribution normalized.

    :raises ConfigError: naming ``where`` it stands.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError(
            f"{where} is {given!r}, not a list of entries",
            remedy="write a list, e.g. ['backend:cpu', 'dist:acme-npu']",
        )
    return tuple(_entry(item, where) for item in given)


def _entry(item: object, where: str) -> str:
    kind, colon, name = (part.strip() for part in str(item).partition(":"))
    kind = kind.lower()
    if not isinstance(item, str) or not colon or not name or kind not in (*KINDS, "dist"):
        hint = did_you_mean(kind, (*KINDS, "dist")) if colon else ""
        raise ConfigError(
            f"{where} holds {item!r}, which is neither kind:name nor dist:NAME",
            cause=hint if hint.startswith("did you mean") else "",
            remedy=f"write e.g. 'backend:cpu' or 'dist:acme-npu'; kinds: {', '.join(KINDS)}",
        )
    return f"dist:{normalize(name)}" if kind == "dist" else f"{kind}:{name}"
