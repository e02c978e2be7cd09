"""``hardpoint.lock``: what is not exactly as pinned is refused before it is imported."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hardpoint
from fakes.dists import PLUGIN, FakeSite
from fakes.plugins import BackendPlugin
from hardpoint import ConfigError, LockMismatch


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSite]:
    site = FakeSite(tmp_path / "site")
    site.add("acme", entries={"backend.v1:npu": "acme.plugin"},
             modules={"acme/__init__.py": "", "acme/plugin.py": PLUGIN})  # fmt: skip
    monkeypatch.syspath_prepend(str(site.root))
    yield site
    for name in ("acme", "acme.plugin", "acme_late"):
        sys.modules.pop(name, None)


@pytest.fixture
def lock(site: FakeSite, tmp_path: Path) -> Path:
    path = tmp_path / "hardpoint.lock"
    hardpoint.Registry(path=[str(site.root)]).write_lock(path)
    return path


def registry_of(site: FakeSite, lock: Path | None = None) -> hardpoint.Registry:
    return hardpoint.Registry(path=[str(site.root)], lock=lock)


def refused(site: FakeSite, lock: Path, name: str = "npu") -> str:
    registry = registry_of(site, lock)
    with pytest.raises(LockMismatch) as caught:
        registry.open("backend", name)
    assert registry.record("backend", name).state == "denied"
    assert site.imported() == set(), "it was imported all the same"
    return str(caught.value)


def test_what_is_as_pinned_opens(site: FakeSite, lock: Path) -> None:
    pinned = json.loads(lock.read_text())
    assert pinned["hardpoint-lock"] == 1
    assert pinned["providers"]["backend:npu"]["dist"] == "acme"
    assert pinned["providers"]["backend:npu"]["version"] == "1.0"
    assert pinned["providers"]["backend:npu"]["record"].startswith("sha256:")
    registry_of(site, lock).open("backend", "npu")


def test_another_version_is_refused_and_both_are_named(site: FakeSite, lock: Path) -> None:
    whole = json.loads(lock.read_text())
    whole["providers"]["backend:npu"]["version"] = "0.9"
    lock.write_text(json.dumps(whole))
    message = refused(site, lock)
    assert "backend:npu is not what the lock pins" in message
    assert "pinned acme 0.9 (sha256:" in message
    assert "installed acme 1.0 (sha256:" in message
    assert "run `hardpoint lock` again" in message


def test_another_record_of_the_same_version_is_refused(site: FakeSite, lock: Path) -> None:
    record = site.root / "acme-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text() + "acme/extra.py,,\n")
    assert "is not what the lock pins" in refused(site, lock)


@pytest.mark.parametrize("file", ["acme/plugin.py", "acme/__init__.py"])
def test_a_file_changed_after_installation_is_refused(
    site: FakeSite, lock: Path, file: str
) -> None:
    with (site.root / file).open("a") as module:
        module.write("print('more')\n")
    message = refused(site, lock)
    assert "a file of backend:npu was changed after installation" in message
    assert f"cause: {file} has another hash than RECORD lists" in message


def test_a_file_that_is_gone_is_refused(site: FakeSite, lock: Path) -> None:
    (site.root / "acme" / "plugin.py").unlink()
    assert "a file of backend:npu cannot be compared" in refused(site, lock)


def test_a_module_of_the_same_name_earlier_on_the_path_is_refused(
    site: FakeSite, lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usurper = FakeSite(tmp_path / "usurper")
    usurper.add("zzz", modules={"acme/__init__.py": "", "acme/plugin.py": PLUGIN})
    monkeypatch.syspath_prepend(str(usurper.root))
    message = refused(site, lock)
    assert "backend:npu would not be imported from what the lock pins" in message
    assert str(usurper.root / "acme" / "__init__.py") in message
    assert usurper.imported() == set()


def test_a_provider_that_is_not_in_the_lock_is_refused(site: FakeSite, lock: Path) -> None:
    site.add_backend("late")
    assert "backend:late is not in the lock" in refused(site, lock, "late")


def test_the_environment_names_a_lock_and_code_goes_before_it(
    site: FakeSite, lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty.lock"
    empty.write_text('{"hardpoint-lock": 1, "providers": {}}')
    monkeypatch.setenv("HARDPOINT_LOCK", str(empty))
    with pytest.raises(LockMismatch):
        registry_of(site).open("backend", "npu")
    registry_of(site, lock).open("backend", "npu")


def test_what_the_process_adds_is_its_own_code_and_needs_no_pin(site: FakeSite, lock: Path) -> None:
    added = registry_of(site, lock).add("backend", "mine", BackendPlugin())
    assert added.state == "loaded"


def test_a_corrected_installation_works_after_reload(site: FakeSite, lock: Path) -> None:
    module = site.root / "acme" / "plugin.py"
    right = module.read_text()
    module.write_text("")
    registry = registry_of(site, lock)
    with pytest.raises(LockMismatch):
        registry.load("backend", "npu")
    module.write_text(right)
    registry.reload()
    registry.open("backend", "npu")


@pytest.mark.parametrize(
    "content",
    [None, "", "[]", "{}", '{"hardpoint-lock": 2, "providers": {}}',
     '{"hardpoint-lock": 1, "providers": {"backend:npu": {"dist": "acme"}}}',
     '{"hardpoint-lock": 1, "providers": {"backend:npu": '
     '{"dist": "acme", "version": 1, "record": ""}}}'],
)  # fmt: skip
def test_an_unusable_lock_is_an_error_that_names_it(
    site: FakeSite, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "bad.lock"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        registry_of(site, path).open("backend", "npu")
    assert caught.value.what == f"the lock file {path} is unusable"
    assert site.imported() == set()


def test_a_distribution_without_record_cannot_be_pinned(site: FakeSite, tmp_path: Path) -> None:
    (site.root / "acme-1.0.dist-info" / "RECORD").unlink()
    path = tmp_path / "hardpoint.lock"
    path.write_text("the old one")
    with pytest.raises(ConfigError) as caught:
        registry_of(site).write_lock(path)
    assert caught.value.cause == "its distribution has no RECORD file"
    assert path.read_text() == "the old one"
    assert list(tmp_path.glob(".hardpoint.lock*")) == []


def test_denied_and_unusable_providers_are_not_pinned(site: FakeSite, tmp_path: Path) -> None:
    site.add("future", entries={"backend.v2:new": "future"})
    site.add_backend("late")
    policy = hardpoint.Policy(deny=("backend:late",))
    registry = hardpoint.Registry(path=[str(site.root)], policy=policy)
    pinned = registry.write_lock(tmp_path / "x.lock")
    assert [record.key for record in pinned] == ["backend:npu"]
