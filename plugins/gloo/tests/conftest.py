"""Starts real ranks: one Python process each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

RANKS = Path(__file__).parent / "ranks"

# A rank that has not ended by then hangs; what the tests expect never depends on it.
HANG_SECONDS = 240


@dataclass(frozen=True)
class Ended:
    """How one rank ended."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def report(self) -> Any:
        """The JSON on its last line."""
        assert self.stdout, f"rank ended with {self.returncode} and no report:\n{self.stderr}"
        return json.loads(self.stdout.splitlines()[-1])


def launch(script: str, folder: Path, size: int = 2) -> list[Ended]:
    """Run ``ranks/<script>.py FOLDER`` as ``size`` ranks that find each other by environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(size),
        "OMP_NUM_THREADS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, str(RANKS / f"{script}.py"), str(folder)],
            env={**base, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        said = [rank.communicate(timeout=HANG_SECONDS) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return [Ended(rank.returncode, *texts) for rank, texts in zip(ranks, said, strict=True)]


@pytest.fixture(scope="session")
def launch_ranks() -> Callable[..., list[Ended]]:
    """:func:`launch`."""
    return launch
