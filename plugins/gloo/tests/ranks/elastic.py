"""A worker of torchrun whose rank 1 fails in the first attempt; the second one must get through."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

import hardpoint as hp


def main() -> None:
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    hp.init_process_group("gloo", config={"interface": "lo"})
    total = torch.ones(1)
    dist.all_reduce(total)
    if attempt == 0:
        if dist.get_rank() == 1:
            sys.exit(3)
        dist.barrier()  # ends with the death of rank 1, or with the agent's signal
    Path(sys.argv[1], f"rank{dist.get_rank()}").write_text(f"{attempt} {total.item():g}")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
