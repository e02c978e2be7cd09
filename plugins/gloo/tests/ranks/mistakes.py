"""Two ranks that disagree, then one that dies, then one that stops; prints what each one reads."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import hardpoint as hp

LIMIT = timedelta(seconds=3)


def attempt(
    folder: Path, name: str, rank: int, size: int, config: dict[str, object] | None = None
) -> str:
    """The message of joining with this rank and world size, both processes at once."""
    me = os.environ["RANK"]
    start = dist.FileStore(str(folder / f"{name}.start"), 2)
    start.set(me, "here")
    start.wait(["0", "1"])
    store = dist.FileStore(str(folder / name), 2)
    try:
        hp.init_process_group(
            "gloo", store=store, rank=rank, world_size=size, timeout=LIMIT, config=config
        )
    except hp.TransportError as error:
        return str(error)
    dist.destroy_process_group()
    return "joined"


def main() -> None:
    folder, me = Path(sys.argv[1]), int(os.environ["RANK"])
    report = {
        "same_rank": attempt(folder, "same_rank", 0, 2),
        "other_size": attempt(folder, "other_size", me, 2 + me),
        "lame_rank": attempt(folder, "lame", me, 2, {"interface": "nope"} if me else None),
    }
    store = dist.FileStore(str(folder / "again"), 2)
    for _ in range(3):  # the same store again and again, as under torchrun
        hp.init_process_group("gloo", store=store, rank=me, world_size=2)
        ones = torch.ones(1)
        dist.all_reduce(ones)
        dist.destroy_process_group()
    report["again"] = f"{ones.item():g}"

    hp.init_process_group("gloo", store=store, rank=me, world_size=2)
    brisk = dist.new_group(timeout=LIMIT)
    dist.all_reduce(torch.ones(1), group=brisk)
    patient = dist.new_group(timeout=timedelta(minutes=5))
    dist.all_reduce(torch.ones(1), group=patient)
    if me == 1:
        print(json.dumps(report), flush=True)
        (folder / "pid.part").write_text(str(os.getpid()))
        (folder / "pid.part").rename(folder / "pid")
        os.kill(os.getpid(), signal.SIGSTOP)
    report["stopped"] = collective(brisk)
    while not (folder / "pid").exists():
        time.sleep(0.01)
    report["dead"] = collective(patient, victim=int((folder / "pid").read_text()))
    report["afterwards"] = collective(patient)
    dist.destroy_process_group()
    print(json.dumps(report), flush=True)


def collective(group: dist.ProcessGroup, victim: int = 0) -> str:
    """The message of an all-reduce during which ``victim`` is killed."""
    try:
        work = dist.all_reduce(torch.ones(1_000_000), group=group, async_op=True)
        if victim:
            os.kill(victim, signal.SIGKILL)
        work.wait()
    except RuntimeError as error:
        return str(error)
    return "reduced"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
