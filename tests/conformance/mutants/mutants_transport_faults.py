"""Transports that wait for ever, go on without the dead, or leave things behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

from mutants_transport import CopiedBack, done
from mutants_transport_base import Group, InFront, Provider


class GoesOn(Group):
    """An error of gloo's is no error of its own."""

    def allreduce(self, tensors, opts):
        try:
            return Forgiving(self.inner.allreduce(tensors, opts), None, None)
        except RuntimeError:
            return done(tensors)


class Forgiving(CopiedBack):
    def wait(self, timeout=None):
        try:
            return self.work.wait()
        except RuntimeError:
            return True


class TakesItsTime(InFront):
    """A timeout is a unit, and four of them are allowed."""

    def connected(self, store, rank, size, timeout):
        return super().connected(store, rank, size, timeout * 4)


class Leaking(InFront):
    def process_group(self, store, rank, size, timeout):
        self.leak()
        return super().process_group(store, rank, size, timeout)


class Thread(Leaking):
    def leak(self):
        threading.Thread(target=threading.Event().wait, daemon=True).start()


class Descriptor(Leaking):
    def leak(self):
        os.open(os.devnull, os.O_RDONLY)


class File(Leaking):
    def leak(self):
        Path(tempfile.gettempdir(), f"acme-{uuid.uuid4()}").touch()


class Shared(Leaking):
    def leak(self):
        Path("/dev/shm", f"acme-mutant-leaked-{uuid.uuid4()}").touch()


class Process(Leaking):
    def leak(self):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


class Daemon(InFront):
    """One process for all groups, that no rank ends."""

    running = False

    def process_group(self, store, rank, size, timeout):
        if not Daemon.running:
            Daemon.running = True
            command = [sys.executable, "-c", "import time; time.sleep(600)", "acme-daemon"]
            subprocess.Popen(command, start_new_session=True)
        return super().process_group(store, rank, size, timeout)


class Hoards(Group):
    kept: list[object] = []

    def allreduce(self, tensors, opts):
        self.kept.append([tensor.clone() for tensor in tensors])
        return self.inner.allreduce(tensors, opts)


goes_on = Provider(GoesOn)
takes_its_time = Provider(TakesItsTime)
leaks_a_thread = Provider(Thread)
leaks_a_descriptor = Provider(Descriptor)
leaks_a_file = Provider(File)
leaks_shared_memory = Provider(Shared)
leaks_a_process = Provider(Process)
leaves_a_daemon = Provider(Daemon)
hoards = Provider(Hoards)
