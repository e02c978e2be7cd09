"""The conformance kit: what every provider must do, as a pytest suite that a vendor runs.

Opt-in: ``pytest -p hardpoint.testing --pyargs hardpoint.testing.suite --provider backend:acme``, or
``hardpoint check backend:acme``, or a test class of one's own::

    from hardpoint.testing import BackendSuite

    class TestAcme(BackendSuite):
        provider = "backend:acme"

Needs the extra ``hardpoint[testing]``. This module is the pytest plugin; importing it imports
neither torch nor a provider.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from hardpoint.testing.plugin import (
    figures as figures,
    pytest_addoption as pytest_addoption,
    pytest_collection_modifyitems as pytest_collection_modifyitems,
    pytest_configure as pytest_configure,
    pytest_ignore_collect as pytest_ignore_collect,
    pytest_runtest_makereport as pytest_runtest_makereport,
    pytest_runtest_protocol as pytest_runtest_protocol,
    pytest_sessionfinish as pytest_sessionfinish,
    pytest_terminal_summary as pytest_terminal_summary,
    subject as subject,
)  # fmt: skip
from hardpoint.testing.suites import SUITES

if TYPE_CHECKING:
    from hardpoint.testing.backend import BackendSuite as BackendSuite
    from hardpoint.testing.partitioner import PartitionerSuite as PartitionerSuite
    from hardpoint.testing.serializer import SerializerSuite as SerializerSuite
    from hardpoint.testing.transport import TransportSuite as TransportSuite

__all__ = ["BackendSuite", "PartitionerSuite", "SerializerSuite", "TransportSuite"]


def __getattr__(name: str) -> object:
    """Import a suite on first use: a vendor of one kind need not import the others."""
    if name not in SUITES:
        raise AttributeError(f"module 'hardpoint.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(SUITES[name]), name)
