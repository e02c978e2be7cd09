"""Policy: decided before import, deny wins, code before environment before file."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

import hardpoint
from fakes.dists import FakeSite
from fakes.plugins import BackendPlugin, EveryKind
from hardpoint import ConfigError, Policy, PolicyWarning


@pytest.fixture(autouse=True)
def no_policy_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HARDPOINT_ALLOW", "HARDPOINT_DENY", "HARDPOINT_CONFIG", "HARDPOINT_LOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def site(tmp_path: Path) -> FakeSite:
    site = FakeSite(tmp_path / "site")
    site.add_backend("npu")
    site.add_backend("dsp")
    return site


def states(site: FakeSite, policy: Policy | None = None) -> dict[str, str]:
    registry = hardpoint.Registry(path=[str(site.root)], policy=policy)
    return {record.name: record.state for record in registry.records("backend")}


def write_config(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "config" / "hardpoint" / "config.json"
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_without_a_policy_everything_is_allowed(site: FakeSite) -> None:
    assert states(site) == {"npu": "discovered", "dsp": "discovered"}


def test_allow_names_all_that_may_be_used(site: FakeSite) -> None:
    wanted = {"npu": "discovered", "dsp": "denied"}
    assert states(site, Policy(allow=("backend:npu",))) == wanted
    assert states(site, Policy(allow=("dist:Acme_NPU",))) == wanted


def test_an_empty_allow_allows_nothing(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(site, Policy(allow=())) == {"npu": "denied", "dsp": "denied"}
    monkeypatch.setenv("HARDPOINT_ALLOW", "")
    assert states(site) == {"npu": "denied", "dsp": "denied"}


def test_deny_wins_over_allow(site: FakeSite) -> None:
    policy = Policy(allow=("backend:npu", "backend:dsp"), deny=("dist:acme-npu",))
    assert states(site, policy) == {"npu": "denied", "dsp": "discovered"}


def test_allow_of_code_goes_before_environment_before_file(
    site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(tmp_path, {"policy": {"allow": []}})
    assert states(site) == {"npu": "denied", "dsp": "denied"}
    monkeypatch.setenv("HARDPOINT_ALLOW", " backend:dsp ,")
    assert states(site) == {"npu": "denied", "dsp": "discovered"}
    assert states(site, Policy(allow=("backend:npu",))) == {"npu": "discovered", "dsp": "denied"}


def test_what_any_layer_denies_is_denied(
    site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(tmp_path, {"policy": {"deny": ["backend:npu"]}})
    monkeypatch.setenv("HARDPOINT_DENY", "dist:acme_dsp")
    assert states(site, Policy(deny=())) == {"npu": "denied", "dsp": "denied"}


def test_a_named_config_file_takes_the_place_of_the_usual_one(
    site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "mine.json"
    named.write_text('{"policy": {"deny": ["backend:npu"]}}')
    monkeypatch.setenv("HARDPOINT_CONFIG", str(named))
    assert states(site) == {"npu": "denied", "dsp": "discovered"}
    named.unlink()
    with pytest.raises(ConfigError, match=r"HARDPOINT_CONFIG names .*, which does not exist"):
        states(site)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not JSON"),
        ("[1]", 'it is not an object with an object "policy"'),
        ({"policy": []}, 'it is not an object with an object "policy"'),
        ({"policy": {"alow": []}}, "unknown policy list 'alow'; did you mean 'allow'?"),
        ({"policy": {"deny": "backend:npu"}}, "not a list of entries"),
        ({"policy": {"deny": [3]}}, "neither kind:name nor dist:NAME"),
    ],
)
def test_an_unusable_config_file_is_an_error_that_names_it(
    site: FakeSite, tmp_path: Path, content: object, says: str
) -> None:
    path = write_config(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        states(site)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_malformed_entry_says_where_it_stands_and_what_is_meant(
    monkeypatch: pytest.MonkeyPatch, site: FakeSite
) -> None:
    with pytest.raises(ConfigError) as caught:
        Policy(deny=("backends:npu",))
    assert str(caught.value) == (
        "Policy(deny=...) holds 'backends:npu', which is neither kind:name nor dist:NAME\n"
        "  cause: did you mean 'backend'?\n"
        "  remedy: write e.g. 'backend:cpu' or 'dist:acme-npu'; "
        "kinds: serializer, backend, partitioner, transport"
    )
    monkeypatch.setenv("HARDPOINT_ALLOW", "npu")
    with pytest.raises(ConfigError, match="HARDPOINT_ALLOW holds 'npu'"):
        states(site)


def test_a_bare_string_is_not_taken_for_a_list_of_letters() -> None:
    with pytest.raises(ConfigError, match="is 'backend:npu', not a list of entries"):
        Policy(allow="backend:npu")  # type: ignore[arg-type]


def test_an_entry_that_names_nothing_warns_with_a_suggestion(site: FakeSite) -> None:
    with pytest.warns(PolicyWarning, match=r"'backend:npuu'.*did you mean 'backend:npu'\?"):
        states(site, Policy(deny=("backend:npuu",)))
    with pytest.warns(PolicyWarning, match=r"'dist:zzz', which is not installed; `hardpoint list`"):
        states(site, Policy(deny=("dist:zzz",)))


def test_an_entry_for_a_first_party_provider_that_is_not_installed_does_not_warn(
    site: FakeSite,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = states(site, Policy(deny=("backend:cuda", "dist:hardpoint_rocm")))
    assert got == {"npu": "discovered", "dsp": "discovered"}


def test_a_denied_provider_says_which_entry_denies_it(site: FakeSite) -> None:
    registry = hardpoint.Registry(path=[str(site.root)], policy=Policy(allow=("backend:dsp",)))
    with pytest.raises(hardpoint.ProviderDenied) as caught:
        registry.open("backend", "npu")
    assert str(caught.value) == (
        "backend:npu may not be used; nothing of it was imported\n"
        "  provider: backend:npu (from acme-npu 1.0)\n"
        "  cause: policy allows only: backend:dsp\n"
        "  remedy: add backend:npu to Policy(allow=...), HARDPOINT_ALLOW or the config file"
    )
    assert site.imported() == set()


def test_a_first_party_name_is_reserved_to_its_distribution(site: FakeSite) -> None:
    site.add("acme-squatter", entries={"backend.v1:cpu": "acme_npu"})
    assert states(site)["cpu"] == "denied"
    assert states(site, Policy(override=("backend:cpu",)))["cpu"] == "discovered"


def test_a_squatter_does_not_stand_in_the_way_of_the_owner(site: FakeSite) -> None:
    site.add("acme-squatter", entries={"backend.v1:cpu": "acme_npu"})
    site.add("hardpoint-cpu", "0.1", entries={"backend.v1:cpu": "acme_npu"})
    registry = hardpoint.Registry(path=[str(site.root)])
    assert registry.record("backend", "cpu").origin == "hardpoint-cpu 0.1"
    assert registry.problems == (
        "acme-squatter 1.0: its backend:cpu is left out: "
        "the name backend:cpu is reserved for hardpoint-cpu",
    )


def test_denying_one_of_two_rivals_settles_a_duplicate(site: FakeSite) -> None:
    site.add_backend("npu", dist="other-npu")
    assert states(site)["npu"] == "failed"
    assert states(site, Policy(deny=("dist:other-npu",)))["npu"] == "discovered"


def test_what_a_process_adds_is_subject_to_policy_too(site: FakeSite) -> None:
    registry = hardpoint.Registry(path=[], policy=Policy(allow=("backend:cpu",)))
    with pytest.raises(hardpoint.ProviderDenied, match="policy allows only: backend:cpu"):
        registry.add("backend", "mine", BackendPlugin())
    with pytest.raises(hardpoint.ProviderDenied, match="reserved for hardpoint-cpu"):
        registry.add("backend", "cpu", BackendPlugin())
    trusting = hardpoint.Registry(path=[], policy=Policy(override=("backend:cpu",)))
    assert trusting.add("backend", "cpu", BackendPlugin()).state == "loaded"


def test_under_another_prefix_every_name_is_its_owners(tmp_path: Path) -> None:
    FakeSite(tmp_path).add("theirs", entry_points="[theirs.backend.v1]\ncpu = theirs_cpu\n")
    registry = hardpoint.Registry(path=[str(tmp_path)], group_prefix="theirs")
    assert registry.record("backend", "cpu").state == "discovered"
    assert registry.add("transport", "gloo", EveryKind()).state == "loaded"
    with pytest.raises(hardpoint.ProviderNotFound) as refusal:
        registry.open("backend", "openvino")
    assert "pip install hardpoint-openvino" not in str(refusal.value)


_entry = st.tuples(
    st.sampled_from(("serializer", "backend", "partitioner", "transport", "dist")),
    st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True),
).map(":".join)
_entries = st.lists(_entry, max_size=4).map(tuple)


@given(deny=_entries, allow=st.none() | _entries, entry=_entry)
def test_nothing_undoes_a_deny(
    deny: tuple[str, ...], allow: tuple[str, ...] | None, entry: str
) -> None:
    kind, name = entry.split(":")
    policy = Policy(allow, (*deny, entry))
    if kind == "dist":
        assert policy.objection("backend", "anything", name)[0]
    else:
        assert policy.objection(kind, name, "any-dist")[0]


@given(allow=_entries, entry=_entry)
def test_an_allow_list_is_never_made_larger_by_a_deny_list(
    allow: tuple[str, ...], entry: str
) -> None:
    names = [("backend", "a", "b"), ("transport", "x", "")]
    free, bound = Policy(allow), Policy(allow, (entry,))
    for kind, name, dist in names:
        if free.objection(kind, name, dist)[0]:
            assert bound.objection(kind, name, dist)[0]


@given(st.lists(_entry | st.text(max_size=12), max_size=3))
def test_any_text_is_an_entry_or_a_clear_error(texts: list[str]) -> None:
    try:
        policy = Policy(deny=tuple(texts))
    except ConfigError as error:
        # What is refused is quoted, so that it can be found.
        assert any(repr(text) in error.what for text in texts)
    else:
        assert Policy(deny=policy.deny) == policy
