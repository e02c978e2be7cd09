"""Make ``.venv`` ready for work: the whole set-up behind ``make demo``, ``make test`` and the rest.

Each step has a stamp, keyed by a hash of what it depends on: a step whose inputs did not change
costs nothing, and a step that failed has none, so that the next run goes on from there. Needs only
the standard library, Python 3.10, and pip.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

STAMPS = ".hardpoint-setup"  # inside .venv: who deletes the one deletes the other
AGAIN = "fix what pip says above, then run the same command again: it goes on from this step"


class SetupError(Exception):
    """A step failed; the message says which, and what to do."""


@dataclass(frozen=True)
class Step:
    """One pip command.

    :param name: names the stamp and the line that is shown.
    :param why: shown beside it.
    :param arguments: what follows ``pip install``.
    :param inputs: everything that, when changed, makes the step run again.
    """

    name: str
    why: str
    arguments: Sequence[str]
    inputs: Sequence[str]

    def key(self) -> str:
        """The hash that a valid stamp holds."""
        text = "\0".join([sys.version, *self.arguments, *self.inputs])
        return hashlib.sha256(text.encode()).hexdigest()


def interpreter(environment: Path) -> Path:
    """The environment's own Python."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_environment(environment: Path) -> None:
    """Create the environment, unless a working one is there already.

    :raises SetupError: something else stands in its place, or this Python cannot make one.
    """
    if _works(environment):
        return
    if environment.exists():
        if not (environment / "pyvenv.cfg").is_file():
            raise SetupError(
                f"{environment} is there, and is no virtual environment.\n"
                f"  remedy: move it away, then run the same command again"
            )
        print(f"{environment.name}: does not work here (half-made, moved, or its Python is gone)")
        shutil.rmtree(environment)
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"{environment.name}: a new virtual environment with Python {version}", flush=True)
    try:
        venv.create(environment, with_pip=True, symlinks=os.name != "nt")
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(environment, ignore_errors=True)
        raise SetupError(
            f"{sys.executable} could not make a virtual environment ({error}).\n"
            f"  remedy: install its venv module (Debian, Ubuntu: apt-get install python3-venv), "
            f"or choose another Python with PYTHON=..."
        ) from error
    except BaseException:  # interrupted: leave nothing half-made behind
        shutil.rmtree(environment, ignore_errors=True)
        raise


def _works(environment: Path) -> bool:
    """Whether it is a whole environment, of a Python that we support, made at this very place."""
    python = interpreter(environment)
    if not python.exists():
        return False
    code = "import sys, pip; print(sys.prefix if sys.version_info >= (3, 10) else '')"
    answer = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    return answer.stdout.strip() == str(environment)


def steps(root: Path, groups: Sequence[str], lone_groups: Sequence[str]) -> list[Step]:
    """What to install, in order: torch, build tools, our distributions, the asked groups."""
    from dependency_groups import read_toml, requirements  # needs the environment's pip on 3.10

    constraints = root / "constraints.txt"
    pins = _lines(constraints)
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    pinned = ("-c", str(constraints))
    found = [
        Step("torch", f"{torch}, first, so that nothing else brings another one", [torch], pins)
    ]

    def group(name: str, *options: str) -> Step:
        wanted = requirements(root / "pyproject.toml", name)
        names = " ".join(wanted)
        shown = names if len(names) < 90 else f"{names[:87]}..."
        return Step(f"group-{name}", f"group {name!r}: {shown}", [*options, *pinned, *wanted], pins)

    found.append(group("build"))
    projects = distributions(root)
    editable = [argument for path in projects for argument in ("-e", str(path))]
    names = [read_toml(path / "pyproject.toml")["project"]["name"] for path in projects]
    found.append(
        Step(
            "distributions",
            f"editable: {', '.join(names)}",
            ["--no-build-isolation", *pinned, *editable],
            [*pins, *((path / "pyproject.toml").read_text("utf-8") for path in projects)],
        )
    )
    found += [group(name) for name in groups if name != "build"]
    found += [group(name, "--no-deps") for name in lone_groups]
    return found


def distributions(root: Path) -> list[Path]:
    """The folder of every distribution of the workspace, the core first."""
    folders = [root / "core", *sorted(root.glob("plugins/*")), *sorted(root.glob("contrib/*"))]
    return [folder for folder in folders if (folder / "pyproject.toml").is_file()]


def _lines(constraints: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in constraints.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def install(environment: Path, wanted: Iterable[Step]) -> None:
    """Run the steps whose stamp is missing or old.

    :raises SetupError: pip failed.
    """
    stamps = environment / STAMPS
    stamps.mkdir(exist_ok=True)
    wanted = list(wanted)
    stale = [step for step in wanted if _stamp(stamps / step.name) != step.key()]
    if not stale:
        print(f"{environment.name}: up to date ({len(wanted)} steps checked)")
        return
    for number, step in enumerate(stale, start=1):
        print(f"[{number}/{len(stale)}] {step.why}", flush=True)
        started = time.monotonic()
        # On a terminal pip draws its progress bar; in a log that would be noise.
        quiet = [] if sys.stdout.isatty() else ["--quiet"]
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *quiet]
        (stamps / step.name).unlink(missing_ok=True)
        if subprocess.run([*command, *step.arguments], check=False).returncode:
            raise SetupError(f"step {step.name!r} failed.\n  remedy: {AGAIN}")
        (stamps / step.name).write_text(step.key(), "utf-8")
        print(f"      done in {time.monotonic() - started:.0f} s", flush=True)


def _stamp(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


def main(arguments: Sequence[str]) -> int:
    """Parse the command line, make the environment, install into it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--group", action="append", default=[], help="a dependency group")
    parser.add_argument(
        "--lone-group", action="append", default=[], help="a group whose own dependencies are not"
    )
    options = parser.parse_args(arguments)
    environment: Path = options.root.resolve() / ".venv"
    if environment != Path(sys.prefix):
        try:
            make_environment(environment)
        except SetupError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        # From here on with the environment's own Python, whose pip is the one that counts.
        command = [str(interpreter(environment)), str(Path(__file__).resolve()), *arguments]
        return subprocess.run(command, check=False).returncode
    try:
        install(environment, steps(options.root.resolve(), options.group, options.lone_group))
    except (SetupError, ValueError) as error:  # ValueError: of pyproject.toml, with its reason
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted; run the same command again to go on")
