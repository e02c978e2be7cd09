"""Loading a package: hashes are taken while backends open, and nothing is given out before."""

import gc

import pytest
import torch

import hardpoint as hp
from eager_backend import Provider
from hardpoint import Executable
from hardpoint.collection import young_only

# More bytes than are hashed at once: threads hash this one.
WIDE = 1200


class Watched(Executable):
    """Counts how often it was closed."""

    def __init__(self, inner):
        self.inner, self.closed = inner, 0

    def __call__(self, *inputs):
        return self.inner(*inputs)

    def close(self):
        self.closed += 1


class Opening:
    """A package of one segment, and what its backend was given to open."""

    def __init__(self, folder, width):
        self.opened, self.artifacts, self.raises = [], [], None
        self.watch = lambda: None
        self.provider = Provider(spoil=self._watched)
        self.registry = hp.Registry()
        self.registry.add("backend", "eager", self.provider)
        load = self.provider.backend.load
        self.provider.backend.load = lambda artifact, device: self._load(load, artifact, device)
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
    assert [artifact.intact for artifact in opening.artifacts] == [True]
    assert not hp.Artifact("made-by-hand/1").intact


def test_changed_weights_are_refused_and_what_was_opened_meanwhile_is_closed(opening):
    opening.damage(opening.weight)
    with pytest.raises(hp.PackageError, match=r"the content of 'data/.*' was changed or damaged"):
        opening.load()
    assert [executable.closed for executable in opening.opened] == [1]


def test_the_quick_check_takes_changed_weights_on_trust(opening):
    opening.damage(opening.weight)
    assert opening.load(verify="quick").signature.inputs


def test_no_backend_is_given_an_artifact_of_a_package_whose_files_were_changed(opening):
    opening.damage(b'"graph_module"')
    with pytest.raises(hp.PackageError, match=r"the content of 'models/.*' was changed or damaged"):
        opening.load()
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
    with pytest.raises(KeyboardInterrupt):
        opening.load()


def test_nothing_is_collected_while_a_package_loads(opening):
    seen = []
    opening.watch = lambda: seen.append(gc.isenabled())
    opening.load()
    assert seen == [False]
    assert gc.isenabled()


def test_what_a_load_made_is_collected_alone():
    walked = []

    def note(phase, told):
        if phase == "start":
            walked.append(told["generation"])

    gc.callbacks.append(note)
    try:
        with young_only():
            assert len([[] for _ in range(100_000)]) == 100_000
        assert walked == [1]
    finally:
        gc.callbacks.remove(note)


def test_a_collector_that_was_off_stays_off(opening):
    gc.disable()
    try:
        opening.load()
        assert not gc.isenabled()
    finally:
        gc.enable()
