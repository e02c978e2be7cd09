"""Files made by hand, byte by byte: the writers under test have no part in them."""

import json
from pathlib import Path

import pytest

from hardpoint_safetensors.serializer import SafetensorsSerializer


@pytest.fixture
def serializer():
    return SafetensorsSerializer()


@pytest.fixture
def craft(tmp_path):
    """``craft(header, data)`` writes a file; ``header`` is JSON text, bytes, or a dict."""

    def make(header, data=b"", *, length=None, name="made.safetensors") -> Path:
        if isinstance(header, dict):
            header = json.dumps(header)
        if isinstance(header, str):
            header = header.encode("utf-8", "surrogatepass")
        stated = len(header) if length is None else length
        path = tmp_path / name
        path.write_bytes(stated.to_bytes(8, "little") + header + data)
        return path

    return make
