"""One environment with ten kinds of fake distributions: the good ones work, the others explain.

The acceptance test of the contract: whatever is wrong with one provider, listing imports nothing,
the others open, and the message names distribution, version, cause and remedy (golden files).
"""

from __future__ import annotations

import json
import os
import shutil
import sysconfig
from pathlib import Path

import pytest

import hardpoint
from fakes.dists import PLUGIN, FakeSite, build_extension

GOLDEN = Path(__file__).parent / "golden"
GCC = shutil.which("gcc") or shutil.which("cc")
DENY = "dist:Acme_Denied"

BAD_SIGNATURE = PLUGIN.replace(
    "def hardpoint_backend_open(config)", "def hardpoint_backend_open(config, colour)"
)
WRAPPED_CAUSE = """
try:
    raise OSError("libacme.so.3: cannot open shared object file: No such file or directory")
except OSError as error:
    raise ImportError("acme's runtime is not usable") from error
"""
BROKEN = ("importerror", "systemexit", "symbol", "twin", "future", "signature", "denied")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> FakeSite:
    site = FakeSite(tmp_path_factory.mktemp("site"))
    site.add_backend("good")
    site.add_backend("fine", version="2.1")
    site.add_backend("importerror", WRAPPED_CAUSE)
    site.add_backend("systemexit", "raise SystemExit(3)\n")
    site.add_backend("twin", dist="acme-twin-a", version="1.4")
    site.add_backend("twin", dist="acme-twin-b", version="0.9")
    site.add(
        "acme-future",
        "3.0",
        entries={"backend.v2:future": "acme_future"},
        modules={"acme_future.py": PLUGIN},
        requires=("torch", "hardpoint (>=2,<3)"),
    )
    site.add_backend("signature", BAD_SIGNATURE)
    site.add_backend("slow", "import time\ntime.sleep(5)\n" + PLUGIN)
    site.add_backend("denied")
    if GCC:
        site.add("acme-symbol", "1.0", entries={"backend.v1:symbol": "acme_symbol"})
        build_extension(site.root, "acme_symbol", gcc=GCC)
    return site


@pytest.fixture(scope="module")
def messages(site: FakeSite) -> dict[str, str]:
    """What opening each provider says, all asked for in one process."""
    code = """
import json, sys, hardpoint
registry = hardpoint.Registry()
said = {}
for name in sys.argv[1:]:
    try:
        said[name] = "opened " + type(registry.open("backend", name)).__name__
    except hardpoint.ProviderError as error:
        said[name] = f"{type(error).__name__}: {error}"
assert "torch" not in sys.modules
print(json.dumps(said))
"""
    ran = site.run("-c", code, "good", *BROKEN, "fine", HARDPOINT_DENY=DENY)
    assert ran.returncode == 0, ran.stderr
    said: dict[str, str] = json.loads(ran.stdout)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for here, anywhere in (
        (str(site.root), "<site>"),
        (f"hardpoint {hardpoint.__version__}", "hardpoint <version>"),
        (suffix, "<suffix>"),
    ):
        said = {name: text.replace(here, anywhere) for name, text in said.items()}
    return said


def test_listing_shows_every_provider_and_imports_none_of_them(tmp_path: Path) -> None:
    fresh = FakeSite(tmp_path / "site")
    fresh.add_backend("importerror", WRAPPED_CAUSE)
    fresh.add_backend("systemexit", "raise SystemExit(3)\n")
    fresh.add_backend("slow", "import time\ntime.sleep(5)\n" + PLUGIN)
    fresh.add_backend("good")
    ran = fresh.cli("list", "--json")
    assert ran.returncode == 0, ran.stderr
    listed = {row["name"]: row["state"] for row in json.loads(ran.stdout)["providers"]}
    wanted = dict.fromkeys(("importerror", "systemexit", "slow", "good"), "discovered")
    assert listed.items() >= wanted.items()
    assert fresh.imported() == set()


def test_listing_leaves_no_plugin_and_no_torch_in_sys_modules(site: FakeSite) -> None:
    code = """
import sys
from hardpoint.cli import main
main(["list"], standalone_mode=False)
print("LOADED", sorted(m for m in sys.modules if m.startswith(("acme", "hardpoint_", "torch"))))
"""
    ran = site.run("-c", code, HARDPOINT_DENY=DENY)
    assert "LOADED []" in ran.stdout, ran.stdout + ran.stderr


def test_listing_tells_denied_incompatible_and_duplicate_apart(site: FakeSite) -> None:
    ran = site.cli("list", "--kind", "backend", "--json", HARDPOINT_DENY=DENY)
    rows = {row["name"]: row for row in json.loads(ran.stdout)["providers"]}
    assert rows["denied"]["state"] == "denied"
    assert rows["future"]["state"] == "incompatible"
    assert rows["twin"]["state"] == "duplicate"
    assert rows["twin"]["distribution"] == "acme-twin-a, acme-twin-b"
    assert rows["fine"] == {
        "kind": "backend",
        "name": "fine",
        "distribution": "acme-fine",
        "version": "2.1",
        "state": "discovered",
        "policy": "allowed",
    }


def test_good_providers_open_beside_the_broken_ones(messages: dict[str, str]) -> None:
    assert messages["good"] == "opened Null"
    assert messages["fine"] == "opened Null"


def test_a_denied_an_incompatible_and_a_duplicate_provider_are_never_imported(
    site: FakeSite, messages: dict[str, str]
) -> None:
    assert messages["denied"].startswith("ProviderDenied")
    never = {"acme_denied", "acme_future", "acme_twin_a", "acme_twin_b", "acme_slow"}
    assert not never & site.imported()


@pytest.mark.parametrize("name", BROKEN)
def test_each_failure_says_who_why_and_what_to_do(messages: dict[str, str], name: str) -> None:
    if name == "symbol" and not GCC:
        pytest.skip("no C compiler to build an extension module with an undefined symbol")
    golden = GOLDEN / f"registry_{name}.txt"
    if os.environ.get("HARDPOINT_UPDATE_GOLDEN"):
        golden.write_text(messages[name] + "\n", "utf-8")
    assert messages[name] + "\n" == golden.read_text("utf-8")
    assert "  provider: backend:" in messages[name]
    assert "(from acme-" in messages[name]
    assert "  cause: " in messages[name]
    assert "  remedy: " in messages[name]
