"""Every distribution builds, passes twine, and works from its wheel in a fresh environment."""

from __future__ import annotations

import json
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fresh_env import ROOT, Fresh, asked, normalized, requirements, run, wheels
from setup_env import distributions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fresh(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """An environment that has our wheels and what they require, and nothing else."""
    ours = wheels(built)
    lent = [text for wheel in ours.values() for text in asked(requirements(wheel))]
    folder = tmp_path_factory.mktemp("fresh")
    return Fresh.make(folder, built, lent, "hardpoint[standard]", *ours.values())


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
        assert not [entry for entry in names if entry.endswith((".pyc", ".so"))]
        # The conformance kit is a suite of tests, and is shipped.
        tests = [entry for entry in names if "test_" in entry]
        assert all(entry.startswith("hardpoint/testing/") for entry in tests)


def test_the_extra_named_standard_brings_the_first_providers(built: Path) -> None:
    all_ = [Requirement(text) for text in requirements(wheels(built)["hardpoint"])]
    extra = {one.name for one in all_ if one.marker and one.marker.evaluate({"extra": "standard"})}
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
