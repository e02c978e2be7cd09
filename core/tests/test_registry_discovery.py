"""Discovery reads what installers wrote, survives what they damaged, and imports nothing."""

from __future__ import annotations

import email
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

import hardpoint
from fakes.dists import PLUGIN, FakeSite
from hardpoint.interfaces.kinds import KINDS
from hardpoint.registry.discovery import PROVIDER_NAME, parse_entry_points, parse_header


@pytest.fixture
def site(tmp_path: Path) -> FakeSite:
    return FakeSite(tmp_path / "site")


def registry_of(*sites: FakeSite) -> hardpoint.Registry:
    return hardpoint.Registry(path=[str(site.root) for site in sites])


def test_one_record_a_provider_sorted_by_kind_and_name(site: FakeSite) -> None:
    site.add(
        "Acme_NPU",
        "1.5",
        entries={
            "transport.v1:wire": "acme.wire",
            "backend.v1:npu": "acme.plugin:npu",
            "backend.v1:dsp": "acme.plugin",
            "serializer.v1:acme": "acme.files [fast]",
        },
    )
    records = registry_of(site).records()
    keys = [record.key for record in records]
    assert keys == ["serializer:acme", "backend:dsp", "backend:npu", "transport:wire"]
    assert {record.origin for record in records} == {"Acme_NPU 1.5"}
    assert {record.state for record in records} == {"discovered"}
    assert records[2].module == "acme.plugin:npu"


def test_records_of_one_kind_and_names(site: FakeSite) -> None:
    site.add_backend("b")
    site.add_backend("a")
    registry = registry_of(site)
    assert registry.names("backend") == ("a", "b")
    assert registry.records("transport") == ()


def test_the_first_distribution_of_a_name_hides_later_ones(tmp_path: Path) -> None:
    first, second = FakeSite(tmp_path / "first"), FakeSite(tmp_path / "second")
    first.add("acme-npu", "2.0", entries={"backend.v1:npu": "acme"})
    second.add("Acme.NPU", "1.0", entries={"backend.v1:npu": "acme", "backend.v1:old": "acme"})
    registry = registry_of(first, second)
    assert [record.origin for record in registry.records()] == ["acme-npu 2.0"]
    assert registry.problems == ()


def test_a_shadowing_copy_without_entry_points_hides_the_later_one_too(tmp_path: Path) -> None:
    first, second = FakeSite(tmp_path / "first"), FakeSite(tmp_path / "second")
    first.add("acme-npu", "2.0", entry_points="")
    second.add("acme-npu", "1.0", entries={"backend.v1:npu": "acme"})
    assert registry_of(first, second).records() == ()


def test_two_copies_in_one_folder_are_reported(site: FakeSite) -> None:
    site.add("acme-npu", "1.0", entries={"backend.v1:npu": "acme"})
    site.add("acme-npu", "1.1", entries={"backend.v1:npu": "acme"})
    registry = registry_of(site)
    assert len(registry.records()) == 1
    assert registry.problems == (f"acme-npu: installed twice in {site.root}; reinstall it",)


def test_a_folder_that_is_on_the_path_twice_is_read_once(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add_backend("npu")
    monkeypatch.chdir(site.root)
    registry = hardpoint.Registry(path=["", str(site.root), f"{site.root}/"])
    assert registry.names("backend") == ("npu",)
    assert registry.problems == ()


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        (b"\xff\xfe\x00broken", "unreadable metadata: UnicodeDecodeError"),
        (b"Metadata-Version: 2.1\n\nName: in-the-body\n", "its metadata has no Name"),
        (b"", "its metadata has no Name"),
    ],
)
def test_damaged_metadata_is_left_out_and_reported(
    site: FakeSite, metadata: bytes, says: str
) -> None:
    site.add("acme-broken", entries={"backend.v1:broken": "acme"}, metadata=metadata)
    site.add_backend("good")
    registry = registry_of(site)
    assert registry.names("backend") == ("good",)
    (problem,) = registry.problems
    assert says in problem
    assert "acme_broken-1.0.dist-info" in problem


def test_of_a_distribution_without_entry_points_of_ours_no_more_is_read(site: FakeSite) -> None:
    site.add("other", metadata=b"\xff", entry_points="[console_scripts]\nother = other")
    site.add_backend("good")
    registry = registry_of(site)
    assert registry.names("backend") == ("good",)
    assert registry.problems == ()


