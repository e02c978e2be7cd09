"""What open says to a configuration that it does not understand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hardpoint.errors import ConfigError, HardpointError, ProviderFailed
from hardpoint.testing.check import check, expect, fail, skip_unless
from hardpoint.testing.subject import Subject

UNKNOWN = "no_such_option"


class ConfigurationChecks:
    """A misspelt option that nobody notices costs its user a day."""

    @check("loads")
    def test_unknown_option_is_named(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Opening it with an option that it does not have raises a ConfigError that names it."""
        figures["says"] = _refusal(subject, {**subject.settings.config, UNKNOWN: 1}, UNKNOWN)

    @check("loads")
    def test_wrong_value_is_named(self, subject: Subject, figures: dict[str, Any]) -> None:
        """An option with a value of a senseless type raises a ConfigError that names it."""
        config = subject.settings.config
        skip_unless(
            config, "no options are known: conformance.toml names none under config for this one"
        )
        for option in config:
            # No option is a list that holds a mapping of nothing.
            figures[option] = _refusal(subject, {**config, option: [{"": None}]}, option)


def _refusal(subject: Subject, config: Mapping[str, object], option: str) -> str:
    given = f"hardpoint_{subject.kind}_open with {option} = {config[option]!r}"
    remedy = "raise hardpoint.ConfigError that names the option (hardpoint.did_you_mean helps)"
    try:
        subject.open(config)
    except ConfigError as error:
        said = str(error)
        expect(option in said, f"{given} raised a ConfigError that does not name it: {said}")
        expect(
            error.remedy or error.cause,
            f"{given} raised a ConfigError that says neither cause nor remedy: {said}",
        )
        return said
    except ProviderFailed as error:
        fail(f"{given} raised {error.cause}: {remedy}")
    except HardpointError as error:
        fail(f"{given} raised {type(error).__name__}, not ConfigError: {error}")
    else:
        fail(f"{given} was accepted without a word: {remedy}")
