"""Transports as backends of torch.distributed: registering, options, timeouts, refusals."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, strategies as st

import hardpoint as hp
from hardpoint.bridges.c10d import DEFAULT_TIMEOUT, init_process_group, register

MINUTE = timedelta(minutes=1)


class Native(hp.Transport):
    """Real gloo groups, and a memory of what was asked."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider

    def process_group(
        self, store: Any, rank: int, world_size: int, timeout: timedelta
    ) -> dist.ProcessGroup:
        self.provider.timeouts.append(timeout)
        store.set("mine", "1")
        return native_group(store, rank, world_size, timeout)


def native_group(store: Any, rank: int, size: int, timeout: timedelta) -> dist.ProcessGroup:
    kind = dist.ProcessGroup.BackendType.GLOO
    group = dist.ProcessGroup(store, rank, size)
    group._set_default_backend(kind)
    group._register_backend(
        torch.device("cpu"), kind, dist.ProcessGroupGloo(store, rank, size, timeout=timeout)
    )
    return group


class Provider:
    """A provider for ``registry.add``."""

    def __init__(self, make: Any = None, devices: tuple[str, ...] = ("cpu",)) -> None:
        self.configs: list[Mapping[str, object]] = []
        self.timeouts: list[timedelta] = []
        self._make = make
        self._devices = devices

    @hp.hookimpl
    def hardpoint_transport_info(self) -> hp.TransportInfo:
        return hp.TransportInfo(
            requires_api=(1, 0), summary="test", devices=self._devices, collectives=()
        )

    @hp.hookimpl
    def hardpoint_transport_probe(self, request: hp.ProbeRequest) -> hp.Probe:
        return hp.Probe.ready()

    @hp.hookimpl
    def hardpoint_transport_open(self, config: Mapping[str, object]) -> hp.Transport:
        self.configs.append(config)
        transport = Native(self)
        if self._make is not None:
            transport.process_group = self._make  # type: ignore[method-assign]
        return transport


@pytest.fixture
def registry(tmp_path: Path) -> hp.Registry:
    return hp.Registry(path=[str(tmp_path)])


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A transport name of this test alone: PyTorch forgets no backend."""
    return request.node.name.partition("[")[0].removeprefix("test_")


@pytest.fixture(autouse=True)
def no_group_left() -> Iterator[None]:
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def start(backend: str, **options: Any) -> None:
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, **options)


def total() -> float:
    ones = torch.ones(2)
    dist.all_reduce(ones)
    return ones.sum().item()


# Registering


def test_a_registered_transport_is_opened_only_when_a_group_is_made(
    registry: hp.Registry, name: str
) -> None:
    provider = Provider()
    registry.add("transport", name, provider)
    assert register(registry) == (f"hp_{name}",)
    assert provider.configs == []
    start(f"hp_{name}")
    assert total() == 2
    assert provider.configs == [{}]


def test_registering_twice_is_fine(registry: hp.Registry, name: str) -> None:
    registry.add("transport", name, Provider())
    assert register(registry, [name]) == register(registry, [name]) == (f"hp_{name}",)


def test_pytorchs_own_backends_keep_their_names(registry: hp.Registry) -> None:
    before = dict(dist.Backend.default_device_backend_map)
    registry.add("transport", "mpi", Provider())
    assert register(registry) == ("hp_mpi",)
    assert dist.Backend("mpi") == dist.Backend.MPI
    assert dist.Backend.default_device_backend_map == before


def test_another_provider_of_the_same_name_is_refused(registry: hp.Registry, name: str) -> None:
    registry.add("transport", name, Provider())
    register(registry)
    other = hp.Registry(path=[])
    other.add("transport", name, Provider())
    with pytest.raises(hp.DuplicateProvider) as caught:
        register(other, [name])
    assert str(caught.value) == (
        f"torch.distributed already has a backend 'hp_{name}'\n"
        f"  provider: transport:{name} (from this process)\n"
        f"  cause: transport:{name} (this process) of another registry has it\n"
        "  remedy: PyTorch has one table of backends per process: rename one of the two"
    )


def test_a_backend_that_someone_else_registered_is_refused(
    registry: hp.Registry, name: str
) -> None:
    dist.Backend.register_backend(f"hp_{name}", lambda *_: None, devices=["cpu"])
    registry.add("transport", name, Provider())
    with pytest.raises(hp.DuplicateProvider, match="something other than hardpoint registered it"):
        register(registry, [name])


def test_names_that_differ_in_case_alone_are_refused(registry: hp.Registry, name: str) -> None:
    registry.add("transport", name, Provider())
    registry.add("transport", name.upper(), Provider())
    with pytest.raises(hp.DuplicateProvider, match="already has a backend"):
        register(registry, [name, name.upper()])


def distribution(folder: Path, name: str, source: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[hardpoint.transport.v1]\n{name} = {name}_module\n")
    (folder / f"{name}_module.py").write_text(source)


GOOD = """
import hardpoint as hp

