"""Every rank answers once in the store before a group is made, so that mistakes have names.

PyTorch lets ranks that disagree (two that claim one rank, two world sizes, one that never started)
wait for each other until the timeout. The roll call tells them apart in a few small requests, and
gives each group keys of its own: a store that outlives a group, as torchrun's does, otherwise hands
out addresses of processes that are gone.
"""

from __future__ import annotations

import itertools
import os
import platform
import threading
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError as OutOfTime
from datetime import timedelta
from typing import TypeVar

from torch._C._distributed_c10d import PrefixStore, Store

from hardpoint.errors import TransportError

T = TypeVar("T")

# How long a failed group may look for those who are absent, before it reports without.
SEARCH_SECONDS = 5.0

_calls = itertools.count()


class RollCall:
    """One rank's part in the making of one group.

    :param store: seen by all ranks of this group and by no other group.
    :param timeout: limit for the store to answer.
    """

    def __init__(self, store: Store, rank: int, size: int, timeout: timedelta) -> None:
        self._store = store
        self._rank = rank
        self._size = size
        self._timeout = timeout
        self._generation = 0
        self.signed = False

    def answer(self) -> Store:
        """Sign in; the store that this group alone may use.

        A process that signs in again, because it destroyed its group and makes it anew, gets the
        next generation; all ranks do that equally often.

        :raises TransportError: the rank is taken, the world sizes differ, the store is silent.
        """
        check_rank(self._rank, self._size)
        seconds = self._timeout.total_seconds()
        try:
            within(seconds, self._sign)
        except OutOfTime as error:
            raise TransportError(
                f"the store did not answer rank {self._rank} within {seconds:g} s",
                cause="its host is stopped, overloaded or cut off",
                remedy="look at the process that hosts the store (rank 0, or torchrun's agent)",
            ) from error
        self.signed = True
        return PrefixStore(f"{self._generation}/transport/", self._store)

    def _sign(self) -> None:
        host = f"process {os.getpid()} on {platform.node()}"
        # The number tells this call from earlier ones of this process.
        mine = f"{host}#{next(_calls)}"
        for generation in itertools.count():
            holder = self._agree(f"{generation}/rank/{self._rank}", mine)
            if holder == mine:
                self._generation = generation
                break
            if holder.rpartition("#")[0] != host:
                self._generation = generation
                self.tell(f"rank {self._rank} was claimed twice")
                raise TransportError(
                    f"rank {self._rank} of {self._size} is taken",
                    cause=f"{holder.rpartition('#')[0]} claimed it in this store; this is {host}",
                    remedy="give each process a rank of its own; if that process is of an "
                    "earlier run, use a fresh store (another file or port)",
                )
        agreed = self._agree(f"{self._generation}/size", str(self._size))
        if agreed != str(self._size):
            self.tell(f"rank {self._rank} expected {self._size} ranks")
            raise TransportError(
                f"rank {self._rank} expects {self._size} ranks, another rank expects {agreed}",
                remedy="start all ranks with the same world_size",
            )

    def _agree(self, key: str, wish: str) -> str:
        """The value of ``key``: ``wish`` where nobody set it before."""
        # PyTorch's stub says str; the stores return bytes.
        value: object = self._store.compare_set(key, "", wish)
        return value.decode() if isinstance(value, bytes) else str(value)

    def tell(self, trouble: str) -> None:
        """Leave word of what went wrong here, for ranks that only see that nothing comes."""
        self._agree(f"{self._generation}/trouble", trouble)

    def lost(self, what: str) -> str:
        """After a failure: what the store knows of the others, in words; ``""`` if nothing.

        :param what: what went wrong here; left for the others, unless one of them was first.
        """
        try:
            return within(SEARCH_SECONDS, lambda: self._search(what))
        except OutOfTime:
            return "the store no longer answers"
        except RuntimeError as error:
            return f"the store is gone ({error})"

    def _search(self, what: str) -> str:
        told = self._agree(f"{self._generation}/trouble", what)
        keys = [f"{self._generation}/rank/{rank}" for rank in range(self._size)]
        absent = [rank for rank, key in enumerate(keys) if not self._store.check([key])]
        found = []
        if absent:
            few = ", ".join(map(str, absent[:8])) + (", ..." if len(absent) > 8 else "")
            found.append(f"no sign of rank{'s' if len(absent) > 1 else ''} {few} so far")
        if told != what:
            found.append(f"first trouble elsewhere: {told}")
        return "; ".join(found)


def check_rank(rank: int, size: int) -> None:
    """:raises TransportError: a group of ``size`` has no such rank."""
    if size < 1:
        raise TransportError(
            f"a group of {size} ranks cannot be", remedy="give a world_size from 1 up"
        )
    if not 0 <= rank < size:
        raise TransportError(
            f"rank {rank} does not exist in a group of {size}",
            remedy=f"give a rank from 0 to {size - 1}, or a larger world_size",
        )


def within(seconds: float, ask: Callable[[], T]) -> T:
    """``ask()``, given up after ``seconds``.

    A ``TCPStore`` whose host is stopped outlives its own timeout, so the asking thread is left
    behind then.

    :raises concurrent.futures.TimeoutError: no answer in time.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # handed to the caller's thread
            answer.set_exception(error)

    threading.Thread(target=run, name="hardpoint-store", daemon=True).start()
    return answer.result(seconds)
