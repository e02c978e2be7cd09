"""What every test of the plugin needs."""

import pytest

from hardpoint_numpy.serializer import NumpySerializer


@pytest.fixture
def serializer():
    return NumpySerializer()
