"""Keeping the corpus small: what reaches something that nothing before it reaches."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from target import CORPUS, load

_WORKER = Path(__file__).with_name("worker.py")


def merge(names: Iterable[str], fresh: Path) -> int:
    """Replace each target's corpus by the least of its seeds, its corpus and ``fresh/TARGET``.

    Regressions, whose names begin with ``was-``, stay.
    """
    for name in names:
        with tempfile.TemporaryDirectory() as made:
            seeds, least, scratch = (Path(made, part) for part in ("seeds", "least", "scratch"))
            for folder in (seeds, least, scratch):
                folder.mkdir()
            target = load(name)
            for seed in target.seeds():
                if len(seed) <= target.longest:
                    (seeds / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
            # libFuzzer starts itself anew for it, with its own options only.
            script = scratch / "worker"
            fixed = shlex.join(
                [sys.executable, str(_WORKER), name, str(scratch / "f"), str(scratch)]
            )
            script.write_text(f'#!/bin/sh\nexec {fixed} "$@"\n', "utf-8")
            script.chmod(0o755)
            sources = [path for path in (CORPUS / name, seeds, fresh / name) if path.is_dir()]
            # Without counters: an input for each branch, not for how often it is taken.
            answer = subprocess.run(
                [str(script), "-merge=1", "-use_counters=0", str(least), *map(str, sources)],
                env={**os.environ, "HARDPOINT_FUZZ_SELF": str(script)},
                capture_output=True,
                check=False,
            )
            if answer.returncode or not any(least.iterdir()):
                sys.stderr.write(answer.stderr.decode("utf-8", "replace")[-2000:])
                return 1
            _take_over(CORPUS / name, least)
        kept = list((CORPUS / name).iterdir())
        print(f"{name}: {len(kept)} files, {sum(path.stat().st_size for path in kept):,} bytes")
    return 0


def _take_over(corpus: Path, least: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for path in corpus.iterdir():
        if not path.name.startswith("was-"):
            path.unlink()
    for path in sorted(least.iterdir()):
        shutil.copy(path, corpus / path.name[:12])
