"""Providers with one flaw each, for the checks that all kinds share.

They derive from a backend that honestly runs nothing: correct, and light, so that each run of a
check takes its fraction of a second.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

from hardpoint import (
    ArtifactError,
    Backend,
    BackendInfo,
    CompileError,
    ConfigError,
    Device,
    PartitionerInfo,
    Probe,
    ProviderUnavailable,
    SerializerInfo,
    Support,
    TransportInfo,
    did_you_mean,
    hookimpl,
)


def made(cls):
    """An entry point names an object, not its class."""
    return cls()


DEVICE = Device("0", "a device that runs nothing")


class Null(Backend):
    """Runs nothing, and says so."""

    def devices(self):
        return [DEVICE]

    def support(self, program, device):
        return Support(frozenset(), {node.name: "it runs nothing" for node in program.graph.nodes})

    def compile(self, program, device, options):
        raise CompileError("the null backend compiles nothing")

    def load(self, artifact, device):
        raise ArtifactError("the null backend has no artifacts")


class Correct:
    """The hooks, without a flaw. Mutants override what is not a hook."""

    @hookimpl
    def hardpoint_backend_info(self):
        return self.info()

    @hookimpl
    def hardpoint_backend_probe(self, request):
        return self.probe(request.deep)

    @hookimpl
    def hardpoint_backend_open(self, config):
        self.check(config)
        return self.open(config)

    def info(self):
        return BackendInfo(requires_api=(1, 0), summary="runs nothing", precisions=("fp32",))

    def probe(self, deep):
        return Probe.ready(DEVICE)

    def check(self, config):
        for option, value in config.items():
            if option != "devices":
                raise ConfigError(
                    f"there is no option {option!r}", remedy=did_you_mean(option, ["devices"])
                )
            if not isinstance(value, int):
                raise ConfigError(f"devices is {value!r}", remedy="give the number of devices")

    def open(self, config):
        return Null()


correct = Correct()


class Absent(Correct):
    """Correct too, on a machine without its hardware."""

    def probe(self, deep):
        return Probe.unavailable("the driver libnull.so.1 is not installed", remedy="install it")

    def open(self, config):
        raise ProviderUnavailable(
            "it cannot work on this machine",
            cause="the driver libnull.so.1 is not installed",
            remedy="install it",
        )


absent = Absent()

# ---- what it says it is


@made
class NoSummary(Correct):
    def info(self):
        return BackendInfo(requires_api=(1, 0), summary=" ", precisions=("fp32",))


@made
class LongSummary(Correct):
    def info(self):
        return BackendInfo(requires_api=(1, 0), summary="runs\nnothing", precisions=("fp32",))


@made
class OddPrecision(Correct):
    def info(self):
        return BackendInfo(requires_api=(1, 0), summary="x", precisions=("fp32", "float16"))


@made
class NoPrecision(Correct):
    def info(self):
        return BackendInfo(requires_api=(1, 0), summary="x", precisions=())


@made
class OptionWithoutHelp(Correct):
    def info(self):
        return BackendInfo(
            requires_api=(1, 0), summary="x", precisions=("fp32",), options={"mode": ""}
        )


@made
class OddVersion(Correct):
    def info(self):
        return BackendInfo(requires_api=(True, 0), summary="x", precisions=("fp32",))


@made
class SuffixWithoutDot:
    @hookimpl
    def hardpoint_serializer_info(self):
        return SerializerInfo(requires_api=(1, 0), summary="x", suffixes=("acme",))

    @hookimpl
    def hardpoint_serializer_probe(self, request):
        return Probe.ready()

    @hookimpl
    def hardpoint_serializer_open(self, config):
        raise NotImplementedError


@made
class UnknownObjective:
    @hookimpl
    def hardpoint_partitioner_info(self):
        return PartitionerInfo(requires_api=(1, 0), summary="x", objectives=("speed",))

    @hookimpl
    def hardpoint_partitioner_probe(self, request):
        return Probe.ready(DEVICE)

    @hookimpl
    def hardpoint_partitioner_open(self, config):
        raise NotImplementedError


@made
class DeviceNotType:
    @hookimpl
    def hardpoint_transport_info(self):
        return TransportInfo(
            requires_api=(1, 0), summary="x", devices=("cuda:0",), collectives=("all_reduce",)
        )

    @hookimpl
    def hardpoint_transport_probe(self, request):
        return Probe.ready()

    @hookimpl
    def hardpoint_transport_open(self, config):
        raise NotImplementedError


# ---- more than once


@made
class CountsWhoAsks(Correct):
    asked = 0

    def info(self):
        self.asked += 1
        return BackendInfo(
            requires_api=(1, 0), summary=f"asked {self.asked} times", precisions=("fp32",)
        )


@made
class RegistersOnce(Correct):
    registered = False

    def info(self):
        if self.registered:
            raise RuntimeError("acme is registered already")
        self.registered = True
        return super().info()


@made
class ProbesOnce(Correct):
    probed = False

    def probe(self, deep):
        first, self.probed = not self.probed, True
        return Probe.ready(DEVICE) if first else Probe.unavailable("the device is busy")


@made
class OpensOneForAll(Correct):
    shared = Null()

    def open(self, config):
        return self.shared


@made
class LastOneCounts(Correct):
    """Letting go of one closes the driver for all."""

    def open(self, config):
        class Closing(Null):
            driver = ["open"]

            def devices(self):
                return [DEVICE for _ in OPENED]

            def __del__(self):
                OPENED.clear()

        OPENED.append("open")
        return Closing()


OPENED = []

# ---- processes and threads


@made
class ForkHangs(Correct):
    """Its lock was taken when it was opened, by a thread that the child does not have."""

    lock = None

    def open(self, config):
        if self.lock is None:
            self.lock = threading.Lock()
            self.owner = os.getpid()
        elif os.getpid() != self.owner:
            self.lock.acquire()
            self.lock.acquire()
        return Null()


@made
class ForkCrashes(Correct):
    owner = None

    def open(self, config):
        self.owner = self.owner or os.getpid()
        if self.owner != os.getpid():
            os.abort()
        return Null()


@made
class ForkRaises(Correct):
    owner = None

    def open(self, config):
        self.owner = self.owner or os.getpid()
        if self.owner != os.getpid():
            raise RuntimeError("cannot re-initialize in a forked subprocess")
        return Null()


@made
class NeverInAChild(Correct):
    def open(self, config):
        if os.getpid() != os.getsid(0):
            raise RuntimeError("not the first process")
        return Null()


@made
class NeverSpawned(Correct):
    def open(self, config):
        import multiprocessing

        if multiprocessing.parent_process() is not None:
            raise RuntimeError("daemonic processes are not allowed to have children")
        return Null()


@made
class DiesSpawned(Correct):
    def open(self, config):
        import multiprocessing

        if multiprocessing.parent_process() is not None:
            os.abort()
        return Null()


@made
class StartsTwice(Correct):
    """The flag is set before what it stands for is there."""

    started, driver = False, None

    def open(self, config):
        if not self.started:
            self.started = True
            time.sleep(0.05)
            self.driver = Null
        return self.driver()


@made
class OtherTypeWhileBusy(Correct):
    lock = threading.Lock()

    def open(self, config):
        if not self.lock.acquire(blocking=False):
            return type("Fallback", (Null,), {})()
        try:
            time.sleep(0.05)
            return Null()
        finally:
            self.lock.release()


# ---- probing


@made
class RaisesOnProbe(Correct):
    def probe(self, deep):
        raise OSError("libnull.so.1: cannot open shared object file")


@made
class RaisesOnDeepProbe(Correct):
    def probe(self, deep):
        if deep:
            raise OSError("no device node /dev/null0")
        return Probe.ready(DEVICE)


@made
class ReadyWithoutDevice(Correct):
    def probe(self, deep):
        return Probe.ready()


@made
class SameDeviceTwice(Correct):
    def probe(self, deep):
        return Probe.ready(DEVICE, DEVICE)


@made
class IdWithSpace(Correct):
    def probe(self, deep):
        return Probe.ready(Device("card 0", "a card"))


@made
class NamelessDevice(Correct):
    def probe(self, deep):
        return Probe.ready(Device("0", ""))


@made
class OddTorchDevice(Correct):
    def probe(self, deep):
        return Probe.ready(Device("0", "a card", torch_device="NPU 0"))


@made
class NoMemory(Correct):
    def probe(self, deep):
        return Probe.ready(Device("0", "a card", memory=0))


@made
class ObjectsInProperties(Correct):
    def probe(self, deep):
        return Probe.ready(Device("0", "a card", properties={"driver": Path("/lib")}))


@made
class OneWordReason(Correct):
    def probe(self, deep):
        return Probe.unavailable("no")


@made
class ShallowKnowsLess(Correct):
    def probe(self, deep):
        return Probe.ready(DEVICE) if deep else Probe.unavailable("nobody has looked yet")


@made
class NeedsPath(Correct):
    def probe(self, deep):
        subprocess.run([shutil.which("true")], check=True)
        return Probe.ready(DEVICE)


@made
class NeedsPathToOpen(Correct):
    def open(self, config):
        subprocess.run(["true"], check=True)
        return Null()


@made
class OpensWithoutHardware(Absent):
    def open(self, config):
        return Null()


@made
class RawWithoutHardware(Absent):
    def open(self, config):
        raise OSError("libnull.so.1: cannot open shared object file")


@made
class UnavailableWithoutWords(Absent):
    def open(self, config):
        raise ProviderUnavailable("it cannot work on this machine")


@made
class OpensWithoutHardwareElsewhere(Correct):
    """Available here, and not where no accelerator is visible."""

    def probe(self, deep):
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            return Probe.unavailable("no accelerator is visible")
        return Probe.ready(DEVICE)


# ---- configuration


@made
class AcceptsAnything(Correct):
    def check(self, config):
        pass


@made
class RawOnUnknownOption(Correct):
    def check(self, config):
        (lambda devices=1: None)(**config)


@made
class UnnamedOption(Correct):
    def check(self, config):
        if config:
            raise ConfigError("the configuration is wrong", remedy="correct it")


@made
class OptionWithoutRemedy(Correct):
    def check(self, config):
        for option in config:
            raise ConfigError(f"there is no option {option!r}")


@made
class BlamesTheMachine(Correct):
    def check(self, config):
        for option in config:
            raise ProviderUnavailable(f"{option} is not here", remedy="install it")


@made
class AcceptsAnyValue(Correct):
    def check(self, config):
        super().check(dict.fromkeys(config, 1))


@made
class RawOnWrongValue(Correct):
    def check(self, config):
        super().check(dict.fromkeys(config, 1))
        if config:
            range(config["devices"])


# ---- what stays behind


@made
class SetsEnvironmentOnOpen(Correct):
    def open(self, config):
        os.environ["NULL_LOG_LEVEL"] = "1"
        return Null()


@made
class ChangesTheProcess(Correct):
    """Everything at once: each change is named."""

    def info(self):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, frame: None)
        return super().info()

    def probe(self, deep):
        os.environ.pop("PATH", None)
        return Probe.ready(DEVICE)

    def open(self, config):
        import logging

        os.chdir("/")
        os.umask(0o077)
        warnings.simplefilter("ignore")
        logging.basicConfig(level=logging.DEBUG)
        sys.path.insert(0, "/opt/null")
        sys.excepthook = lambda *error: None
        return Null()


@made
class SetsThreads(Correct):
    def open(self, config):
        import torch

        torch.set_num_threads(torch.get_num_threads() + 1)
        return Null()


@made
class ChangesTorch(Correct):
    def open(self, config):
        import torch

        torch.set_default_dtype(torch.float16)
        torch.set_grad_enabled(False)
        torch.set_flush_denormal(True)
        torch.backends.cudnn.benchmark = True
        return Null()


@made
class SeedsTorch(Correct):
    def open(self, config):
        import torch

        torch.manual_seed(0)
        return Null()


@made
class SeedsEverything(Correct):
    def open(self, config):
        import numpy

        random.seed(0)
        numpy.random.seed(0)
        return Null()


@made
class LogsIntoFolder(Correct):
    def open(self, config):
        Path("null.log").write_text("opened\n")
        return Null()


@made
class LeavesThread(Correct):
    """One that the interpreter waits for at its end."""

    started = False

    def open(self, config):
        if not self.started:
            self.started = True
            threading.Thread(target=time.sleep, args=(3,), name="null-worker").start()
        return Null()


@made
class WatchesSinceProbe(Correct):
    watching = False

    def probe(self, deep):
        if not self.watching:
            self.watching = True
            threading.Thread(target=time.sleep, args=(60,), name="null-watch", daemon=True).start()
        return Probe.ready(DEVICE)


@made
class ThreadForEachOpen(Correct):
    def open(self, config):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        return Null()


@made
class LeaksDescriptor(Correct):
    def open(self, config):
        os.open(os.devnull, os.O_RDONLY)
        return Null()
