"""Training over gloo groups gives what one process alone gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_ddp_fsdp2_tensor_parallel_and_meshes_match_one_process(
    launch_ranks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    for ended in launch_ranks("training", tmp_path):
        report = ended.report
        assert report["moved"] > 1e-3, "the step did nothing, so the rest proves nothing"
        assert report["ddp"] < 1e-6
        assert report["fsdp2"] < 1e-6
        assert report["tensor_parallel"] < 1e-6
        assert report["dtensor"] < 1e-4
        assert ended.returncode == 0
