"""Starts ranks for the checks of one suite."""

from __future__ import annotations

import json
import os
import pickle
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from hardpoint.testing.check import fail
from hardpoint.testing.journal import read
from hardpoint.testing.process import answer_of, kill_group, run_python
from hardpoint.testing.subject import Subject
from hardpoint.testing.transport.run import Ended, Request, Run

PARTS = "hardpoint.testing.transport.ranks"

_START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); "
    "from hardpoint.testing.transport.server import serve; serve()"
)
_GRACE_SECONDS = 60.0  # for the server, on top of what its ranks have: it imports PyTorch first

_COUNT = """
import sys, torch

def count(device):
    try:
        module = torch.get_device_module(device)
    except RuntimeError:  # this build of PyTorch does not know it
        return 0
    return module.device_count() if module.is_available() else 0

answer({device: count(device) for device in sys.argv[1:]})
"""


class Launcher:
    """Runs parts of checks as ranks. One server process, started when needed, forks them all."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._server: subprocess.Popen[bytes] | None = None

    @cached_property
    def _place(self) -> tuple[str, int]:
        """Type of device that tensors live on, and how many there are (0: no limit)."""
        declared: tuple[str, ...] = self._subject.info.devices
        if "cpu" in declared:
            return "cpu", 0
        # Elsewhere: asking wakes drivers.
        there = answer_of(run_python(_COUNT, *declared), "counting devices")
        for device in declared:
            if there[device]:
                return device, there[device]
        pytest.skip(f"none of its devices ({', '.join(declared)}) is on this machine")

    def worlds(self, *wanted: int) -> list[int]:
        """Those of the wanted world sizes that this machine has devices for; skips if none.

        A device of its own for each rank: so transports of accelerators are used.
        """
        device, count = self._place
        fitting = [size for size in wanted if not count or size <= count]
        if not fitting:
            pytest.skip(f"{min(wanted)} ranks need a {device} device each; there are {count}")
        return fitting

    def run(
        self,
        part: str,
        size: int,
        *,
        seconds: float = 90.0,
        expendable: Iterable[int] = (),
        **arguments: Any,
    ) -> Run:
        """Run ``part`` (``module:function`` of the folder ``ranks``) as ``size`` ranks.

        :param seconds: who has not ended by then is killed.
        :param expendable: ranks that are not waited for, and may end in any way.
        :param arguments: for the part, as ``scene.arguments``.
        """
        (size,) = self.worlds(size)
        module, _, function = part.partition(":")
        info, config = self._subject.info, dict(self._subject.settings.config)
        request = Request(self._subject.name, config, info, *self._place, arguments)
        with tempfile.TemporaryDirectory(prefix="hardpoint-ranks-") as name:
            folder = Path(name)
            temporary = folder / "tmp"
            temporary.mkdir()
            (folder / "request.pickle").write_bytes(pickle.dumps(request))
            answer = self._ask(
                {
                    "module": f"{PARTS}.{module}",
                    "function": function,
                    "folder": name,
                    "size": size,
                    "seconds": seconds,
                    "expendable": list(expendable),
                }
            )
            return Run(
                [_ended(folder, rank, answer["codes"].get(str(rank))) for rank in range(size)],
                seconds,
                tuple(expendable),
                answer["processes"],
                answer["shared_memory"],
                sorted(str(file.relative_to(temporary)) for file in temporary.rglob("*")),
            )

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        server = self._server or self._start()
        assert server.stdin
        assert server.stdout
        try:
            server.stdin.write(json.dumps(order).encode() + b"\n")
            server.stdin.flush()
        except BrokenPipeError:
            self.close()
            fail("the process that ranks are forked from has died; its stderr says why")
        patience = order["seconds"] + _GRACE_SECONDS
        answered = select.select([server.stdout], [], [], patience)[0]
        line = server.stdout.readline() if answered else b""
        if not line:
            self.close()
            how = "died" if answered else f"not answered within {patience:g} s"
            fail(f"the process that ranks are forked from has {how}; its stderr may say why")
        return dict(json.loads(line))

    def _start(self) -> subprocess.Popen[bytes]:
        if not hasattr(os, "fork"):
            pytest.skip("ranks are made with fork, which this system lacks")
        path = "\n".join(str(Path(folder).absolute()) for folder in sys.path if folder)
        # A process with one thread is safe to fork: pools of threads must not start in it.
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._server = subprocess.Popen(
            [sys.executable, "-c", _START, path],
            env={**os.environ, **single, "TORCH_CPP_LOG_LEVEL": "ERROR"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        return self._server

    def close(self) -> None:
        """End the server and all that it started."""
        server, self._server = self._server, None
        if server is not None:
            kill_group(server)
            server.communicate()


def _ended(folder: Path, rank: int, code: int | None) -> Ended:
    output = folder / f"rank-{rank}.out"
    text = output.read_text(errors="replace") if output.exists() else ""
    return Ended(rank, code, [line for _, line in read(folder / f"rank-{rank}.jsonl")], text)


_LAUNCHER = pytest.StashKey[Launcher]()


class Ranked:
    """What the checks of a transport share: ranks."""

    @pytest.fixture
    def ranks(self, request: pytest.FixtureRequest, subject: Subject) -> Launcher:
        """Runs parts of a check as ranks; skips where the provider is unavailable."""
        subject.require_available()
        suite = request.node.getparent(pytest.Class)
        launcher: Launcher | None = suite.stash.get(_LAUNCHER, None)
        if launcher is None:
            launcher = suite.stash[_LAUNCHER] = Launcher(subject)
            suite.addfinalizer(launcher.close)
        return launcher