def test_entry_points_that_are_no_text_are_reported(site: FakeSite) -> None:
    info = site.add("acme-broken")
    (info / "entry_points.txt").write_bytes(b"[hardpoint.backend.v1]\nnpu = \xff")
    (problem,) = registry_of(site).problems
    assert "unreadable metadata: UnicodeDecodeError" in problem
    assert "acme_broken-1.0.dist-info" in problem


def test_a_folder_that_does_not_tell_the_name_is_asked_for_it(tmp_path: Path) -> None:
    first, second = FakeSite(tmp_path / "first"), FakeSite(tmp_path / "second")
    old = first.add("acme-npu", entry_points="")
    old.rename(old.with_name("acme-npu-1.0.dist-info"))  # as installers once wrote it
    second.add("acme-npu", entries={"backend.v1:npu": "acme"})
    assert registry_of(first, second).records() == ()


def test_what_an_uninstall_left_behind_hides_nothing_and_is_reported(tmp_path: Path) -> None:
    first, second = FakeSite(tmp_path / "first"), FakeSite(tmp_path / "second")
    for file in first.add("acme-npu").iterdir():
        file.unlink()
    second.add("acme-npu", "1.1", entries={"backend.v1:npu": "acme"})
    registry = registry_of(first, second)
    assert [record.origin for record in registry.records()] == ["acme-npu 1.1"]
    (problem,) = registry.problems
    assert "first/acme_npu-1.0.dist-info: its metadata has no Name" in problem


def test_a_folder_without_a_version_tells_no_name(tmp_path: Path) -> None:
    first, second = FakeSite(tmp_path / "first"), FakeSite(tmp_path / "second")
    other = first.add("acme-npu", entry_points="")
    other.rename(other.with_name("acme-npu.dist-info"))
    second.add("acme", entries={"backend.v1:npu": "acme"})
    assert registry_of(first, second).names("backend") == ("npu",)


def test_a_distribution_in_a_zip_archive_is_found(site: FakeSite, tmp_path: Path) -> None:
    info = site.add("acme-npu", "1.5", entries={"backend.v1:npu": "acme"})
    site.add("other", entry_points="[console_scripts]\nother = other")
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in info.parent.rglob("*"):
            packed.write(file, file.relative_to(info.parent))
    records = hardpoint.Registry(path=[str(archive)]).records()
    assert [(record.key, record.origin) for record in records] == [("backend:npu", "acme-npu 1.5")]


def test_an_entry_that_names_no_provider_is_reported_and_its_neighbours_stay(
    site: FakeSite,
) -> None:
    site.add(
        "acme",
        entry_points="[hardpoint.backend.v1]\nno equals sign\nbad name = acme\ngood = acme\n",
    )
    registry = registry_of(site)
    assert registry.names("backend") == ("good",)
    assert registry.problems[0] == (
        "acme 1.0: entry_points.txt line 2: 'no equals sign' does not name a provider "
        "(letters, digits, '_', '.' and '-', then '= module')"
    )
    assert "line 3: 'bad name = acme'" in registry.problems[1]


def test_an_entry_that_refers_to_no_module_fails_when_it_is_asked_for(site: FakeSite) -> None:
    site.add("acme", entries={"backend.v1:npu": "not/a/module"})
    registry = registry_of(site)
    assert registry.record("backend", "npu").state == "failed"
    with pytest.raises(hardpoint.ProviderFailed) as caught:
        registry.load("backend", "npu")
    assert str(caught.value) == (
        "backend:npu could not be loaded\n"
        "  provider: backend:npu (from acme 1.0)\n"
        "  cause: its entry point 'not/a/module' is not 'module' or 'module:attribute'\n"
        "  remedy: report it to the authors of acme"
    )


def test_other_majors_are_incompatible_unless_the_plugin_serves_ours_too(site: FakeSite) -> None:
    site.add("acme", entries={"backend.v2:new": "acme", "backend.v0:old": "acme"})
    site.add("both", entries={"backend.v2:npu": "both.two", "backend.v1:npu": "both.one"})
    registry = registry_of(site)
    assert registry.record("backend", "new").state == "incompatible"
    assert registry.record("backend", "old").state == "incompatible"
    assert "upgrade the plugin" in registry.record("backend", "old").error
    assert registry.record("backend", "npu").state == "discovered"
    assert registry.record("backend", "npu").module == "both.one"


def test_groups_of_others_are_none_of_ours(site: FakeSite) -> None:
    site.add("acme", entry_points="[hardpoint.colour.v1]\nred = acme\n[xhardpoint.backend.v1]\na=b")
    assert registry_of(site).records() == ()
    assert registry_of(site).problems == ()


