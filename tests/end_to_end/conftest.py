"""What the tests of our wheels share: building takes a while, once is enough."""

from __future__ import annotations

from pathlib import Path

import pytest

import fresh_env


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel of every distribution; each wheel from its sdist."""
    out = tmp_path_factory.mktemp("built")
    fresh_env.build(out)
    return out
