"""A folder like site-packages, filled with real distributions."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

# Every fake module notes that its body ran, and how often, in a file beside it.
_NOTE = "open(__file__ + '.imported', 'a').write('.')\n"

# A backend that is honest about supporting nothing: valid, and light.
PLUGIN = """
from hardpoint import (
    ArtifactError, Backend, BackendInfo, CompileError, Device, Probe, Support, hookimpl
)

class Null(Backend):
    def devices(self):
        return [Device("0", "a device that runs nothing")]

    def support(self, program, device):
        return Support(frozenset(), {node.name: "it runs nothing" for node in program.graph.nodes})

    def compile(self, program, device, options):
        raise CompileError("the null backend compiles nothing")

    def load(self, artifact, device):
        raise ArtifactError("the null backend has no artifacts")

@hookimpl
def hardpoint_backend_info():
    return BackendInfo(requires_api=(1, 0), summary="runs nothing", precisions=("fp32",))

@hookimpl
def hardpoint_backend_probe(request):
    return Probe.ready(Device("0", "a device that runs nothing"))

@hookimpl
def hardpoint_backend_open(config):
    return Null()
"""


class FakeSite:
    """A site folder at ``root``; :meth:`add` installs into it what pip would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        dist: str,
        version: str = "1.0",
        *,
        entries: Mapping[str, str] | None = None,
        modules: Mapping[str, str] | None = None,
        requires: Sequence[str] = ("hardpoint>=0.1,<1",),
        metadata: bytes | None = None,
        entry_points: str | None = None,
    ) -> Path:
        """Install a distribution; return its dist-info folder.

        :param entries: ``"backend.v1:name"`` -> ``"module"``, for entry_points.txt.
        :param modules: path under the site -> source.
        :param metadata: METADATA's bytes instead of the usual ones.
        :param entry_points: entry_points.txt's text instead of ``entries``.
        """
        info = self.root / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        headers = ["Metadata-Version: 2.1", f"Name: {dist}", f"Version: {version}"]
        headers += [f"Requires-Dist: {requirement}" for requirement in requires]
        usual = ("\n".join(headers) + "\n\nA description.\n").encode()
        (info / "METADATA").write_bytes(usual if metadata is None else metadata)
        lines = []
        for key, value in (entries or {}).items():
            group, name = key.split(":")
            lines.append(f"[hardpoint.{group}]\n{name} = {value}\n")
        text = "\n".join(lines) if entry_points is None else entry_points
        (info / "entry_points.txt").write_text(text, "utf-8")
        files = []
        for path, source in (modules or {}).items():
            file = self.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_NOTE + source, "utf-8")
            files.append(file)
        rows = [f"{file.relative_to(self.root).as_posix()},{_hash(file)}," for file in files]
        rows += [f"{info.name}/{name},," for name in ("METADATA", "entry_points.txt", "RECORD")]
        (info / "RECORD").write_text("\n".join(rows) + "\n", "utf-8")
        return info

    def add_backend(
        self, name: str, source: str = PLUGIN, *, version: str = "1.0", dist: str = ""
    ) -> None:
        """Install the distribution ``acme-<name>``, whose one module is ``backend:<name>``."""
        dist = dist or f"acme-{name}"
        module = dist.replace("-", "_")
        entries, modules = {f"backend.v1:{name}": module}, {f"{module}.py": source}
        self.add(dist, version, entries=entries, modules=modules)

    def imports_of(self, module: str) -> int:
        """How often the module's body ran, in any process."""
        note = self.root / f"{module}.py.imported"
        return len(note.read_text()) if note.exists() else 0

    def imported(self) -> set[str]:
        """Modules whose bodies ran."""
        return {note.name.removesuffix(".py.imported") for note in self.root.rglob("*.imported")}

    def environment(self, **more: str) -> dict[str, str]:
        """Environment variables of a process that has this site installed, and no user's policy."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HARDPOINT_")}
        nowhere = str(self.root / "no-config")
        return {**clean, "PYTHONPATH": str(self.root), "XDG_CONFIG_HOME": nowhere, **more}

    def run(
        self, *arguments: str, timeout: float = 240, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python <arguments>`` with this site installed."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment(**environment),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def cli(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``hardpoint <arguments>`` with this site installed."""
        return self.run(
            "-c", "from hardpoint.cli import main; main(prog_name='hardpoint')", *arguments,
            **environment,
        )  # fmt: skip


def _hash(file: Path) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest())
    return "sha256=" + digest.decode().rstrip("=")


def build_extension(folder: Path, name: str, *, gcc: str) -> None:
    """Compile a C extension module that needs a symbol which nothing defines."""
    source = folder / f"{name}.c"
    source.write_text(
        "extern void *acme_symbol_that_nothing_defines(void);\n"
        f"void *PyInit_{name}(void) {{ return acme_symbol_that_nothing_defines(); }}\n"
    )
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    output = folder / f"{name}{suffix}"
    command = [gcc, "-shared", "-fPIC", "-Wl,-z,now", "-o", str(output), str(source)]
    subprocess.run(command, check=True)
    source.unlink()