@hp.hookimpl
def hardpoint_transport_info():
    return hp.TransportInfo(requires_api=(1, 0), summary="", devices=("cpu",), collectives=())

@hp.hookimpl
def hardpoint_transport_probe(request):
    return hp.Probe.ready()

@hp.hookimpl
def hardpoint_transport_open(config):
    raise hp.ProviderUnavailable("no cable", remedy="plug it in")
"""


def test_a_broken_transport_is_skipped_with_a_warning_and_named_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "c10dgood", GOOD)
    distribution(tmp_path, "c10dbroken", "raise ImportError('libwire.so: not found')")
    monkeypatch.syspath_prepend(tmp_path)
    registry = hp.Registry(path=[str(tmp_path)])
    with pytest.warns(hp.ProviderSkipped, match=r"transport:c10dbroken.*(.|\n)*libwire.so"):
        assert register(registry) == ("hp_c10dgood",)
    with pytest.raises(hp.ProviderFailed, match=r"libwire\.so: not found"):
        register(registry, ["c10dbroken"])


def test_a_denied_transport_is_left_out_and_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "c10ddenied", GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    registry = hp.Registry(path=[str(tmp_path)], policy=hp.Policy(deny=("transport:c10ddenied",)))
    assert register(registry) == ()
    assert "c10ddenied_module" not in sys.modules


def test_the_same_distribution_in_another_registry_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "c10dshared", GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    first, second = hp.Registry(path=[str(tmp_path)]), hp.Registry(path=[str(tmp_path)])
    assert register(first) == register(second) == ("hp_c10dshared",)
    opened: list[str] = []

    class Watch:
        @hp.hookimpl(wrapper=True)
        def hardpoint_transport_open(self, config: Any) -> Any:
            opened.append("second")
            return (yield)

    second.wrap(Watch())
    with pytest.raises(hp.ProviderUnavailable, match="plug it in"):
        start("hp_c10dshared")
    assert opened == ["second"]


# Options and timeouts


def test_options_go_through_pg_options_and_later_groups_take_them_over(
    registry: hp.Registry, name: str
) -> None:
    provider = Provider()
    registry.add("transport", name, provider)
    register(registry)
    start(f"cpu:hp_{name}", pg_options={"interface": "eth7"}, timeout=MINUTE)
    dist.new_group([0], backend=f"hp_{name}")
    dist.new_group([0], backend=f"hp_{name}", pg_options={}, timeout=2 * MINUTE)
    assert provider.configs == [{"interface": "eth7"}, {"interface": "eth7"}, {}]
    assert provider.timeouts == [MINUTE, MINUTE, 2 * MINUTE]


def test_a_default_group_of_another_backend_hands_nothing_down(
    registry: hp.Registry, name: str
) -> None:
    provider = Provider()
    registry.add("transport", name, provider)
    init(name, registry, config={"old": 1}, timeout=MINUTE)
    dist.destroy_process_group()
    start("gloo")
    dist.new_group([0], backend=f"hp_{name}")
    assert provider.configs == [{"old": 1}, {}]
    assert provider.timeouts == [MINUTE, DEFAULT_TIMEOUT]


def test_options_that_are_no_mapping_are_refused(registry: hp.Registry, name: str) -> None:
    registry.add("transport", name, Provider())
    register(registry)
    with pytest.raises(hp.ConfigError) as caught:
        start(f"hp_{name}", pg_options=["eth0"])
    assert str(caught.value) == (
        f"pg_options of 'hp_{name}' is a list\n"
        f"  provider: transport:{name} (from this process)\n"
        "  remedy: give the transport's options as a mapping, e.g. {'name': value}, or None"
    )


def init(name: str, registry: hp.Registry, **options: Any) -> None:
    arguments = {"store": dist.HashStore(), "rank": 0, "world_size": 1, **options}
    init_process_group(name, registry=registry, **arguments)


def test_a_group_waits_ten_minutes_by_default_never_thirty(
    registry: hp.Registry, name: str
) -> None:
    provider = Provider()
    registry.add("transport", name, provider)
    init(name, registry)
    dist.destroy_process_group()
    start(f"hp_{name}")
    assert provider.timeouts == [DEFAULT_TIMEOUT, DEFAULT_TIMEOUT]
    assert timedelta(minutes=10) == DEFAULT_TIMEOUT


def test_a_timeout_that_was_asked_for_is_kept_even_if_it_is_thirty_minutes(
    registry: hp.Registry, name: str
) -> None:
    provider = Provider()
    registry.add("transport", name, provider)
    init(name, registry, timeout=30 * MINUTE)
    dist.new_group([0])
    assert provider.timeouts == [30 * MINUTE, 30 * MINUTE]


@pytest.mark.parametrize("timeout", [timedelta(0), timedelta(seconds=-1), 30])
def test_a_timeout_that_is_no_limit_is_refused(
    registry: hp.Registry, name: str, timeout: object
) -> None:
    with pytest.raises(hp.ConfigError, match="is no limit for a process group") as caught:
        init(name, registry, timeout=timeout)
    assert "give a positive datetime.timedelta" in caught.value.remedy


def test_keys_carry_the_transport_and_torchruns_attempt(
    registry: hp.Registry, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add("transport", name, Provider())
    store = dist.HashStore()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "3")
    init(name, registry, store=store)
    assert store.check([f"0//cpu//hardpoint/{name}/attempt-3//0/transport//mine"])


# What PyTorch makes of a group


def test_a_native_group_becomes_part_of_pytorchs_own(registry: hp.Registry, name: str) -> None:
    registry.add("transport", name, Provider())
    init(name, registry)
    world = dist.GroupMember.WORLD
    assert type(world) is dist.ProcessGroup
    assert isinstance(world._get_backend(torch.device("cpu")), dist.ProcessGroupGloo)
    assert dist.get_backend() == f"hp_{name}"


class PythonGroup(dist.ProcessGroup):
    def getBackendName(self) -> str:
        return "python"


def test_a_group_written_in_python_is_used_as_it_is(registry: hp.Registry, name: str) -> None:
    registry.add("transport", name, Provider(lambda store, rank, size, _: PythonGroup(rank, size)))
    init(name, registry)
    assert type(dist.GroupMember.WORLD) is PythonGroup


@pytest.mark.parametrize(
    ("make", "devices", "wrong"),
    [
        (lambda *_: None, ("cpu",), "returned an object of type NoneType, not a ProcessGroup"),
        (
            lambda store, rank, size, _: dist.ProcessGroup(store, rank, size + 1),
            ("cpu",),
            "made rank 0 of 2 where rank 0 of 1 was asked",
        ),
        (native_group, ("cpu", "cuda"), "made a group that lacks a declared device"),
    ],
)
def test_a_group_that_breaks_the_contract_is_refused(
    registry: hp.Registry, name: str, make: Any, devices: tuple[str, ...], wrong: str
) -> None:
    mine = f"{name}{len(wrong)}"
    registry.add("transport", mine, Provider(make, devices))
    with pytest.raises(hp.ContractViolation, match=wrong) as caught:
        init(mine, registry)
    assert caught.value.provider == f"transport:{mine}"
    assert caught.value.remedy == "its authors: see hardpoint.Transport.process_group"


def test_two_transports_cannot_share_a_group(registry: hp.Registry, name: str) -> None:
    registry.add("transport", f"{name}1", Provider())
    registry.add("transport", f"{name}2", Provider(devices=("cuda",)))
    register(registry)
    with pytest.raises(hp.TransportError) as caught:
        start(f"cpu:hp_{name}1,cuda:hp_{name}2")
    assert str(caught.value) == (
        f"'hp_{name}2' cannot share a group with 'hp_{name}1'\n"
        f"  provider: transport:{name}2 (from this process)\n"
        "  cause: PyTorch keeps one backend that is not built in per group\n"
        "  remedy: combine one of them with a built-in one "
        f"(e.g. 'cpu:hp_{name}1,cuda:nccl'), or make two groups"
    )
    start(f"hp_{name}1")
    assert total() == 2


# What goes wrong


def test_an_unknown_transport_names_the_nearest(registry: hp.Registry, name: str) -> None:
    registry.add("transport", name, Provider())
    with pytest.raises(hp.ProviderNotFound, match=f"did you mean '{name}'"):
        init(name[:-1], registry)


def test_a_transport_that_raises_is_named_with_the_cause(registry: hp.Registry, name: str) -> None:
    def make(*_: object) -> dist.ProcessGroup:
        raise OSError("the wire is cut")

    registry.add("transport", name, Provider(make))
    with pytest.raises(hp.TransportError) as caught:
        init(name, registry, timeout=MINUTE)
    assert str(caught.value) == (
        f"transport {name!r} could not connect rank 0 of 1\n"
        f"  provider: transport:{name} (from this process)\n"
        "  cause: OSError: the wire is cut\n"
        "  remedy: start all ranks, with the same store and world_size, and let them reach each "
        "other within the timeout (now 60 s)"
    )


def test_ranks_that_never_came_are_named(registry: hp.Registry, name: str) -> None:
    def make(*_: object) -> dist.ProcessGroup:
        raise hp.TransportError("nobody there", cause="timeout", remedy="wait longer")

    registry.add("transport", name, Provider(make))
    with pytest.raises(hp.TransportError) as caught:
        init(name, registry, rank=1, world_size=3)
    assert str(caught.value) == (
        "nobody there\n"
        f"  provider: transport:{name} (from this process)\n"
        "  cause: timeout; no sign of ranks 0, 2 so far\n"
        "  remedy: wait longer"
    )


def test_a_second_default_group_is_refused(registry: hp.Registry, name: str) -> None:
    registry.add("transport", name, Provider())
    init(name, registry)
    with pytest.raises(hp.TransportError) as caught:
        init(name, registry)
    assert str(caught.value) == (
        f"cannot make {name!r} the default process group\n"
        f"  provider: transport:{name} (from this process)\n"
        f"  cause: torch.distributed has a default group already ('hp_{name}')\n"
        "  remedy: call torch.distributed.destroy_process_group() first, or make a further group "
        f"with torch.distributed.new_group(backend='hp_{name}')"
    )


@given(rank=st.integers(-3, 6), size=st.integers(-2, 3))
def test_a_rank_outside_the_group_is_refused_at_once(rank: int, size: int) -> None:
    registry = hp.Registry(path=[])
    registry.add("transport", f"outside{rank}of{size}", Provider())
    if 0 <= rank < size:
        return
    with pytest.raises(hp.TransportError, match=r"does not exist in|ranks cannot be") as caught:
        init_process_group(
            f"outside{rank}of{size}",
            registry=registry,
            store=dist.HashStore(),
            rank=rank,
            world_size=size,
        )
    assert caught.value.remedy.startswith("give a ")
    assert caught.value.provider == f"transport:outside{rank}of{size}"


def test_a_store_without_a_rank_is_refused(registry: hp.Registry, name: str) -> None:
    registry.add("transport", name, Provider())
    with pytest.raises(hp.TransportError, match="a store alone does not say who") as caught:
        init(name, registry, rank=None)
    assert caught.value.remedy == "give rank= and world_size= with it"


def test_a_start_without_torchrun_says_what_to_set(
    registry: hp.Registry, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(variable, raising=False)
    registry.add("transport", name, Provider())
    with pytest.raises(hp.TransportError) as caught:
        init_process_group(name, registry=registry)
    assert "environment variable RANK expected, but not set" in caught.value.cause
    assert caught.value.remedy == (
        "start with torchrun, or give init_method= or store=, with rank= and world_size="
    )


def test_a_store_that_nobody_hosts_is_named_within_the_timeout(
    registry: hp.Registry, name: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    registry.add("transport", name, Provider())
    with pytest.raises(hp.TransportError) as caught:
        init_process_group(
            name,
            registry=registry,
            init_method=f"tcp://127.0.0.1:{port}",
            rank=1,
            world_size=2,
            timeout=timedelta(seconds=1),
        )
    message = str(caught.value)
    assert message.startswith(f"cannot make {name!r} the default process group\n")
    assert f"127.0.0.1:{port}" in caught.value.cause.replace(", ", ":")
    assert "reach the store's host and port within the timeout (now 1 s)" in caught.value.remedy
