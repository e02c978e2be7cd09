"""What one rank of a check knows, and how it joins, waits and reports."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import hardpoint as hp
import hardpoint.bridges.c10d
from hardpoint.testing.journal import Journal
from hardpoint.testing.transport.names import collectives_of
from hardpoint.testing.transport.run import Request

# Of groups that are not about timeouts: long for a machine under load, short for who waits.
PATIENCE = timedelta(seconds=20)


class Scene:
    """One rank of one run.

    :ivar arguments: what the check gave its part.
    :ivar device: where this rank's tensors live.
    :ivar counter: numbers, each given out once.
    """

    def __init__(
        self, rank: int, size: int, folder: Path, journal: Journal, request: Request
    ) -> None:
        self.rank = rank
        self.size = size
        self.folder = folder
        self.request = request
        self.arguments: Mapping[str, Any] = request.arguments
        self._journal = journal
        self.registry = hp.Registry()
        self.counter = itertools.count()
        torch.set_num_threads(1)
        torch.manual_seed(0)
        warnings.simplefilter("ignore")  # torch 2.13 deprecates names that transports still have
        index = rank % request.devices if request.devices else None
        named = request.device if index is None else f"{request.device}:{index}"
        self.device = torch.device(named)
        if index is not None:
            torch.get_device_module(self.device).set_device(self.device)

    @property
    def backend(self) -> str:
        """Its name in ``torch.distributed``."""
        return f"hp_{self.request.provider}".lower()

    def declares(self, *collectives: str) -> bool:
        """Whether the transport says that it has all of these."""
        return set(collectives) <= collectives_of(self.request.info)

    def at(self, what: str) -> None:
        """What this rank does next: said of it if it never ends."""
        self._journal.write("at", what=what)

    def wrong(self, message: str) -> None:
        """One thing is wrong; others may still be looked at."""
        self._journal.write("wrong", message=message)

    def note(self, **data: object) -> None:
        """A figure for the report."""
        self._journal.write("note", data=data)

    def join(self, timeout: timedelta = PATIENCE, *, at: str = "") -> None:
        """Make the transport the default group, by hardpoint's own entrance.

        :param at: name of the meeting place; default: a new one each time.
        """
        place = at or f"default-{next(self.counter)}"
        self.at("hardpoint.init_process_group")
        hp.init_process_group(
            self.request.provider,
            init_method=f"file://{self.folder}/{place}.store",
            rank=self.rank,
            world_size=self.size,
            timeout=timeout,
            config=self.request.config,
            device_id=self.device if self.request.devices else None,
            registry=self.registry,
        )

    def leave(self) -> None:
        """Destroy all groups."""
        self.at("torch.distributed.destroy_process_group")
        dist.destroy_process_group()

    @contextmanager
    def group(self) -> Iterator[dist.ProcessGroup]:
        """The default group, from joining to leaving."""
        self.join()
        yield dist.group.WORLD  # type: ignore[misc]  # there is one now
        self.leave()

    def settle(self) -> None:
        """Wait for the device: on accelerators ``wait()`` only orders what comes after."""
        if self.device.type != "cpu":
            torch.get_device_module(self.device).synchronize()

    def meet(self, place: str, *ranks: int, seconds: float = 60.0) -> None:
        """Wait for the other ranks by files: needs nothing of the transport.

        :param ranks: who meets; default: all.
        :raises RuntimeError: one of them does not come.
        """
        self.raise_flag(f"{place}-{self.rank}")
        for other in ranks or range(self.size):
            self.await_flag(f"{place}-{other}", seconds)

    def raise_flag(self, name: str) -> None:
        """Let other ranks see that something has happened; says when, too."""
        part = self.folder / f"{name}.part-{self.rank}"
        part.write_text(repr(time.monotonic()))
        part.rename(self.folder / f"{name}.flag")

    def await_flag(self, name: str, seconds: float = 60.0) -> float:
        """Wait until another rank raised it; when that was, on a clock that ranks share.

        :raises RuntimeError: it is not raised in time.
        """
        file = self.folder / f"{name}.flag"
        deadline = time.monotonic() + seconds
        while not file.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"another rank did not get to {name!r} within {seconds:g} s")
            time.sleep(0.001)
        return float(file.read_text())
