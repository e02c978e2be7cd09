"""The tutorial "Write a backend in thirty minutes", step by step, as a new vendor would.

In a fresh environment with our wheels and no more: every console line runs, every patch applies, every
Python block becomes the file that its first line names. A patch marked ``trial`` is taken back after
the commands that follow it.

It is followed where the page, the core, the templates or the kit have changed since it last was by
`make conformance`: see tests/conformance/passed.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fresh_env import ROOT, Fresh, asked, requirements, wheels
from harness import whole_kit
from passed import reason

PAGE = ROOT / "docs" / "tutorials" / "backend-in-thirty-minutes.md"
BLOCK = re.compile(r"^```(console|diff|diff trial|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXITS = re.compile(r"# exits with (\d+)")

RESTS = "" if whole_kit() else reason("tutorial")

pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.skipif(bool(RESTS), reason=RESTS),
]  # fmt: skip


class Vendor:
    """Somebody at a shell, with the page in hand."""

    def __init__(self, fresh: Fresh, folder: Path) -> None:
        self.fresh, self.folder = fresh, folder
        self.said: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def type(self, line: str) -> None:
        """Run a line; it must end as the page says."""
        command = line.split("#")[0].strip()
        if command.startswith("cd "):
            self.folder = self.folder / command.removeprefix("cd ")
            return
        # pip as usual, but from our wheels alone: there is no index to take anything else from.
        pip = f"{sys.executable} -m pip --python {self.fresh.tool('python')}"
        local = f"--no-index --find-links {self.fresh.built} --no-build-isolation"
        shell = re.sub(r"^pip (install|wheel) ", rf"{pip} \1 {local} ", command)
        path = f"{self.fresh.tool('x').parent}{os.pathsep}{os.environ['PATH']}"
        begin = time.monotonic()
        done = subprocess.run(
            ["/bin/sh", "-c", shell], cwd=self.folder, capture_output=True, text=True, check=False,
            env={"PATH": path, "HOME": str(self.folder), "PIP_CONFIG_FILE": os.devnull},
            timeout=1000,
        )  # fmt: skip
        self.seconds[command] = time.monotonic() - begin
        self.said[command] = done.stdout + done.stderr
        wanted = EXITS.search(line)
        assert done.returncode == int(wanted[1] if wanted else 0), f"$ {line}\n{self.said[command]}"

    def patch(self, text: str, *, reverse: bool = False) -> None:
        """Apply a change of the page."""
        options = ["--reverse"] if reverse else []
        done = subprocess.run(
            ["git", "apply", *options, "-"], cwd=self.folder, input=text, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stderr}\n{text}"

    def follow(self, page: str) -> None:
        """Do all that the page says, in order."""
        trial = ""
        for kind, body in BLOCK.findall(page):
            if kind == "python":
                name = body.splitlines()[0].removeprefix("# ")
                (self.folder / name).write_text(body)
            elif kind.startswith("diff"):
                self.patch(body)
                trial = body if kind.endswith("trial") else ""
            else:
                for line in body.splitlines():
                    self.type(line.removeprefix("$ "))
                if trial:
                    self.patch(trial, reverse=True)
                trial = ""


@pytest.fixture(scope="module")
def vendor(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    """The page, followed to its end."""
    if shutil.which("git") is None:
        pytest.skip("the patches of the page are applied with git, which is not here")
    folder = tmp_path_factory.mktemp("tutorial")
    extras = ("standard", "testing")
    lent = [text for wheel in wheels(built).values() for text in asked(requirements(wheel), extras)]
    fresh = Fresh.make(
        folder, built, [*lent, "hatchling", "editables"], f"hardpoint[{','.join(extras)}]"
    )
    made = Vendor(fresh, folder)
    made.follow(PAGE.read_text("utf-8"))
    print({command: round(seconds, 1) for command, seconds in made.seconds.items()})
    return made


def said(vendor: Vendor, part: str) -> list[str]:
    return [text for command, text in vendor.said.items() if part in command]


def test_the_page_ends_with_a_green_check_and_a_wheel(vendor: Vendor) -> None:
    (verdict,) = said(vendor, "--require robust")
    assert "backend:acme: level robust" in verdict
    assert sorted(file.suffix for file in (vendor.folder / "conformance").iterdir()) == [".html", ".json"]  # fmt: skip
    assert list((vendor.folder / "dist").glob("hardpoint_acme-*.whl"))


def test_the_doctor_says_what_the_page_makes_it_say(vendor: Vendor) -> None:
    (unplugged,) = said(vendor, "ACME_UNPLUGGED=1")
    assert "unavailable" in unplugged
    assert "no device was found" in unplugged
    assert "remedy: install its driver" in unplugged


def test_the_mistake_is_named_with_its_size(vendor: Vendor) -> None:
    failed = [text for text in said(vendor, "operators_are_right") if "FAILED" in text]
    assert len(failed) == 1
    assert "gelu" in failed[0]


def test_the_page_shows_what_the_kit_says_of_the_mistake(vendor: Vendor) -> None:
    (failed,) = [text for text in said(vendor, "operators_are_right") if "FAILED" in text]
    (shown,) = re.findall(
        r"^```text\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    for line in shown.splitlines():
        assert line.strip() in failed


def test_nothing_of_the_checkout_was_used(vendor: Vendor) -> None:
    code = "import hardpoint, sys; print(hardpoint.__file__, *sys.path)"
    done = subprocess.run(
        [vendor.fresh.tool("python"), "-c", code], capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"]}, cwd=vendor.folder,
    )  # fmt: skip
    assert str(ROOT) not in done.stdout
