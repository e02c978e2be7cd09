"""What a new plugin may be called, what it may be of, and what it asks of the core."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from dependency_groups import tomllib
from hardpoint import ConfigError
from hardpoint.interfaces.kinds import KINDS
from hardpoint.registry.reserved import RESERVED
from hardpoint.scaffold.contents import contents
from hardpoint.scaffold.names import LONGEST, Names, parse_kinds
from hardpoint.scaffold.render import render
from hardpoint.scaffold.versions import CoreVersions


def refusal(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Names.parse(name)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "dist", "package", "prefix"),
    [
        ("acme", "hardpoint-acme", "hardpoint_acme", "Acme"),
        ("acme-npu", "hardpoint-acme-npu", "hardpoint_acme_npu", "AcmeNpu"),
        ("acme_npu2", "hardpoint-acme-npu2", "hardpoint_acme_npu2", "AcmeNpu2"),
        ("x", "hardpoint-x", "hardpoint_x", "X"),
    ],
)
def test_every_name_follows_from_the_providers(
    name: str, dist: str, package: str, prefix: str
) -> None:
    names = Names.parse(name)
    assert (names.provider, names.dist, names.package, names.prefix) == (
        name, dist, package, prefix,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["", "Acme", "9lives", "acme--npu", "acme-", "_acme", "a.b", "a b", "ünit", "../up", "a\n"],
)
def test_what_is_no_name_of_a_package_is_refused(name: str) -> None:
    assert refusal(name) == (
        f"a plugin cannot be called {name!r}\n"
        "  cause: it would be no name of a Python package\n"
        "  remedy: use small letters and digits, joined by single - or _, and begin with a letter: 'acme_npu'"
    )


def test_a_name_that_is_too_long_is_refused() -> None:
    assert "it has 25 characters" in refusal("a" * (LONGEST + 1))
    assert Names.parse("a" * LONGEST)


def test_names_of_first_party_providers_are_refused_whatever_the_kind() -> None:
    for key in RESERVED:
        assert "is a first-party provider, of hardpoint-" in refusal(key.partition(":")[2])
    assert refusal("gloo") == (
        "a plugin cannot be called 'gloo'\n"
        "  cause: transport:gloo is a first-party provider, of hardpoint-gloo\n"
        "  remedy: choose another, e.g. your company's or your chip's"
    )
    assert "first-party" in refusal("partitioners")


def test_names_that_would_mean_something_else_are_refused() -> None:
    assert "targets='auto' means whatever works here" in refusal("auto")
    assert "integrations in hardpoint's own repository" in refusal("contrib-acme")
    assert "'hardpoint-' is put before it anyway" in refusal("hardpoint-acme")
    assert Names.parse("hardpointed").dist == "hardpoint-hardpointed"


@given(st.text(max_size=40))
def test_any_text_is_a_good_name_or_refused_in_words(text: str) -> None:
    try:
        names = Names.parse(text)
    except ConfigError as error:
        assert error.cause
        assert error.remedy
    else:
        assert names.package.isidentifier()
        assert names.prefix.isidentifier()


def test_kinds_come_once_each_in_one_order() -> None:
    assert parse_kinds("transport, backend,transport") == ("backend", "transport")
    assert parse_kinds(",".join(reversed(KINDS))) == KINDS


def test_a_kind_that_does_not_exist_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_kinds("backend,serialiser")
    assert str(caught.value) == (
        "'serialiser' is no kind of provider\n"
        "  remedy: did you mean 'serializer'?; several are separated by commas: --kinds backend,transport"
    )
    with pytest.raises(ConfigError, match="no kind of provider was named"):
        parse_kinds(" , ")


@pytest.mark.parametrize(
    ("version", "minors", "range_"),
    [
        ("0.1.0", ("0.1",), ">=0.1,<1"),
        ("0.2.0", ("0.2", "0.1"), ">=0.1,<1"),
        ("1.0.0rc1", ("1.0",), ">=1.0,<2"),
        ("1.10.3", ("1.10", "1.9"), ">=1.9,<2"),
    ],
)
def test_the_core_is_asked_for_from_the_oldest_minor_that_ci_tests(
    version: str, minors: tuple[str, ...], range_: str
) -> None:
    core = CoreVersions.of(version)
    assert core.minors == minors
    assert core.range == range_
    assert ("the one before" in core.comment) == (len(minors) == 2)


def author_of(text: str) -> object:
    files = {f.path: f.text for f in contents(Names.parse("acme"), ("backend",), text)}
    return tomllib.loads(files["pyproject.toml"])["project"]["authors"]


def test_an_author_is_a_name_or_a_name_with_an_address() -> None:
    assert author_of("") == [{"name": "The hardpoint-acme authors"}]
    assert author_of("Ada") == [{"name": "Ada"}]
    assert author_of('Ada "A" \\ Ü <ada@example.org>') == [
        {"name": 'Ada "A" \\ Ü', "email": "ada@example.org"}
    ]
    for bad in ("<ada@example.org>", "Ada <nowhere>", "Ada\nname = 1", "Ada <a@b> <c@d>"):
        with pytest.raises(ConfigError, match="names no author"):
            author_of(bad)


def test_a_template_that_asks_for_a_value_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError, match="dist"):
        render("project/origin.py", {})
