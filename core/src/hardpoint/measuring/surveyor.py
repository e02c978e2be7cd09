"""The process that asks backends what they support: loading an SDK may crash, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hardpoint.errors import HardpointError
from hardpoint.measuring.serving import Line


def main(answers: int) -> None:
    """Answer for each command ``{"do": "cover", "target": ...}`` how much it covers."""
    line = Line(answers)
    job = line.next()
    from hardpoint.measuring.workload import read_program_file
    from hardpoint.planning.graph import compute_nodes
    from hardpoint.registry.handover import rebuild

    try:
        program = read_program_file(Path(job["program"]))
    except HardpointError as error:
        line.say("failed", kind="refused", reason=one_line(error), stage="reading the program")
        return
    registry = rebuild(job["registry"])
    operations = {node.name for node in compute_nodes(program.exported)}
    line.say("ready")
    for command in line.commands():
        line.say("stage", stage=f"asking what {command['target']} supports")
        line.say("covered", **_cover(program, operations, command["target"], registry))


def _cover(program: Any, operations: set[str], target: str, registry: Any) -> dict[str, Any]:
    from hardpoint.interfaces.kinds import Target
    from hardpoint.measuring.whole import coverage
    from hardpoint.planning.planner import candidate

    try:
        support = candidate(program, Target.parse(target), registry).support
    except HardpointError as error:
        return {"kind": "refused", "reason": one_line(error), "supported": 0}
    reason = coverage(support, operations)
    return {"kind": "not whole", "reason": reason, "supported": len(support.supported & operations)}


def one_line(error: HardpointError) -> str:
    """An error in one line: what, and why."""
    return ": ".join(filter(None, (error.what, error.cause)))
