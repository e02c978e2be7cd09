"""What a new plugin and its parts are called."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hardpoint.errors import ConfigError, did_you_mean
from hardpoint.interfaces.kinds import KINDS, Kind
from hardpoint.registry.reserved import RESERVED, normalize

# The longest line of the templates that a name stands in must stay under 100 characters.
LONGEST = 24
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_RULE = "use small letters and digits, joined by single - or _, and begin with a letter: 'acme_npu'"


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one plugin.

    :param provider: what users write: ``acme_npu``; also the name of each of its providers.
    """

    provider: str

    @classmethod
    def parse(cls, provider: str) -> Names:
        """Check a name that a person wrote.

        :raises ConfigError: it cannot be a provider's, or a package's; or it is somebody else's.
        """
        if re.match(r"hardpoint([-_]|$)", provider):
            raise _refused(provider, "'hardpoint-' is put before it anyway", "leave that off")
        if not _NAME.fullmatch(provider):
            raise _refused(provider, "it would be no name of a Python package", _RULE)
        if len(provider) > LONGEST:
            cause = f"it has {len(provider)} characters"
            raise _refused(provider, cause, f"choose one of at most {LONGEST}")
        names = cls(provider)
        taken = [key for key, dist in RESERVED.items() if names._is_in(key, dist)]
        if taken:
            cause = f"{taken[0]} is a first-party provider, of {RESERVED[taken[0]]}"
            raise _refused(provider, cause, "choose another, e.g. your company's or your chip's")
        if provider == "auto":
            cause = "targets='auto' means whatever works here"
            raise _refused(provider, cause, "choose another")
        if names.dist.startswith("hardpoint-contrib-") or provider == "contrib":
            cause = "'hardpoint-contrib-' is for integrations in hardpoint's own repository"
            raise _refused(provider, cause, "choose another")
        return names

    def _is_in(self, key: str, dist: str) -> bool:
        return self.dist == dist or key.partition(":")[2] == self.provider

    @property
    def dist(self) -> str:
        """The distribution: ``hardpoint-acme-npu``."""
        return normalize(f"hardpoint-{self.provider}")

    @property
    def package(self) -> str:
        """The Python package: ``hardpoint_acme_npu``."""
        return self.dist.replace("-", "_")

    @property
    def prefix(self) -> str:
        """What class names begin with: ``AcmeNpu``."""
        return "".join(part.capitalize() for part in re.split("[-_]", self.provider))


def parse_kinds(text: str) -> tuple[Kind, ...]:
    """Kinds separated by commas, each once, in the contract's order.

    :raises ConfigError: a word that is no kind, or none at all.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in KINDS:
            hint = did_you_mean(word, KINDS)
            raise ConfigError(
                f"{word!r} is no kind of provider",
                remedy=f"{hint}; several are separated by commas: --kinds backend,transport",
            )
    if not words:
        raise ConfigError("no kind of provider was named", remedy=f"--kinds takes {_listed(KINDS)}")
    return tuple(kind for kind in KINDS if kind in words)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _refused(name: str, cause: str, remedy: str) -> ConfigError:
    return ConfigError(f"a plugin cannot be called {name!r}", cause=cause, remedy=remedy)
