"""What every test of the plugin needs."""

import pytest

from hardpoint_onnx.serializer import OnnxSerializer


@pytest.fixture
def serializer():
    return OnnxSerializer()
