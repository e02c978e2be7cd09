"""Loading a package: hashes are taken while backends open, and nothing is given out before."""

import gc
import os
import threading
from dataclasses import replace

import pytest
import torch

import hardpoint as hp
from eager_backend import Provider
from hardpoint import Executable
from hardpoint.collection import young_only
from hardpoint.package.archive import Archive
from hardpoint.package.integrity import THREADS, read_manifest, references
from hardpoint.package.refusal import AGAIN
from hardpoint.package.verification import verify_package
from package_forge import remake

# More bytes than are hashed at once: threads hash this one.
WIDE = 1200
CODE = b"what a processor would run"


class Watched(Executable):
    """Counts how often it was closed."""

    def __init__(self, inner):
        self.inner, self.closed, self.lost = inner, 0, False

    def __call__(self, *inputs):
        if self.lost:
            raise hp.DeviceLost("the device is gone", cause="its cable was pulled")
        return self.inner(*inputs)

    def close(self):
        self.closed += 1


class Opening:
    """A package of one segment, and what its backend was given to open."""

    def __init__(self, folder, width, *, uses_weights=True, **more):
        self.opened, self.artifacts, self.raises = [], [], None
        self.watch = lambda: None
        self.provider = Provider(spoil=self._watched)
        self.registry = hp.Registry()
        self.registry.add("backend", "eager", self.provider)
        backend = self.provider.backend
        load, make = backend.load, backend.compile
        backend.load = lambda artifact, device: self._load(load, artifact, device)

        def compile_segment(program, *given):
            weights = {name: tensor.detach() for name, tensor in program.state_dict.items()}
            made = make(program, *given)
            return replace(
                made, files={"code": CODE}, weights={**weights, **more} if uses_weights else {}
            )

        backend.compile = compile_segment
        self.module = torch.nn.Linear(width, width, bias=False).eval()
        compiled = hp.compile(
            hp.plan(
                hp.capture(self.module, (torch.ones(1, width),)),
                targets="eager", registry=self.registry,
            ),
            registry=self.registry,
        )  # fmt: skip
        self.path = compiled.save(folder / "package.pt2")
        self.opened.clear()
        self.artifacts.clear()

    def _watched(self, executable):
        self.opened.append(Watched(executable))
        return self.opened[-1]

    def _load(self, load, artifact, device):
        self.artifacts.append(artifact)
        self.watch()
        if self.raises is not None:
            raise self.raises
        return load(artifact, device)

    def load(self, **options):
        return hp.load(self.path, registry=self.registry, **options)

    def damage(self, found):
        """Flip a bit of the first byte of ``found``."""
        data = bytearray(self.path.read_bytes())
        data[data.index(found)] ^= 1
        self.path.write_bytes(data)

    @property
    def weight(self):
        return self.module.weight.detach().numpy().tobytes()


@pytest.fixture(params=[4, WIDE], ids=["small", "large"])
def opening(request, tmp_path):
    return Opening(tmp_path, request.param)


def test_a_sound_package_loads_and_its_backend_need_not_hash_again(opening):
    model = opening.load()
    given = torch.rand(model.signature.inputs[0].shape)
    assert torch.equal(model(given), opening.module(given))
    (artifact,) = opening.artifacts
    assert artifact.intact
    assert not replace(artifact, files={"code": b"something else"}).intact
    assert not hp.Artifact("made-by-hand/1").intact


@pytest.mark.parametrize("width", [200, WIDE])
def test_changed_weights_are_refused_and_what_was_opened_meanwhile_is_closed(tmp_path, width):
    opening = Opening(tmp_path, width)
    opening.damage(opening.weight)
    with pytest.raises(hp.PackageError, match=r"the content of 'data/.*' was changed or damaged"):
        opening.load()
    assert [executable.closed for executable in opening.opened] == [1]


def test_weights_that_only_the_program_uses_are_checked_when_it_is_read(tmp_path):
    opening = Opening(tmp_path, WIDE, uses_weights=False)
    opening.damage(opening.weight)
    model = opening.load()
    given = torch.rand(model.signature.inputs[0].shape)
    assert torch.equal(model(given), opening.module(given))
    with pytest.raises(hp.PackageError, match=r"the content of 'data/.*' was changed or damaged"):
        model.save(tmp_path / "copy.pt2")
    assert not (tmp_path / "copy.pt2").exists()
    assert verify_package(opening.path)[2].outcome == "failed"


def test_a_fault_stays_a_fault_where_the_program_for_its_fallback_is_damaged(tmp_path):
    opening = Opening(tmp_path, WIDE, uses_weights=False)
    opening.damage(opening.weight)
    model = opening.load(fallback="cpu")
    opening.opened[-1].lost = True
    with pytest.raises(hp.DeviceLost) as caught:
        model(torch.rand(model.signature.inputs[0].shape))
    said = str(caught.value)
    assert "its cable was pulled; no fallback can be compiled: " in said
    assert "was changed or damaged" in said
    assert isinstance(caught.value.__cause__, hp.PackageError)


