"""The transport that ``hardpoint new`` makes, and the four kinds side by side in one plugin."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

import hardpoint as hp
from hardpoint.interfaces.kinds import KINDS
from scaffolded import Installed

NAME = "freshtransport"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with Installed(tmp_path_factory.mktemp("new"), NAME) as made:
        yield made


def test_all_four_kinds_are_found_loaded_and_ready(installed: Installed) -> None:
    registry = installed.registry()
    assert [(r.kind, r.name) for r in registry.records()] == [(kind, NAME) for kind in KINDS]
    for kind in KINDS:
        assert registry.info(kind, NAME).requires_api == (1, 0)
        assert registry.probe(kind, NAME, hp.ProbeRequest(deep=True)).available
        assert registry.open(kind, NAME)


@pytest.mark.parametrize("kind", KINDS)
def test_an_option_that_does_not_exist_is_refused_with_its_provider(
    installed: Installed, kind: str
) -> None:
    with pytest.raises(hp.ConfigError) as caught:
        installed.registry().open(kind, NAME, {"speed": 1})  # type: ignore[call-overload]
    assert str(caught.value).splitlines()[:2] == [
        f"{kind}:{NAME} has no option 'speed'",
        f"  provider: {kind}:{NAME} (from hardpoint-{NAME} 0.1.0)",
    ]
    assert caught.value.remedy


def test_what_cannot_work_here_says_why_and_is_not_opened(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "is_gloo_available", lambda: False)
    registry = installed.registry()
    assert not registry.probe("transport", NAME).available
    with pytest.raises(hp.ProviderUnavailable) as caught:
        registry.open("transport", NAME)
    assert str(caught.value) == (
        f"transport:{NAME} cannot work on this machine\n"
        f"  provider: transport:{NAME} (from hardpoint-{NAME} 0.1.0)\n"
        "  cause: this PyTorch was built without gloo\n"
        "  remedy: install an official PyTorch wheel"
    )


def test_loading_it_imports_no_torch(installed: Installed) -> None:
    code = (
        "import sys, hardpoint as hp; sys.path.insert(0, sys.argv[1]); r = hp.Registry();"
        f"[r.info(kind, {NAME!r}) for kind in ('backend', 'serializer', 'partitioner', 'transport')];"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(installed.site)], check=True)


def test_a_group_of_one_reduces(installed: Installed) -> None:
    transport = installed.registry().open("transport", NAME)
    group = transport.process_group(dist.HashStore(), 0, 1, timedelta(seconds=5))
    assert (group.rank(), group.size()) == (0, 1)
    tensor = torch.tensor([3.0])
    group.allreduce([tensor]).wait()
    assert tensor.item() == 3.0


def test_the_interface_comes_from_the_option_before_the_environment(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, second = installed.registry(), timedelta(seconds=1)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "no-such-interface")
    with pytest.raises(hp.TransportError) as caught:
        registry.open("transport", NAME).process_group(dist.HashStore(), 0, 1, second)
    assert "no-such-interface" in caught.value.cause
    assert "the option interface= says over which network" in caught.value.remedy
    opened = registry.open("transport", NAME, {"interface": "lo,lo"})
    assert opened.process_group(dist.HashStore(), 0, 1, second).size() == 1
