"""Loading: once, checked, isolated, remembered; and what a process adds or takes away."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hardpoint
from fakes.dists import PLUGIN, FakeSite
from fakes.plugins import BackendPlugin, EveryKind, NullBackend
from hardpoint import BackendInfo, ContractViolation, Probe, ProviderFailed, hookimpl


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSite]:
    site = FakeSite(tmp_path / "site")
    monkeypatch.syspath_prepend(str(site.root))
    known = set(sys.modules)
    yield site
    for name in set(sys.modules) - known:
        if name.startswith("acme"):
            del sys.modules[name]


@pytest.fixture
def empty() -> hardpoint.Registry:
    return hardpoint.Registry(path=[])


def registry_of(site: FakeSite) -> hardpoint.Registry:
    return hardpoint.Registry(path=[str(site.root)])


def test_a_loaded_record_tells_file_time_and_contract(site: FakeSite) -> None:
    site.add_backend("good")
    registry = registry_of(site)
    record = registry.load("backend", "good")
    assert record == registry.record("backend", "good")
    assert record.state == "loaded"
    assert record.file == str(site.root / "acme_good.py")
    assert record.import_ms is not None
    assert record.requires_api == (1, 0)
    assert registry.info("backend", "good").summary == "runs nothing"


def test_only_the_named_provider_is_imported_and_only_once(site: FakeSite) -> None:
    site.add_backend("good")
    site.add_backend("other")
    registry = registry_of(site)
    registry.open("backend", "good")
    registry.open("backend", "good")
    assert site.imported() == {"acme_good"}
    assert site.imports_of("acme_good") == 1


def test_an_attribute_of_a_module_can_be_the_plugin(site: FakeSite) -> None:
    source = "class space:\n    pass\nspace.plugin = __import__('acme_real')\n"
    site.add("acme", entries={"backend.v1:npu": "acme_holder:space.plugin"},
             modules={"acme_holder.py": source, "acme_real.py": PLUGIN})  # fmt: skip
    assert type(registry_of(site).open("backend", "npu")).__name__ == "Null"


def test_one_module_can_serve_several_providers(site: FakeSite) -> None:
    entries = {"backend.v1:a": "acme_npu", "backend.v1:b": "acme_npu"}
    site.add("acme", entries=entries, modules={"acme_npu.py": PLUGIN})
    registry = registry_of(site)
    registry.open("backend", "a")
    registry.open("backend", "b")
    assert [record.state for record in registry.records()] == ["loaded", "loaded"]


def test_a_failure_is_remembered_until_reload(site: FakeSite) -> None:
    site.add_backend("npu", "raise ValueError('no firmware')\n")
    registry = registry_of(site)
    for _ in range(3):
        with pytest.raises(ProviderFailed, match="ValueError: no firmware"):
            registry.load("backend", "npu")
    assert site.imports_of("acme_npu") == 1
    assert registry.record("backend", "npu").state == "failed"
    (site.root / "acme_npu.py").write_text(PLUGIN)
    registry.reload()
    assert registry.load("backend", "npu").state == "loaded"


def test_reload_keeps_what_is_loaded_and_what_was_added(site: FakeSite) -> None:
    site.add_backend("good")
    registry = registry_of(site)
    loaded = registry.load("backend", "good")
    added = registry.add("backend", "mine", BackendPlugin())
    registry.reload()
    assert registry.records() == (loaded, added)


def test_the_cause_of_a_failure_is_no_error_that_the_caller_was_handling(site: FakeSite) -> None:
    site.add_backend("npu", "raise ImportError('no libacme')\n")
    with pytest.raises(ProviderFailed) as caught:
        try:
            raise KeyError("of the caller")
        except KeyError:
            registry_of(site).load("backend", "npu")
    assert caught.value.cause == "ImportError: no libacme"


def test_a_missing_module_is_named_in_the_remedy(site: FakeSite) -> None:
    site.add_backend("npu", "import acmesdk_that_is_not_there\n")
    with pytest.raises(ProviderFailed) as caught:
        registry_of(site).load("backend", "npu")
    assert caught.value.remedy.startswith(
        "install what provides the module 'acmesdk_that_is_not_there'"
    )


def test_keyboard_interrupt_is_the_users_and_nothing_is_remembered(site: FakeSite) -> None:
    site.add_backend("npu", "raise KeyboardInterrupt\n")
    registry = registry_of(site)
    with pytest.raises(KeyboardInterrupt):
        registry.load("backend", "npu")
    assert registry.record("backend", "npu").state == "discovered"
    (site.root / "acme_npu.py").write_text(PLUGIN)
    assert registry.load("backend", "npu").state == "loaded"


def test_a_module_that_asks_for_itself_fails_and_does_not_hang(site: FakeSite) -> None:
    site.add_backend("npu", "import hardpoint, acme_host\nacme_host.registry.load('backend','npu')")
    (site.root / "acme_host.py").write_text("registry = None\n")
    import acme_host  # type: ignore[import-not-found]  # written just now

    acme_host.registry = registry = registry_of(site)
    with pytest.raises(ProviderFailed, match="asked for while it is being loaded"):
        registry.load("backend", "npu")


class Newer(BackendPlugin):
    @hookimpl
    def hardpoint_backend_info(self) -> BackendInfo:
        return BackendInfo(requires_api=(1, 99), summary="", precisions=())


def test_a_newer_minor_is_incompatible_and_says_which_core_is_needed(
    empty: hardpoint.Registry, site: FakeSite
) -> None:
    with pytest.raises(hardpoint.ProviderIncompatible, match=r"it requires contract 1\.99"):
        empty.add("backend", "newer", Newer())
    site.add_backend("npu", PLUGIN.replace("(1, 0)", "(1, 99)"))
    registry = registry_of(site)
    with pytest.raises(hardpoint.ProviderIncompatible) as caught:
        registry.open("backend", "npu")
    assert caught.value.cause == (
        f"it requires contract 1.99; this is hardpoint {hardpoint.__version__}, contract 1.0 "
        "(its metadata says: Requires-Dist: hardpoint>=0.1,<1)"
    )
    assert caught.value.remedy.startswith("pip install --upgrade hardpoint")
    assert registry.record("backend", "npu").state == "incompatible"


def test_an_info_without_requires_api_fails_and_says_so(site: FakeSite) -> None:
    site.add_backend("npu", PLUGIN.replace("requires_api=(1, 0), ", ""))
    with pytest.raises(ProviderFailed, match=r"missing 1 required .*'requires_api'"):
        registry_of(site).load("backend", "npu")


@pytest.mark.parametrize("wrong", [None, "1.0", (1,), (1, "0"), (True, 0), (2, 0)])
def test_a_requires_api_that_is_no_pair_of_ours_is_refused(
    empty: hardpoint.Registry, wrong: Any
) -> None:
    class Wrong(BackendPlugin):
        @hookimpl
        def hardpoint_backend_info(self) -> Any:
            return BackendInfo(requires_api=wrong, summary="", precisions=())

    with pytest.raises(hardpoint.ProviderIncompatible) as caught:
        empty.add("backend", "wrong", Wrong())
    assert repr(wrong) in caught.value.cause or "requires contract 2.0" in caught.value.cause


class Lacking:
    hardpoint_backend_info = BackendPlugin.hardpoint_backend_info


class Misspelt(BackendPlugin):
    @hookimpl
    def hardpoint_backend_opne(self, config: object) -> None:
        return None


class Unmarked(BackendPlugin):
    def hardpoint_backend_open(self, config: object) -> Any:
        return NullBackend()


class Wrapping(BackendPlugin):
    @hookimpl(wrapper=True)
    def hardpoint_backend_open(self, config: object) -> Any:
        return (yield)


class BadArgument(BackendPlugin):
    @hookimpl
    def hardpoint_backend_probe(self, demand: object) -> Any:
        return Probe.ready()


@pytest.mark.parametrize(
    ("plugin", "says"),
    [
        (
            Lacking(),
            "it does not implement hardpoint_backend_probe, hardpoint_backend_open; it has",
        ),
        (Misspelt(), "'hardpoint_backend_opne' is not a hook; did you mean 'hardpoint_backend_ope"),
        (Unmarked(), "hardpoint_backend_open: defined, but not marked with @hardpoint.hookimpl"),
        (Wrapping(), "hardpoint_backend_open must not be a wrapper"),
        (BackendPlugin, "BackendPlugin is a class; give an instance of it"),
        (object(), "it does not implement hardpoint_backend_info, "),
        (BadArgument(), "hookimpl definition: hardpoint_backend_probe(demand: 'object')"),
        (
            BadArgument(),
            "hookspec definition: hardpoint_backend_probe(request: ProbeRequest, provider: str) -> P",
        ),
    ],
)
def test_hooks_that_do_not_fit_are_refused_with_the_reason(
    empty: hardpoint.Registry, plugin: object, says: str
) -> None:
    with pytest.raises(ProviderFailed) as caught:
        empty.add("backend", "wrong", plugin)
    assert says in caught.value.cause
    assert empty.records() == ()


def test_a_refused_plugin_leaves_nothing_behind(empty: hardpoint.Registry) -> None:
    # pluggy 1.6 keeps half of a plugin whose signatures do not fit.
    with pytest.raises(ProviderFailed):
        empty.add("backend", "npu", BadArgument())
    assert empty.add("backend", "npu", BackendPlugin()).state == "loaded"
    assert empty.probe("backend", "npu").notes == ("deep=False",)


class WrongTypes(BackendPlugin):
    @hookimpl
    def hardpoint_backend_probe(self, request: object) -> Any:
        return True

    @hookimpl
    def hardpoint_backend_open(self, config: object) -> Any:
        return None


def test_an_answer_of_the_wrong_type_violates_the_contract(empty: hardpoint.Registry) -> None:
    empty.add("backend", "npu", WrongTypes())
    with pytest.raises(ContractViolation) as caught:
        empty.open("backend", "npu")
    assert str(caught.value) == (
        "hardpoint_backend_open of backend:npu returned None\n"
        "  provider: backend:npu (from this process)\n"
        "  cause: the contract wants a hardpoint.Backend\n"
        "  remedy: its authors: return a hardpoint.Backend from that hook"
    )
    with pytest.raises(ContractViolation, match="returned an object of type bool"):
        empty.probe("backend", "npu")


class Raising(BackendPlugin):
    @hookimpl
    def hardpoint_backend_probe(self, request: object) -> Any:
        raise OSError("no /dev/acme0")

    @hookimpl
    def hardpoint_backend_open(self, config: dict[str, object]) -> Any:
        if "colour" in config:
            raise hardpoint.ConfigError("there is no option 'colour'")
        raise SystemExit


def test_a_raising_probe_is_broken_not_unavailable(empty: hardpoint.Registry) -> None:
    empty.add("backend", "npu", Raising())
    with pytest.raises(ProviderFailed) as caught:
        empty.probe("backend", "npu")
    assert caught.value.what == "backend:npu could not be probed"
    assert caught.value.cause == "OSError: no /dev/acme0"


def test_open_isolates_system_exit_and_lets_the_providers_own_errors_pass_signed(
    empty: hardpoint.Registry,
) -> None:
    empty.add("backend", "npu", Raising())
    with pytest.raises(ProviderFailed, match="SystemExit: it tried to end the process"):
        empty.open("backend", "npu")
    with pytest.raises(hardpoint.ConfigError) as caught:
        empty.open("backend", "npu", {"colour": "red"})
    assert caught.value.provider == "backend:npu"


class Sdk(BackendPlugin):
    """Raises only at open; counts probes."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    @hookimpl
    def hardpoint_backend_probe(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_automatic_picks_skip_the_broken_with_one_warning_and_the_unavailable_with_none(
    empty: hardpoint.Registry,
) -> None:
    empty.add("backend", "absent", Sdk(Probe.unavailable("no device")))
    empty.add("backend", "broken", Sdk(RuntimeError("driver gone")))
    empty.add("backend", "good", Sdk(Probe.ready()))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        first = empty.available("backend")
        second = empty.available("backend")
    assert [warning.category for warning in warned] == [hardpoint.ProviderSkipped]
    assert "skipped backend:broken" in str(warned[0].message)
    assert "RuntimeError: driver gone" in str(warned[0].message)
    assert warned[0].filename == __file__
    assert first == second
    assert first.ready == (("good", Probe.ready()),)
    assert first.skipped[0] == ("absent", "unavailable: no device")
    assert first.skipped[1][0] == "broken"


def test_automatic_picks_list_the_denied_without_importing_it(site: FakeSite) -> None:
    site.add_backend("npu")
    policy = hardpoint.Policy(deny=("backend:npu",))
    registry = hardpoint.Registry(path=[str(site.root)], policy=policy)
    ((name, reason),) = registry.available("backend").skipped
    assert name == "npu"
    assert "policy denies backend:npu" in reason
    assert site.imported() == set()


def test_a_name_can_be_added_once(empty: hardpoint.Registry, site: FakeSite) -> None:
    empty.add("backend", "npu", BackendPlugin())
    with pytest.raises(hardpoint.DuplicateProvider) as caught:
        empty.add("backend", "npu", BackendPlugin())
    assert caught.value.cause == "it comes from: this process"
    site.add_backend("good")
    registry = registry_of(site)
    with pytest.raises(hardpoint.DuplicateProvider, match=r"it comes from: acme-good 1\.0"):
        registry.add("backend", "good", BackendPlugin())


def test_what_was_removed_is_gone_and_an_installed_one_comes_back_with_reload(
    site: FakeSite,
) -> None:
    site.add_backend("good")
    registry = registry_of(site)
    registry.add("backend", "mine", BackendPlugin())
    registry.load("backend", "good")
    registry.remove("backend", "mine")
    registry.remove("backend", "good")
    assert registry.records() == ()
    with pytest.raises(hardpoint.ProviderNotFound):
        registry.remove("backend", "mine")
    registry.reload()
    assert registry.names("backend") == ("good",)
    registry.open("backend", "good")


def test_kind_and_name_of_an_added_provider_are_checked(empty: hardpoint.Registry) -> None:
    with pytest.raises(hardpoint.ConfigError, match="did you mean 'backend'"):
        empty.add("backends", "npu", BackendPlugin())  # type: ignore[arg-type]
    with pytest.raises(hardpoint.ConfigError, match="'my npu' cannot be a provider's name"):
        empty.add("backend", "my npu", BackendPlugin())


def test_registries_do_not_know_of_each_other(site: FakeSite) -> None:
    site.add_backend("good")
    first, second = registry_of(site), registry_of(site)
    plugin = EveryKind()
    first.add("backend", "mine", plugin)
    second.add("transport", "mine", plugin)
    first.load("backend", "good")
    assert second.record("backend", "good").state == "discovered"
    assert first.names("transport") == ()
    assert second.names("backend") == ("good",)


def test_the_default_registry_is_one_per_process() -> None:
    assert hardpoint.default_registry() is hardpoint.default_registry()


def test_a_provider_error_survives_pickling(site: FakeSite) -> None:
    site.add_backend("npu", "raise ValueError('x')\n")
    with pytest.raises(ProviderFailed) as caught:
        registry_of(site).load("backend", "npu")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