def test_an_embedder_can_have_groups_of_its_own(site: FakeSite) -> None:
    site.add("acme", entry_points="[theirs.backend.v1]\nnpu = acme\n")
    registry = hardpoint.Registry(path=[str(site.root)], group_prefix="theirs")
    assert registry.names("backend") == ("npu",)


def test_two_hundred_plugins_are_listed_and_none_imported(site: FakeSite) -> None:
    for number in range(200):
        site.add_backend(f"n{number:03}", PLUGIN)
    assert len(registry_of(site).records("backend")) == 200
    assert site.imported() == set()


def test_metadata_is_read_once_until_reload(site: FakeSite) -> None:
    site.add_backend("a")
    registry = registry_of(site)
    assert registry.names("backend") == ("a",)
    site.add_backend("b")
    assert registry.names("backend") == ("a",)
    registry.reload()
    assert registry.names("backend") == ("a", "b")


def test_a_name_that_nothing_provides_gets_a_suggestion(site: FakeSite) -> None:
    site.add_backend("turbo")
    with pytest.raises(hardpoint.ProviderNotFound) as caught:
        registry_of(site).record("backend", "trubo")
    assert str(caught.value) == (
        "nothing installed provides backend:trubo\n"
        "  provider: backend:trubo\n"
        "  cause: did you mean 'turbo'?\n"
        "  remedy: `hardpoint list` shows what is installed"
    )


def test_a_first_party_name_gets_the_command_that_installs_it(site: FakeSite) -> None:
    with pytest.raises(hardpoint.ProviderNotFound) as caught:
        registry_of(site).open("partitioner", "cost")
    assert str(caught.value) == (
        "nothing installed provides partitioner:cost\n"
        "  provider: partitioner:cost\n"
        "  cause: it is a first-party provider that is not installed\n"
        "  remedy: pip install hardpoint-partitioners"
    )


def test_a_name_of_another_kind_is_pointed_out(site: FakeSite) -> None:
    site.add_backend("turbo")
    with pytest.raises(hardpoint.ProviderNotFound, match="there is backend:turbo, of another kind"):
        registry_of(site).record("transport", "turbo")


def test_not_found_mentions_metadata_that_could_not_be_read(site: FakeSite) -> None:
    site.add("acme", entries={"backend.v1:dsp": "acme"}, metadata=b"")
    with pytest.raises(hardpoint.ProviderNotFound) as caught:
        registry_of(site).record("backend", "npu")
    assert "1 problem was found in installed metadata" in caught.value.remedy


# A header value as tools write it: one line, no space around.
_value = st.text(
    st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30
).filter(str.strip)


@given(name=_value, version=_value, body=st.text(max_size=200), extra=st.lists(_value, max_size=5))
def test_headers_are_read_as_an_email_parser_reads_them(
    name: str, version: str, body: str, extra: list[str]
) -> None:
    lines = [f"Summary: {value}" for value in extra]
    text = "\n".join(["Metadata-Version: 2.1", *lines, f"Name: {name}", f"version: {version}"])
    text += f"\n\n{body}"
    message = email.message_from_string(text)
    assert parse_header(text) == (message["Name"], message["Version"])


@given(st.text())
def test_no_text_makes_the_parsers_raise(text: str) -> None:
    name, version = parse_header(text)
    assert name in text
    assert version == "0" or version in text
    found = list(parse_entry_points(f"[hardpoint.backend.v1]\n{text}", "hardpoint"))
    assert len(found) <= len(text.splitlines())
    entries = [entry for entry in found if not isinstance(entry, str)]
    assert all(kind in KINDS and PROVIDER_NAME.fullmatch(name) for kind, name, *_ in entries)


_name = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
_module = st.from_regex(r"[a-z_][a-z0-9_]{0,8}(\.[a-z_][a-z0-9_]{0,8}){0,2}", fullmatch=True)


@given(
    kind=st.sampled_from(("serializer", "backend", "partitioner", "transport")),
    major=st.integers(0, 9999),
    name=_name,
    module=_module,
    attr=st.just("") | _module,
    space=st.sampled_from(("", " ", "\t")),
)
def test_entry_points_survive_the_round_trip(
    kind: str, major: int, name: str, module: str, attr: str, space: str
) -> None:
    value = f"{module}{space}:{space}{attr}" if attr else module
    text = f"# comment\n\n[ hardpoint.{kind}.v{major} ]\n{space}{name}{space}={space}{value}\n"
    (entry,) = parse_entry_points(text, "hardpoint")
    assert entry == (kind, name, major, value, module, attr)
