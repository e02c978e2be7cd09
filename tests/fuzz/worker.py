"""One target in a process of its own: fuzzed by atheris, or only given files. ``run.py`` starts it.

A finding is written beside its input, and the run goes on: one fault must not hide the next.
Crashes, hangs and exhausted memory end it; libFuzzer writes those inputs itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Ours alone: torch is not what is tested.
INSTRUMENTED = [
    "hardpoint.storage", "hardpoint_safetensors", "hardpoint_checkpoint", "hardpoint_dcp",
    "hardpoint_numpy", "hardpoint_gguf", "hardpoint_onnx", "hardpoint.weights.statement",
    "hardpoint.weights.provenance", "hardpoint.bridges.dcp_index", "hardpoint.bridges.dcp_values",
    "hardpoint.package.strict_json", "planted_parser",
]  # fmt: skip


class Runner:
    """Gives inputs to a target, and keeps the first of each finding.

    :param findings: folder for inputs that broke an invariant; each has a ``.txt`` with the reason.
    """

    def __init__(self, name: str, findings: Path, folder: Path) -> None:
        import guard
        from target import load

        from hardpoint.storage import refusal

        self.name = name
        self.target = load(name)
        self._findings, self._folder = findings, folder
        self._known: set[str] = set()
        for needed in (
            "numpy",
            "hardpoint.weights.bulk",
            "hardpoint.storage.own",
            *self.target.lazy,
        ):
            importlib.import_module(needed)
        # Distributions' metadata are read for each error: files outside, and most of the time.
        metadata = importlib.import_module("importlib.metadata")
        known = cache(metadata.version)
        for module in (refusal, metadata):
            setattr(module, "version", known)  # noqa: B010 - not a name that it exports
        self.target.prepare(folder)
        guard.install()

    def warm(self) -> None:
        """Run all seeds unwatched: torch imports parts of itself when they are first needed."""
        import guard

        guard.watching(False)
        for seed in [b"", *self.target.seeds()]:
            with contextlib.suppress(Exception):  # what is wrong with it is found when watched
                self.target.run(seed, self._folder)
        guard.watching(True)

    def one(self, data: bytes, *, again: bool = False) -> str | None:
        """Run an input; the finding in a line, if it is a new one (or ``again``)."""
        try:
            self.target.run(data, self._folder)
        except Exception as error:
            line = _fault(error)
            if line in self._known:
                return line if again else None
            self._known.add(line)
            self._keep(data, line)
            return line
        return None

    def _keep(self, data: bytes, line: str) -> None:
        name = f"{self.name}-{hashlib.sha256(line.encode()).hexdigest()[:12]}"
        self._findings.mkdir(parents=True, exist_ok=True)
        (self._findings / name).write_bytes(data)
        (self._findings / f"{name}.txt").write_text(f"{line}\n\n{traceback.format_exc()}", "utf-8")
        print(f"FINDING {name}: {line}", file=sys.stderr, flush=True)


def _fault(error: Exception) -> str:
    """The same line for the same fault: what was raised, and where in our sources."""
    from guard import Finding

    if isinstance(error, Finding):
        return f"Finding: {error.fault[:200]}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "hardpoint" in f.filename or f.filename.startswith(str(HERE))]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {place}"


@contextlib.contextmanager
def memory() -> Iterator[Path]:
    """A folder in memory where the machine has one; else on disk."""
    shm = Path("/dev/shm")
    where = shm if shm.is_dir() and os.access(shm, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="hardpoint-fuzz-", dir=where))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def fuzz(name: str, findings: Path, folder: Path, arguments: list[str]) -> None:
    """Run libFuzzer with its own ``arguments``; it ends the process."""
    import atheris
    import torch  # noqa: F401 - first, so that it is not instrumented

    with atheris.instrument_imports(include=INSTRUMENTED):
        runner = Runner(name, findings, folder)
    runner.warm()
    for option in (x for x in arguments if x.startswith("-dict=")):
        words = dict.fromkeys(runner.target.words())
        lines = ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words]
        Path(option.removeprefix("-dict=")).write_text("# words\n" + "".join(lines), "ascii")
    arguments = [f"-max_len={runner.target.longest}", *arguments]
    mutate = runner.target.mutate

    def custom(data: bytes, most: int, seed: int) -> bytes:
        assert mutate is not None
        return mutate(data, most, seed, atheris.Mutate)[:most]

    def one(data: bytes) -> None:
        runner.one(data)

    more = {"custom_mutator": custom} if mutate else {}
    # A merge starts further processes by this name.
    atheris.Setup([os.environ.get("HARDPOINT_FUZZ_SELF", sys.argv[0]), *arguments], one, **more)
    atheris.Fuzz()


def replay(names: list[str], findings: Path, folder: Path) -> int:
    """Give each target the files of its corpus; how many broke an invariant."""
    from target import CORPUS

    broken = 0
    for name in names:
        name, _, other = name.partition("=")
        (folder / name).mkdir()
        runner = Runner(name, findings, folder / name)
        runner.warm()
        paths = sorted(Path(other).iterdir() if other else (CORPUS / name).iterdir())
        for path in paths:
            line = runner.one(path.read_bytes(), again=True)
            broken += line is not None
            print(f"{name} {path.name}: {line or 'ok'}", flush=True)
    return broken


def main() -> None:
    """``worker.py replay FINDINGS TARGET[=FOLDER]...``, ``worker.py TARGET FINDINGS FOLDER -OPTION...``."""
    sys.path.insert(0, str(HERE))
    if sys.argv[1] == "replay":
        with memory() as folder:
            broken = replay(sys.argv[3:], Path(sys.argv[2]), folder)
        sys.exit(broken > 0)
    name, findings, place, *arguments = sys.argv[1:]
    fuzz(name, Path(findings), Path(place), arguments)


if __name__ == "__main__":
    main()