@pytest.mark.parametrize("names", [["weight"], ["entry", "dtype", "shape", "strides", "offset"]])
def test_every_reference_of_a_manifest_is_found_whatever_its_tensors_are_called(names):
    reference = {"entry": "e", "dtype": "float32", "shape": [1], "strides": [1], "offset": 0}
    manifest = {"artifacts": [{"weights": dict.fromkeys(names, reference)}], "entries": {}}
    assert list(references(manifest)) == [reference] * len(names)


def test_the_quick_check_takes_changed_weights_on_trust(opening):
    opening.damage(opening.weight)
    assert opening.load(verify="quick").signature.inputs


@pytest.mark.parametrize("level", ["full", "quick"])
@pytest.mark.parametrize("found", [CODE, b'"graph_module"'])
def test_no_backend_is_given_an_artifact_of_a_package_whose_files_were_changed(
    opening, found, level
):
    opening.damage(found)
    with pytest.raises(hp.PackageError, match=r"the content of '.*' was changed or damaged"):
        opening.load(verify=level)
    assert opening.artifacts == []


@pytest.mark.parametrize("which", ["weight", "index"])
def test_no_backend_is_given_an_artifact_of_a_package_with_a_small_tensor_that_was_changed(
    tmp_path, which
):
    # Sizes and indices steer native code; indices may be a few more.
    index = torch.arange(20_000) if which == "index" else torch.ones(4)
    opening = Opening(tmp_path, 4, index=index)
    opening.damage(index.numpy().tobytes() if which == "index" else opening.weight)
    with pytest.raises(hp.PackageError, match="was changed or damaged"):
        opening.load()
    assert opening.artifacts == []


def test_no_backend_is_given_an_artifact_of_a_package_with_a_pickle(opening, tmp_path):
    pickle = {"data/sample_inputs/model.pt": b"\x80\x04N."}
    opening.path = remake(opening.path, tmp_path / "with.pt2", pickle)
    with pytest.raises(hp.PackageError, match=r"it holds the pickle 'data/sample_inputs/model.pt'"):
        opening.load()
    assert opening.artifacts == []


@pytest.mark.parametrize("level", ["full", "quick"])
def test_a_file_of_an_artifact_lies_where_such_files_are(opening, tmp_path, level):
    with Archive.open(opening.path) as archive:
        artifacts = read_manifest(archive)["artifacts"]
    artifacts[0]["files"]["code"] = "data/weights/weight_0"
    path = remake(opening.path, tmp_path / "forged.pt2", {}, artifacts=artifacts)
    opening.path = path
    with pytest.raises(hp.PackageError) as caught:
        opening.load(verify=level)
    assert str(caught.value) == (
        f"{path} is not a usable package\n"
        "  cause: a file of an artifact lies at 'data/weights/weight_0', not in "
        "'data/hardpoint/artifacts'\n"
        f"  remedy: {AGAIN}"
    )
    assert opening.artifacts == []


def test_damage_is_named_and_not_the_error_that_came_of_it(opening):
    opening.raises = hp.ArtifactError("the numbers are none")
    with pytest.raises(hp.ArtifactError, match="the numbers are none"):
        opening.load()
    opening.damage(opening.weight)
    with pytest.raises(hp.PackageError, match="was changed or damaged"):
        opening.load()


def test_leaving_is_not_answered_with_damage(opening):
    opening.damage(opening.weight)
    opening.raises = KeyboardInterrupt()
    with pytest.raises(hp.PackageError if len(opening.weight) < 1 << 20 else KeyboardInterrupt):
        opening.load()
    assert not [t.name for t in threading.enumerate() if t.name.startswith(THREADS)]


def test_a_load_puts_off_a_full_collection(opening):
    before, seen = gc.get_threshold(), []
    opening.watch = lambda: seen.append(gc.get_threshold())
    opening.load()
    assert seen == [(*before[:2], 1 << 30)]
    assert gc.get_threshold() == before


def test_the_thresholds_come_back_when_the_last_thread_leaves():
    before, entered, go = gc.get_threshold(), threading.Event(), threading.Event()

    def other():
        with young_only():
            entered.set()
            go.wait(20)

    thread = threading.Thread(target=other)
    with young_only():
        thread.start()
        assert entered.wait(20)
    assert gc.get_threshold() == (*before[:2], 1 << 30)
    go.set()
    thread.join(20)
    assert gc.get_threshold() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_that_is_forked_meanwhile_collects_as_ever():
    before = gc.get_threshold()
    with young_only():
        child = os.fork()
        if child == 0:
            with young_only():
                pass
            os._exit(0 if gc.get_threshold() == before else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gc.get_threshold() == before
