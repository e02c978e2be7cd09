import pytest

from hardpoint_checkpoint.serializer import CheckpointSerializer


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
