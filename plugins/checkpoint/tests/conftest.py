import sys
from pathlib import Path

import pytest

from hardpoint_checkpoint.serializer import CheckpointSerializer

# The forge beside this file: --import-mode=importlib puts no folder of tests on the path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def serializer():
    return CheckpointSerializer()


@pytest.fixture
def craft(tmp_path):
    """``craft(bytes)`` writes a file."""

    def make(data, name="made.pt"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return make
