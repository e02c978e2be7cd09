"""What every test of the plugin needs."""

import pytest

from hardpoint_gguf.serializer import GgufSerializer


@pytest.fixture
def serializer():
    return GgufSerializer()
