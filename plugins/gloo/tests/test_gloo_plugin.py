"""The gloo plugin by itself: light, checked options, honest probes, messages."""

from __future__ import annotations

import socket
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, strategies as st

import hardpoint as hp
from hardpoint_gloo import plugin
from hardpoint_gloo.options import Options

SECOND = timedelta(seconds=1)
BY = "  provider: transport:gloo (from hardpoint-gloo 0.1.0)\n"


def group(rank: int = 0, size: int = 1, **config: object) -> dist.ProcessGroup:
    return plugin.hardpoint_transport_open(config).process_group(
        dist.HashStore(), rank, size, SECOND
    )


def test_loading_the_plugin_imports_no_torch() -> None:
    code = (
        "import sys, hardpoint as hp;"
        "r = hp.Registry();"
        "assert r.info('transport', 'gloo').devices == ('cpu',);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_is_ready_here() -> None:
    for deep in (False, True):
        assert plugin.hardpoint_transport_probe(hp.ProbeRequest(deep=deep)).available


@pytest.mark.parametrize(
    ("missing", "reason"),
    [("is_available", "without torch.distributed"), ("is_gloo_available", "without gloo")],
)
def test_a_pytorch_without_it_is_unavailable_not_broken(
    monkeypatch: pytest.MonkeyPatch, missing: str, reason: str
) -> None:
    monkeypatch.setattr(dist, missing, lambda: False)
    probe = plugin.hardpoint_transport_probe(hp.ProbeRequest())
    assert not probe.available
    assert probe.reason == f"torch {torch.__version__} was built {reason}"
    with pytest.raises(hp.ProviderUnavailable) as caught:
        plugin.hardpoint_transport_open({})
    assert str(caught.value) == (
        f"gloo cannot work on this machine\n{BY}"
        f"  cause: torch {torch.__version__} was built {reason}\n"
        "  remedy: install an official PyTorch wheel: https://pytorch.org/get-started/locally"
    )


def test_a_deep_probe_says_where_it_cannot_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nope")
    assert plugin.hardpoint_transport_probe(hp.ProbeRequest()).available
    probe = plugin.hardpoint_transport_probe(hp.ProbeRequest(deep=True))
    assert not probe.available
    assert "Unable to find address for: nope" in probe.reason
    assert "GLOO_SOCKET_IFNAME" in probe.remedy


def test_a_group_is_a_real_process_group_that_reduces() -> None:
    made = group(threads=1, interface="lo")
    assert isinstance(made, dist.ProcessGroup)
    assert (made.rank(), made.size(), made.name()) == (0, 1, "gloo")
    ones = torch.ones(3)
    made.allreduce([ones]).wait()
    assert ones.tolist() == [1, 1, 1]


@pytest.mark.parametrize(("interface", "expected"), [("lo", 2), ("lo,lo", 4)])
def test_it_runs_two_threads_per_interface_unless_told(interface: str, expected: int) -> None:
    def threads(**config: object) -> int:
        backend: Any = group(interface=interface, **config)._get_backend(torch.device("cpu"))
        return int(backend.options._threads)

    assert threads() == expected
    assert threads(threads=7) == 7


def test_the_environment_names_the_interface_as_for_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nope")
    with pytest.raises(hp.TransportError, match="network interface 'nope'"):
        group()
    assert group(interface="lo").size() == 1, "an option counts more than the environment"


def test_an_unknown_interface_names_those_there_are() -> None:
    with pytest.raises(hp.TransportError) as caught:
        group(interface="lo,nope")
    here = ", ".join(name for _, name in socket.if_nameindex())
    assert str(caught.value) == (
        f"gloo cannot listen on network interface 'nope'\n{BY}"
        "  cause: ifa != nullptr. Unable to find address for: nope\n"
        f"  remedy: set the option 'interface' or GLOO_SOCKET_IFNAME; this machine has {here}"
    )


def test_an_unknown_host_name_is_said() -> None:
    with pytest.raises(hp.TransportError, match=r"host name 'no\.such\.host\.invalid'"):
        group(hostname="no.such.host.invalid")


def test_ranks_that_do_not_come_end_at_the_timeout() -> None:
    with pytest.raises(hp.TransportError) as caught:
        group(0, 2)
    assert str(caught.value).startswith(f"gloo could not connect rank 0 of 2\n{BY}  cause: ")
    assert caught.value.remedy == (
        "start all 2 ranks with the same store and world size, let their hosts reach each other "
        "over TCP, and give them time with timeout= (now 1 s)"
    )


@pytest.mark.parametrize(
    ("config", "what", "remedy"),
    [
        ({"interfaces": "lo"}, "no option 'interfaces'", "did you mean 'interface'?"),
        ({"zzz": 1}, "no option 'zzz'", "known: interface, hostname, threads"),
        ({"threads": 0}, "option 'threads' of the gloo transport is 0", "a whole number from 1"),
        ({"threads": True}, "'threads' of the gloo transport is True", "a whole number from 1"),
        ({"threads": "2"}, "'threads' of the gloo transport is '2'", "a whole number from 1"),
        ({"interface": 3}, "'interface' of the gloo transport is 3, not text", ""),
        ({"interface": "lo,,eth0"}, "names an empty interface", "by single commas"),
        ({"interface": "lo", "hostname": "a"}, "both 'interface' and 'hostname'", "one of them"),
    ],
)
def test_wrong_options_are_refused_when_it_is_opened(
    config: dict[str, object], what: str, remedy: str
) -> None:
    with pytest.raises(hp.ConfigError) as caught:
        plugin.hardpoint_transport_open(config)
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert BY in str(caught.value) + "\n"


values = st.none() | st.booleans() | st.integers(-2, 9) | st.text(max_size=8) | st.floats()
keys = st.sampled_from(["interface", "hostname", "threads"]) | st.text(max_size=9)


@given(st.dictionaries(keys, values, max_size=4))
def test_any_options_are_either_usable_or_refused_with_a_config_error(
    config: dict[str, object],
) -> None:
    try:
        options = Options.parse(config)
    except hp.ConfigError as error:
        refusal = error
    else:
        assert options.threads is None or options.threads >= 1
        assert not (options.interface and options.hostname)
        assert all(options.interface.split(",")) or not options.interface
        return
    assert refusal.provider == "transport:gloo"
    assert refusal.what
