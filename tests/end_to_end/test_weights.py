"""Weights over serializers: told by content, checked before anything changes."""

import json
import pickle
import zipfile

import pytest
import torch

import hardpoint as hp
from fakes.dists import FakeSite
from hardpoint.weights import convert_weights, describe_content


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return {"weight": torch.randn(3, 4), "bias": torch.arange(3.0)}


@pytest.fixture
def file(tensors, tmp_path):
    path = tmp_path / "weights.safetensors"
    hp.save_weights(tensors, path, metadata={"made by": "a test"})
    return path


def test_what_was_saved_is_loaded(file, tensors):
    loaded = hp.load_weights(file)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_the_format_is_told_by_content_not_by_suffix(file, tensors, tmp_path):
    renamed = file.rename(tmp_path / "weights.bin")
    assert torch.equal(hp.load_weights(renamed)["bias"], tensors["bias"])


def test_mapped_tensors_share_the_files_pages_and_own_ones_do_not(file, tensors):
    mapped, own = hp.load_weights(file), hp.load_weights(file, mode="own")
    span = {t.untyped_storage().data_ptr() for t in mapped.values()}
    assert len(span) == 1, "all views of one map"
    assert not span & {t.untyped_storage().data_ptr() for t in own.values()}
    file.write_bytes(bytes(file.stat().st_size))
    assert all(torch.equal(own[name], tensors[name]) for name in tensors)


def test_writing_to_a_mapped_tensor_never_reaches_the_file(file, tensors):
    hp.load_weights(file)["bias"].fill_(9)
    assert torch.equal(hp.load_weights(file)["bias"], tensors["bias"])


def test_a_reader_tells_sizes_without_reading_and_slices(file, tensors):
    with hp.open_weights(file) as reader:
        assert reader["weight"].shape == (3, 4)
        assert reader["weight"].dtype == "float32"
        assert dict(reader.metadata) == {"made by": "a test"}
        assert torch.equal(reader.slice("weight", (slice(1, 3), 2)), tensors["weight"][1:3, 2])


def test_a_module_is_filled_in_place(file, tensors):
    module = torch.nn.Linear(4, 3)
    before = module.weight
    hp.load_weights(file, into=module)
    assert module.weight is before
    assert torch.equal(module.weight, tensors["weight"])


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (torch.nn.Linear(4, 3, bias=False), "not in the module: bias"),
        (torch.nn.Linear(5, 3), "weight is float32[3, 4] in the file, float32[3, 5] in the module"),
        (torch.nn.Linear(4, 3, dtype=torch.float64), "in the file, float64[3, 4] in the module"),
        (torch.nn.Sequential(torch.nn.Linear(4, 3)), "missing: 0.bias, 0.weight"),
        (torch.nn.Linear(4, 3, device="meta"), "on the meta device"),
    ],
)
def test_a_module_that_does_not_fit_is_left_alone(file, module, says):
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(hp.WeightsError) as caught:
        hp.load_weights(file, into=module)
    assert says in str(caught.value)
    for name, tensor in module.state_dict().items():
        assert tensor.is_meta or torch.equal(tensor, before[name])


def test_without_strict_only_the_shared_names_are_filled(file, tensors):
    module = torch.nn.Linear(4, 3, bias=False)
    filled = hp.load_weights(file, into=module, strict=False)
    assert list(filled) == ["weight"]
    assert torch.equal(module.weight, tensors["weight"])


def made(path, kind):
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data.pkl", b"")
    else:
        content = {"pickle": pickle.dumps({"a": 1}), "empty": b"", "gguf": b"GGUF\x03\0\0\0",
                   "json": b'{"a": 1}', "noise": b"\xde\xad\xbe\xef" * 4}  # fmt: skip
        path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "says", "remedy"),
    [
        ("zip", "a zip archive, as torch.save writes", "hardpoint-checkpoint"),
        ("pickle", "a pickle, which can run code", "hardpoint-checkpoint"),
        ("gguf", "GGUF", "hardpoint-gguf"),
        ("json", "JSON", "hardpoint list"),
        ("empty", "nothing: it is empty", "check the file"),
        ("noise", "unknown data that begins with de ad be ef", "check the file"),
    ],
)
def test_a_file_nobody_reads_is_described_in_words(tmp_path, kind, says, remedy):
    path = made(tmp_path / "model.bin", kind)
    assert says in describe_content(path)
    registry = hp.Registry(policy=hp.Policy(allow=("serializer:safetensors",)))
    with pytest.raises(hp.WeightsError) as caught:
        hp.load_weights(path, registry=registry)
    for words in ("no installed serializer reads", "model.bin", says, "tried: safetensors", remedy):
        assert words in str(caught.value)


def test_who_has_the_plugin_is_not_told_to_install_it(tmp_path):
    path = made(tmp_path / "model.bin", "zip")
    with pytest.raises(hp.WeightsError) as caught:
        hp.load_weights(path)
    assert "check the file: hardpoint-checkpoint is installed, and does not know it" in str(
        caught.value
    )


def test_a_missing_file_a_wrong_mode_and_an_unknown_suffix_are_refused(file, tensors, tmp_path):
    with pytest.raises(hp.WeightsError, match="there is no file"):
        hp.load_weights(tmp_path / "nothing.safetensors")
    with pytest.raises(hp.WeightsError, match="did you mean 'own'"):
        hp.load_weights(file, mode="owned")
    with pytest.raises(hp.WeightsError, match=r"no installed serializer writes \.xyz"):
        hp.save_weights(tensors, tmp_path / "weights.xyz")
    with pytest.raises(hp.ProviderNotFound, match="safetensor"):
        hp.load_weights(file, format="safetensor")


def test_converting_keeps_tensors_and_metadata_and_reports_progress(file, tensors, tmp_path):
    steps = []
    target = tmp_path / "copy.safetensors"
    report = convert_weights(
        file,
        target,
        registry=hp.Registry(),
        provenance=False,
        progress=lambda *step: steps.append(step),
    )
    assert (report.tensors, report.nbytes) == (2, 60)
    assert max(done for done, _, _ in steps) == 60
    assert all(torch.equal(hp.load_weights(target)[n], t) for n, t in tensors.items())
    with hp.open_weights(target) as reader:
        assert dict(reader.metadata) == {"made by": "a test"}


def test_converting_never_replaces_a_file_unasked(file, tmp_path):
    target = tmp_path / "precious.safetensors"
    target.write_bytes(b"precious")
    with pytest.raises(hp.WeightsError, match=r"exists[\s\S]*--force"):
        convert_weights(file, target, registry=hp.Registry())
    assert target.read_bytes() == b"precious"


def test_the_command_line_shows_and_converts(file, tmp_path):
    site = FakeSite(tmp_path / "site")
    shown = site.cli("weights", "info", str(file), "--json")
    facts = json.loads(shown.stdout)
    assert (facts["tensors"], facts["parameters"], facts["bytes"]) == (2, 15, 60)
    assert facts["metadata"] == {"made by": "a test"}
    table = site.cli("weights", "info", str(file), "--tensors").stdout
    assert "weight" in table
    assert "[3, 4]" in table
    done = site.cli("weights", "convert", str(file), str(tmp_path / "new.safetensors"), "--json")
    assert json.loads(done.stdout)["format"] == "safetensors"
    again = site.cli("weights", "convert", str(file), str(tmp_path / "new.safetensors"))
    assert again.returncode == 1
    assert "exists" in again.stderr
