"""No correct provider fails: our backends over an SDK. Files are what is shared out among test workers."""

import pytest

from first_party import SDKS, check

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("key", SDKS)
def test_the_kit_finds_nothing_wrong(key, tmp_path):
    check(key, tmp_path)
