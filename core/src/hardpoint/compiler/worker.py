"""What the child of :mod:`hardpoint.compiler.isolate` does."""

from __future__ import annotations

import json
from pathlib import Path

from hardpoint.compiler.isolate import read_job, write_artifact
from hardpoint.errors import CompileError, HardpointError
from hardpoint.planning.validate import check_artifact
from hardpoint.registry.handover import rebuild


def main(where: str) -> None:
    """Compile ``job.pt2`` in the folder ``where`` to ``result.pt2``, or say why not in
    ``error.json``.
    """
    folder = Path(where)
    job, program, options = read_job(folder / "job.pt2")
    registry = rebuild(job["registry"])
    try:
        backend = registry.open("backend", job["backend"])
        device = next(d for d in backend.devices() if d.id == job["device"])
        artifact = backend.compile(program, device, options)
        record = registry.record("backend", job["backend"])
        name = f"backend:{job['backend']}"
        write_artifact(
            folder / "result.pt2", check_artifact(artifact, name, f"{record.dist} {record.version}")
        )
    except HardpointError as error:
        report(folder, error)
    except Exception as error:
        report(
            folder,
            CompileError(
                f"backend {job['backend']!r} could not compile a segment",
                cause=f"{type(error).__name__}: {str(error)[:600]}",
                remedy="leave that target out of targets=, or report it to the plugin's author",
            ),
        )


def report(folder: Path, error: HardpointError) -> None:
    """Hand an error to the parent."""
    (folder / "error.json").write_text(json.dumps(error.to_json()), encoding="utf-8")
