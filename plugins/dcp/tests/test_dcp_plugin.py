"""The plugin as the host sees it: found by its entry point, light until it is opened."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from hardpoint import ConfigError, ProbeRequest
from hardpoint_dcp import plugin
from hardpoint_dcp.serializer import DcpSerializer


def test_the_entry_point_leads_to_the_plugin():
    (found,) = entry_points(group="hardpoint.serializer.v1", name="dcp")
    assert found.load() is plugin


def test_looking_at_the_plugin_imports_no_torch():
    code = (
        "import sys; from hardpoint import ProbeRequest; from hardpoint_dcp import plugin\n"
        "plugin.hardpoint_serializer_info(); plugin.hardpoint_serializer_probe(ProbeRequest())\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_says_what_it_is():
    info = plugin.hardpoint_serializer_info()
    assert info.requires_api == (1, 0)
    assert info.suffixes == (".dcp",)
    assert info.can_save


def test_it_is_ready_here():
    assert plugin.hardpoint_serializer_probe(ProbeRequest()).available


@pytest.mark.parametrize(("attribute", "value"), [("sys.byteorder", "big"), ("os.name", "nt")])
def test_it_says_where_it_cannot_work(monkeypatch, attribute, value):
    monkeypatch.setattr(f"hardpoint_dcp.plugin.{attribute}", value)
    probe = plugin.hardpoint_serializer_probe(ProbeRequest())
    monkeypatch.undo()
    assert not probe.available
    assert probe.reason


def test_it_opens_and_has_no_options():
    assert isinstance(plugin.hardpoint_serializer_open({}), DcpSerializer)
    with pytest.raises(ConfigError, match=r"unknown option\(s\): 'threads'"):
        plugin.hardpoint_serializer_open({"threads": 2})
