"""Compile one segment in a child process, so that a native crash or a hang is an error here.

Parent and child exchange archives of our own format in a private folder: nothing is pickled. The
child is a fresh interpreter, never a fork: forked children of a process that has run PyTorch's
thread pools hang (research/backends.md).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hardpoint import errors
from hardpoint.errors import CompileError, HardpointError
from hardpoint.interfaces.backend import Artifact, CompileOptions
from hardpoint.package.archive import Archive
from hardpoint.package.pt2 import TensorStore, read_program, tensor_from_ref, write_program
from hardpoint.package.writer import ArchiveWriter
from hardpoint.planning.data import Segment
from hardpoint.processes import signal_name
from hardpoint.registry.handover import describe

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

# Python puts the current folder first on sys.path, where a module can stand in for a real one.
# Before 3.11 it knows no PYTHONSAFEPATH, which is set as well: for what the child starts in turn.
_CHILD = (
    "import sys; sys.path = [folder for folder in sys.path if folder]; "
    "from hardpoint.compiler.worker import main; main(sys.argv[1])"
)
JOB = "extra/hardpoint/job.json"
FILES = "data/hardpoint/files"


def compile_in_child(
    segment: Segment, registry: Registry, options: CompileOptions, timeout: float | None
) -> Artifact:
    """The segment's artifact, compiled by :mod:`hardpoint.compiler.worker` in another process.

    :param timeout: seconds; ``None`` waits for as long as it takes.
    :raises CompileError: the child crashed (with the signal's name), hung, or reports an error.
    """
    name = segment.target.backend
    if not registry.record("backend", name).dist:
        raise CompileError(
            f"backend {name!r} was added in this process, so no child process can find it",
            remedy="compile without isolate, or install the backend as a distribution",
        )
    with tempfile.TemporaryDirectory(prefix="hardpoint-compile-") as folder:
        job, result, failure = (Path(folder, n) for n in ("job.pt2", "result.pt2", "error.json"))
        write_job(job, segment, options, registry)
        try:
            child = subprocess.run(
                [sys.executable, "-c", _CHILD, folder],
                env={**os.environ, "PYTHONSAFEPATH": "1"},
                stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CompileError(
                f"compiling segment {segment.id} for {segment.target} took more than {timeout:g} s",
                cause="the child process was stopped",
                remedy="allow more with timeout=, or leave that target out",
            ) from error
        if failure.is_file():
            raise _reported(failure)
        if child.returncode or not result.is_file():
            last = child.stderr.decode(errors="replace").strip().splitlines()[-3:]
            raise CompileError(
                f"compiling segment {segment.id} for {segment.target} ended its process",
                cause="; ".join([_ending(child.returncode), *last]),
                remedy="leave that target out of targets=, and report it to the plugin's author",
            )
        return read_artifact(result)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    return f"killed by {signal_name(-code)}"


def _reported(path: Path) -> HardpointError:
    parts = json.loads(path.read_text(encoding="utf-8"))
    kind = getattr(errors, str(parts.pop("error")), CompileError)
    if not issubclass(kind, HardpointError):
        kind = CompileError
    made: HardpointError = kind(parts.pop("what"), **parts)
    return made


def write_job(path: Path, segment: Segment, options: CompileOptions, registry: Registry) -> None:
    """All that the child needs, in one archive."""
    name = segment.target.backend
    with ArchiveWriter(path) as writer:
        store = TensorStore(writer)
        write_program(writer, segment.program, store=store)
        job = {
            "backend": name,
            "device": segment.device.id,
            "precision": options.precision,
            "options": dict(options.backend),
            "examples": [store.put(t) for t in options.example_inputs],
            "registry": describe(registry, [name]),
        }
        writer.add(JOB, json.dumps(job).encode())


def read_job(
    path: Path,
) -> tuple[dict[str, Any], torch.export.ExportedProgram, CompileOptions]:
    """What :func:`write_job` wrote."""
    archive = Archive.open(path)
    job = archive.read_json(JOB)
    examples = tuple(tensor_from_ref(archive, ref) for ref in job["examples"])
    return job, read_program(archive), CompileOptions(job["precision"], examples, job["options"])


def write_artifact(path: Path, artifact: Artifact) -> None:
    """An artifact alone, in one archive."""
    with ArchiveWriter(path) as writer:
        store = TensorStore(writer)
        files = {}
        for i, (name, data) in enumerate(artifact.files.items()):
            files[name] = f"{FILES}/{i}"
            writer.add(files[name], data)
        described = {
            "format": artifact.format,
            "files": files,
            "weights": {name: store.put(t) for name, t in artifact.weights.items()},
            "metadata": dict(artifact.metadata),
        }
        writer.add(JOB, json.dumps(described).encode())


def read_artifact(path: Path) -> Artifact:
    """What :func:`write_artifact` wrote; stays readable after the file's removal."""
    archive = Archive.open(path)
    described = archive.read_json(JOB)
    return Artifact(
        format=described["format"],
        files={name: archive.view(entry) for name, entry in described["files"].items()},
        weights={n: tensor_from_ref(archive, ref) for n, ref in described["weights"].items()},
        metadata=described["metadata"],
    )
