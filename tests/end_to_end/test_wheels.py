"""Every distribution builds, passes twine, and works from its wheel in a fresh environment.

The environment lies outside the checkout and has nothing of it. Installing torch there again would
take minutes and a gigabyte for files that are already on this machine, so the third-party packages
are lent to it: one folder of links, on its path through a ``.pth`` line. Linked are the packages
that our wheels' metadata asks for, and what those ask for, and no others: a wheel that imports
something it does not require fails here. Our own distributions come from their wheels alone.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import textwrap
import venv
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from setup_env import distributions

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, timeout: float = 300) -> str:
    """The standard output of a command that must succeed."""
    kept = ("PATH", "HOME", "TMPDIR", "LANG", "CC", "CXX")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    answer = subprocess.run(
        command,
        cwd=cwd,
        env={**environment, "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert answer.returncode == 0, f"{command}\n{answer.stdout}\n{answer.stderr}"
    return answer.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel of every distribution; each wheel from its sdist."""
    out = tmp_path_factory.mktemp("built")
    for folder in distributions(ROOT):
        build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", out)
        run(*build, folder, cwd=out)
    return out


def wheels(built: Path) -> dict[str, Path]:
    """Normalized distribution name -> wheel."""
    return {normalized(path.name.split("-")[0]): path for path in sorted(built.glob("*.whl"))}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist", [])


def needed(wanted: Iterable[str], ours: Mapping[str, Path]) -> set[str]:
    """The third-party distributions that these requirements ask for, through and through."""
    found: set[str] = set()
    queue = [Requirement(text) for text in wanted]
    while queue:
        requirement = queue.pop()
        name = normalized(requirement.name)
        extras = requirement.extras or {""}
        if name in ours or name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or []:
            inner = Requirement(text)
            if not inner.marker or any(inner.marker.evaluate({"extra": e}) for e in extras):
                queue.append(inner)
    return found


def unconditional(texts: Iterable[str]) -> list[str]:
    """The requirements that hold here without asking for an extra."""
    asked = [Requirement(text) for text in texts]
    return [str(one) for one in asked if not one.marker or one.marker.evaluate({"extra": ""})]


def link(names: Iterable[str], folder: Path) -> None:
    """Link the top-level files and folders of installed distributions into ``folder``."""
    folder.mkdir()
    for name in names:
        distribution = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}
        for top in tops - {"__pycache__"}:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and source.suffix != ".pth" and not (folder / top).exists():
                (folder / top).symlink_to(source)


@dataclass(frozen=True)
class Fresh:
    """An environment that has our wheels and what they require, and nothing else."""

    folder: Path

    def tool(self, name: str) -> Path:
        return self.folder / "env" / "bin" / name


@pytest.fixture(scope="module")
def fresh(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    folder = tmp_path_factory.mktemp("fresh")
    ours = wheels(built)
    wanted = [text for wheel in ours.values() for text in unconditional(requirements(wheel))]
    link(needed(wanted, ours), folder / "lent")

    venv.create(folder / "env", with_pip=False, symlinks=True)
    [packages] = (folder / "env").glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{folder / 'lent'}\n", "utf-8")

    # A real resolution, with no index: whatever is missing from what was lent is an error.
    python = folder / "env" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index")
    run(*pip, "--find-links", built, "hardpoint[standard]", *ours.values(), cwd=folder)
    return Fresh(folder)


def test_each_distribution_gives_one_sdist_and_one_pure_wheel(built: Path) -> None:
    count = len(distributions(ROOT))
    assert len(list(built.glob("*.tar.gz"))) == count
    assert len(list(built.glob("*-py3-none-any.whl"))) == count


def test_twine_has_nothing_to_say_against_them(built: Path) -> None:
    files = sorted(path for path in built.iterdir() if path.suffix in {".whl", ".gz"})
    said = run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files, cwd=built)
    assert said.count("PASSED") == len(files)


def test_a_wheel_holds_its_package_its_types_and_its_license_and_nothing_else(built: Path) -> None:
    for name, wheel in wheels(built).items():
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        package = name.replace("-", "_")
        assert f"{package}/py.typed" in names
        assert any(entry.endswith("/licenses/LICENSE") for entry in names)
        tops = {entry.split("/")[0] for entry in names}
        assert {top for top in tops if not top.endswith(".dist-info")} == {package}
        assert not [entry for entry in names if entry.endswith((".pyc", ".so")) or "test_" in entry]


def test_the_extra_named_standard_brings_the_first_providers(built: Path) -> None:
    asked = [Requirement(text) for text in requirements(wheels(built)["hardpoint"])]
    extra = {one.name for one in asked if one.marker and one.marker.evaluate({"extra": "standard"})}
    assert extra == {
        "hardpoint-cpu",
        "hardpoint-gloo",
        "hardpoint-partitioners",
        "hardpoint-safetensors",
    }


def test_nothing_of_the_checkout_is_seen_from_the_fresh_environment(fresh: Fresh) -> None:
    code = "import hardpoint, sys; print(hardpoint.__file__, *sys.path, sep='\\n')"
    said = run(fresh.tool("python"), "-c", code, cwd=fresh.folder)
    assert str(ROOT) not in said
    assert said.startswith(str(fresh.folder / "env"))


def test_hardpoint_list_finds_every_provider_by_its_wheel(fresh: Fresh, built: Path) -> None:
    answer = json.loads(run(fresh.tool("hardpoint"), "list", "--json", cwd=fresh.folder))
    found = {(one["kind"], one["name"]): one for one in answer["providers"]}
    assert set(found) >= {
        ("backend", "cpu"),
        ("partitioner", "capability"),
        ("serializer", "safetensors"),
        ("transport", "gloo"),
    }
    assert {one["state"] for one in found.values()} == {"discovered"}
    assert {normalized(one["distribution"]) for one in found.values()} <= set(wheels(built))


SCRIPT = """
    import torch
    import hardpoint as hp


    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(16, 32)
            self.outer = torch.nn.Linear(32, 4)

        def forward(self, x):
            return torch.softmax(self.outer(torch.relu(self.inner(x))), dim=-1)


    if __name__ == "__main__":
        torch.manual_seed(0)
        model, x = Small().eval(), torch.randn(3, 16)
        program = hp.capture(model, (x,), dynamic={"x": {0: "batch"}})
        compiled = hp.compile(hp.plan(program, targets=["cpu"]))
        torch.testing.assert_close(compiled(x), model(x))
        compiled.save("small.pt2")
        torch.save({"x": torch.cat([x, x]), "y": model(torch.cat([x, x]))}, "expected.pt")
        print("saved")
"""

LOAD = """
    import sys
    import torch
    import hardpoint as hp

    expected = torch.load("expected.pt")
    torch.testing.assert_close(hp.load("small.pt2")(expected["x"]), expected["y"])
    assert "small" not in sys.modules  # the model's own code
    print("ran")
"""


def test_a_model_compiles_there_and_its_package_runs_in_a_new_process(fresh: Fresh) -> None:
    (fresh.folder / "small.py").write_text(textwrap.dedent(SCRIPT), "utf-8")
    assert run(fresh.tool("python"), "small.py", cwd=fresh.folder) == "saved\n"
    said = run(fresh.tool("python"), "-c", textwrap.dedent(LOAD), cwd=fresh.folder)
    assert said == "ran\n"
