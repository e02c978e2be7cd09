"""What a cold review found in packages, child processes and model files."""

import copy
import importlib
import json
import os
import random
import sys

import pytest
import torch

import hardpoint as hp
from eager_backend import Provider
from hardpoint.errors import PackageError
from hardpoint.numerics import DIFFERENT
from hardpoint.package.archive import Archive
from hardpoint.package.integrity import read_manifest
from hardpoint.package.program_file import read_program_file
from hardpoint.package.strict_json import canonical
from hardpoint.package.verification import verify_package
from package_forge import remake


class Counter(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls.add_(1)
        return {"y": x * 2, "rows": x.shape[0], "calls": self.calls}


@pytest.fixture(scope="module")
def registry():
    made = hp.Registry()
    made.add("backend", "eager", Provider())
    return made


@pytest.fixture(scope="module")
def program(registry):
    x = torch.arange(6.0).reshape(3, 2)
    return hp.capture(Counter().eval(), (x,), dynamic={"x": {0: "batch"}}, registry=registry)


@pytest.fixture(scope="module")
def compiled(program, registry):
    return hp.compile(hp.plan(program, targets="eager", registry=registry), registry=registry)


@pytest.fixture(scope="module")
def package(compiled, tmp_path_factory):
    return compiled.save(tmp_path_factory.mktemp("package") / "counter.pt2")


# -- the saved state -------------------------------------------------------------------------------


@pytest.fixture
def advanced(package, registry, tmp_path):
    """Saved after two calls."""
    model = hp.load(package, registry=registry)
    model(torch.ones(3, 2))
    model(torch.ones(3, 2))
    return model.save(tmp_path / "advanced.pt2")


def test_a_fallback_starts_from_the_saved_state(advanced):
    with pytest.warns(hp.HardpointWarning, match="falls back to cpu"):
        loaded = hp.load(advanced, fallback="cpu", registry=hp.Registry())
    assert loaded(torch.ones(3, 2))["calls"].item() == 3


def test_capturing_a_package_starts_from_the_saved_state(advanced, registry):
    program = hp.capture(advanced, registry=registry)
    model = hp.compile(hp.plan(program, targets="eager", registry=registry), registry=registry)
    assert model(torch.ones(3, 2))["calls"].item() == 3


def test_saved_state_that_does_not_fit_the_program_is_refused(package, tmp_path):
    fields = manifest_of(package)
    [(name, ref)] = fields["held"].items()
    fields["held"] = {name: {**ref, "shape": [1, 1], "strides": [1, 1]}}
    with pytest.raises(PackageError, match=r"its state '.*calls' does not fit its program"):
        read_program_file(remake(package, tmp_path / "bad.pt2", {}, **fields))


# -- what is opened --------------------------------------------------------------------------------


def test_a_pipe_a_device_and_a_folder_are_refused_at_once(tmp_path, registry):
    pipe = tmp_path / "pipe.pt2"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero"):
        with pytest.raises(PackageError, match="it is no regular file, but a pipe or a device"):
            hp.load(path, registry=registry)
    with pytest.raises(PackageError, match="Is a directory"):
        hp.load(tmp_path, registry=registry)


# -- manifests whose hashes fit --------------------------------------------------------------------


def manifest_of(package):
    with Archive.open(package) as archive:
        fields = copy.deepcopy(read_manifest(archive))
    del fields["entries"]
    return fields


def changed(fields, path, value):
    """``fields`` with the value at ``path`` replaced."""
    *folders, last = path
    place = fields
    for key in folders:
        place = place[key]
    place[last] = value
    return fields


HOSTILE = {
    "a plan of fewer slots than inputs": (("schedule", "slots"), 0, "slot 1 of 0"),
    "a plan with a slot beyond the last": (("schedule", "held", "model.calls"), 999, "slot 999 of"),
    "a plan that frees what is beyond": (("schedule", "steps", 0, "frees"), [9999], "frees a slot"),
    "a plan of more inputs": (("schedule", "inputs"), 0, "malformed|its plan 0 and 3"),
    "a plan of fewer results": (("schedule", "results"), [], "1 inputs and 3 results, its plan"),
    "an input on no device": (("signature", "inputs", 0, "device"), "moon:1", "device 'moon:1'"),
    "a result on no device": (("signature", "results", 0, "device"), "", "on the device ''"),
    "a size of nothing": (
        ("signature", "inputs", 0, "shape"), [["*", 2, "n"], 2], "no input has the size n",
    ),
    "a guard on nothing": (("signature", "guards"), [["<", "n", 3]], "no input has the size n"),
    "a number that is a tensor": (
        ("signature", "results", 1, "shape"), [2], "a number that is a tensor",
    ),
    "too many examples": (("examples", "inputs"), "twice", "its examples 2 and 3"),
    "too few results": (("examples", "expected"), [], None),
    "results of no examples": (("examples", "inputs"), [], "its examples 0 and 3"),
    "a missing result": (("examples", "expected"), "less", "its examples 1 and 2"),
    "figures that are a list": (("verification",), [1], "where an object should stand"),
    "figures without an error": (("verification",), {"allowed": 1}, "max_error = None"),
    "an error that is a list": (("verification", "max_error"), [], r"max_error = \[\]"),
    "an error that is a word": (("verification", "max_error"), "big", "max_error = 'big'"),
    "an infinite error": (("verification", "max_error"), "inf", None),
    "no figures": (("verification",), {}, None),
    "a plan that is none": (("plan",), 3, "where an object should stand"),
    "two artifacts of a segment": (("artifacts",), "twice", "two artifacts of segment"),
    "another format": (("format",), "hardpoint/9", "its format is 'hardpoint/9'"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_manifest_that_does_not_fit_itself_is_refused_when_loaded(
    case, package, registry, tmp_path
):
    path, value, says = HOSTILE[case]
    fields = manifest_of(package)
    if value in ("twice", "less"):
        old = fields
        for key in path:
            old = old[key]
        value = [*old, *old] if value == "twice" else old[:-1]
    forged = remake(package, tmp_path / "forged.pt2", {}, **changed(fields, path, value))
    if says is None:
        assert hp.load(forged, registry=registry)(torch.ones(3, 2))["rows"] == 3
        return
    for read in (lambda: hp.load(forged, registry=registry), lambda: read_program_file(forged)):
        with pytest.raises(PackageError, match=says):
            read()


@pytest.mark.parametrize("part", ["held", "examples", "plan", "artifacts", "signature", "schedule"])
def test_a_manifest_without_one_of_its_parts_is_refused_wherever_it_is_read(
    part, package, registry, tmp_path
):
    forged = remake(package, tmp_path / "forged.pt2", {}, **{part: None})
    for read in (lambda: hp.load(forged, registry=registry), lambda: read_program_file(forged)):
        with pytest.raises(PackageError, match="malformed"):
            read()


def test_what_was_opened_is_closed_whatever_fails_afterwards(program, tmp_path):
    opened, closed = [], []

    def watched(executable):
        executable.close = lambda: closed.append(executable)
        opened.append(executable)
        return executable

    registry = hp.Registry()
    registry.add("backend", "eager", Provider(spoil=watched))
    plan = hp.plan(program, targets="eager", registry=registry)
    package = hp.compile(plan, registry=registry).save(tmp_path / "good.pt2")
    opened.clear()
    fields = changed(manifest_of(package), ("signature", "inputs", 0, "dtype"), "float17")
    with pytest.raises(PackageError, match="float17"):
        hp.load(remake(package, tmp_path / "forged.pt2", {}, **fields), registry=registry)
    assert opened
    assert closed == opened


# -- figures that are not finite -------------------------------------------------------------------


def test_a_model_that_may_be_as_wrong_as_it_likes_can_be_saved(program, registry, tmp_path):
    plan = hp.plan(program, targets="eager", registry=registry)
    model = hp.compile(plan, registry=registry, max_error=float("inf"))
    package = model.save(tmp_path / "any.pt2")
    assert hp.load(package, registry=registry).verification["allowed"] == "inf"
    assert all(check.error is None for check in verify_package(package))


def test_a_difference_without_bounds_is_json():
    assert json.loads(canonical(DIFFERENT.to_json())) == {
        "error": "inf",
        "mean": "inf",
        "cosine": 0.0,
        "relative": "inf",
    }


# -- the child process -----------------------------------------------------------------------------


def test_the_child_is_bound_by_the_lock_that_was_given_in_code(program, tmp_path):
    lock = tmp_path / "hardpoint.lock"
    hp.Registry().write_lock(lock)
    registry = hp.Registry(lock=lock)
    assert registry.lock == lock
    plan = hp.plan(program, targets="cpu", registry=registry)
    hp.compile(plan, registry=registry)
    # The parent has read its lock; the child sees what stands there now.
    pins = json.loads(lock.read_text())
    pins["providers"]["backend:cpu"]["version"] = "0.0.0"
    lock.write_text(json.dumps(pins))
    with pytest.raises(hp.LockMismatch, match=r"0\.0\.0"):
        hp.compile(plan, registry=registry, isolate=True)


def test_without_a_given_lock_the_environments_is_in_force(monkeypatch, tmp_path):
    monkeypatch.delenv("HARDPOINT_LOCK", raising=False)
    assert hp.Registry().lock is None
    monkeypatch.setenv("HARDPOINT_LOCK", str(tmp_path / "env.lock"))
    assert hp.Registry().lock == tmp_path / "env.lock"
    assert hp.Registry(lock=tmp_path / "own.lock").lock == tmp_path / "own.lock"


def test_the_child_imports_nothing_from_the_current_folder(program, tmp_path, monkeypatch):
    planted = "open(__file__ + '.ran', 'w'); raise ImportError('planted')\n"
    for name in ("colorsys", "pluggy", "torch"):
        (tmp_path / f"{name}.py").write_text(planted)
    plan = hp.plan(program, targets="cpu", registry=hp.Registry())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    hp.compile(plan, isolate=True, registry=hp.Registry())
    assert not list(tmp_path.glob("*.ran"))


# -- models in files -------------------------------------------------------------------------------

MODEL = """
import torch
def make():
    return torch.nn.Linear(2, 2).eval(), (torch.ones(1, 2),)
"""


def test_a_file_named_like_an_imported_module_leaves_that_alone(tmp_path, registry):
    file = tmp_path / "random.py"
    file.write_text(MODEL)
    hp.capture(f"{file}:make", registry=registry)
    assert sys.modules["random"] is random


def test_a_file_that_fails_leaves_the_module_of_its_name_alone(tmp_path, registry):
    file = tmp_path / "random.py"
    file.write_text("raise RuntimeError('no model today')\n")
    before = set(sys.modules)
    with pytest.raises(hp.CaptureError, match="no model today"):
        hp.capture(f"{file}:make", registry=registry)
    assert sys.modules["random"] is random
    assert set(sys.modules) == before


def test_a_file_named_like_a_module_nobody_imported_yet_does_not_become_it(tmp_path, registry):
    file = tmp_path / "colorsys.py"
    file.write_text(MODEL)
    sys.modules.pop("colorsys", None)
    hp.capture(f"{file}:make", registry=registry)
    assert hasattr(importlib.import_module("colorsys"), "rgb_to_hls")


def test_the_same_file_is_imported_once_under_its_own_name_where_that_is_free(tmp_path, registry):
    file = tmp_path / "my_review_model.py"
    file.write_text(MODEL + "open(__file__ + '.ran', 'a').write('.')\n")
    try:
        hp.capture(f"{file}:make", registry=registry)
        hp.capture(f"{file}:make", registry=registry)
        assert sys.modules["my_review_model"].__file__ == str(file)
        assert (tmp_path / "my_review_model.py.ran").read_text() == "."
    finally:
        sys.modules.pop("my_review_model", None)
