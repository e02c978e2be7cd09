"""Providers with one flaw each, for the checks that all kinds share."""

from hardpoint import BackendInfo, hookimpl
from hardpoint_cpu import plugin as cpu


class Cpu:
    """The cpu backend, correct, by its own hooks."""

    hardpoint_backend_info = staticmethod(cpu.hardpoint_backend_info)
    hardpoint_backend_probe = staticmethod(cpu.hardpoint_backend_probe)
    hardpoint_backend_open = staticmethod(cpu.hardpoint_backend_open)


class NoSummary(Cpu):
    @hookimpl
    def hardpoint_backend_info(self):
        return BackendInfo(requires_api=(1, 0), summary=" ", precisions=("fp32",))


no_summary = NoSummary()
