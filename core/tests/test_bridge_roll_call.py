"""The roll call names who is missing, who is there twice, and a store that fell silent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from hypothesis import given, strategies as st

from hardpoint import TransportError
from hardpoint.bridges.roll_call import RollCall

LIMIT = timedelta(seconds=30)


@pytest.fixture(params=["hash", "file", "tcp"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "hash":
        return dist.HashStore()
    if request.param == "file":
        return dist.FileStore(str(tmp_path / "store"), 1)
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def test_ranks_of_one_group_share_keys_that_no_other_group_sees(store: Any) -> None:
    first = [RollCall(store, rank, 2, LIMIT).answer() for rank in range(2)]
    second = [RollCall(store, rank, 2, LIMIT).answer() for rank in range(2)]
    first[0].set("address", "one")
    second[0].set("address", "two")
    assert first[1].get("address") == b"one"
    assert second[1].get("address") == b"two"


def test_another_process_on_the_same_rank_is_refused_and_the_rest_is_told(store: Any) -> None:
    store.set("0/rank/1", "process 1 on mars#0")
    with pytest.raises(TransportError) as caught:
        RollCall(store, 1, 2, LIMIT).answer()
    assert caught.value.what == "rank 1 of 2 is taken"
    assert caught.value.cause.startswith("process 1 on mars claimed it in this store; this is ")
    assert "use a fresh store" in caught.value.remedy
    other = RollCall(store, 0, 2, LIMIT)
    other.answer()
    assert other.lost("timeout") == "first trouble elsewhere: rank 1 was claimed twice"


def test_another_world_size_is_refused(store: Any) -> None:
    RollCall(store, 0, 2, LIMIT).answer()
    with pytest.raises(TransportError) as caught:
        RollCall(store, 1, 3, LIMIT).answer()
    assert str(caught.value) == (
        "rank 1 expects 3 ranks, another rank expects 2\n"
        "  remedy: start all ranks with the same world_size"
    )


def test_one_missing_rank_is_named(store: Any) -> None:
    call = RollCall(store, 1, 2, LIMIT)
    call.answer()
    assert call.lost("timeout") == "no sign of rank 0 so far"


def test_all_present_is_nothing_to_report(store: Any) -> None:
    calls = [RollCall(store, rank, 2, LIMIT) for rank in range(2)]
    for call in calls:
        call.answer()
    assert calls[0].lost("timeout") == ""


@given(size=st.integers(1, 40), data=st.data())
def test_every_missing_rank_is_found(size: int, data: st.DataObject) -> None:
    present = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    store = dist.HashStore()
    calls = [RollCall(store, rank, size, LIMIT) for rank in present]
    for call in calls:
        call.answer()
    missing = [rank for rank in range(size) if rank not in present]
    words = calls[0].lost("timeout")
    named = [int(n) for n in words.replace(",", " ").split() if n.isdigit()]
    assert named == missing[:8]
    assert ("..." in words) == (len(missing) > 8)


@pytest.fixture
def host() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that hosts a TCPStore."""
    code = (
        "import sys, torch.distributed as d;"
        "s = d.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False);"
        "print(s.port, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    assert process.stdin
    yield process, int(process.stdout.readline())
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)  # lets the thread that was left behind end
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_a_store_on_a_stopped_host_is_given_up(
    host: tuple[subprocess.Popen[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, port = host
    signed = RollCall(dist.TCPStore("127.0.0.1", port), 0, 2, LIMIT)
    signed.answer()
    late = RollCall(dist.TCPStore("127.0.0.1", port), 1, 2, timedelta(seconds=0.5))
    os.kill(process.pid, signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)  # the thread that answers may go on for a while
    with pytest.raises(TransportError) as caught:
        late.answer()
    assert str(caught.value) == (
        "the store did not answer rank 1 within 0.5 s\n"
        "  cause: its host is stopped, overloaded or cut off\n"
        "  remedy: look at the process that hosts the store (rank 0, or torchrun's agent)"
    )
    monkeypatch.setattr("hardpoint.bridges.roll_call.SEARCH_SECONDS", 0.5)
    assert signed.lost("timeout") == "the store no longer answers"


def test_a_store_whose_host_died_is_reported(
    host: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = host
    call = RollCall(dist.TCPStore("127.0.0.1", port), 0, 2, LIMIT)
    call.answer()
    process.kill()
    process.wait()
    assert call.lost("timeout").startswith("the store is gone (")
