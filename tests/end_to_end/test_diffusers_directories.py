"""Directories that `diffusers` writes are read, and ours by it, bit for bit."""

import subprocess
import sys

import pytest
import torch

import hardpoint as hp
from hardpoint.weights import convert_weights

diffusers = pytest.importorskip("diffusers", reason="pip install diffusers")


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 16), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


def same(found, model):
    expected = model.state_dict()
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name])
        for name in expected
    )


@pytest.mark.parametrize("most", ["10GB", "50KB"])
def test_what_save_pretrained_wrote_is_read(unet, tmp_path, most):
    unet.save_pretrained(tmp_path, max_shard_size=most)
    assert len(list(tmp_path.glob("*.safetensors"))) == (1 if most == "10GB" else 4)
    assert same(hp.load_weights(tmp_path), unet)
    assert same(hp.load_weights(tmp_path, mode="own"), unet)


def test_a_half_precision_variant_beside_the_model_is_named_not_guessed(unet, tmp_path):
    unet.save_pretrained(tmp_path)
    unet.save_pretrained(tmp_path, variant="fp16")
    with pytest.raises(hp.WeightsError, match="2 safetensors files and no index"):
        hp.load_weights(tmp_path)
    assert same(hp.load_weights(tmp_path / "diffusion_pytorch_model.fp16.safetensors"), unet)


def test_what_we_saved_is_read_by_from_pretrained(unet, tmp_path):
    unet.save_config(tmp_path)
    hp.save_weights(unet.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors",
                    metadata={"format": "pt"})  # fmt: skip
    assert same(diffusers.UNet2DModel.from_pretrained(tmp_path).state_dict(), unet)


def test_a_set_of_shards_of_ours_is_read_by_from_pretrained(unet, tmp_path):
    one = tmp_path / "one.safetensors"
    hp.save_weights(unet.state_dict(), one)
    folder = tmp_path / "unet"
    report = convert_weights(
        one, folder, registry=hp.default_registry(), shard_size=50_000,
        shard_name="diffusion_pytorch_model",
    )  # fmt: skip
    assert len(report.files) > 3
    assert report.files[-1].name == "diffusion_pytorch_model.safetensors.index.json"
    unet.save_config(folder)
    assert same(diffusers.UNet2DModel.from_pretrained(folder).state_dict(), unet)
    assert same(hp.load_weights(folder), unet)


def test_the_command_line_names_the_files_so_too_and_refuses_names_that_are_paths(unet, tmp_path):
    hp.save_weights(unet.state_dict(), tmp_path / "one.safetensors")
    command = [sys.executable, "-m", "hardpoint.cli", "weights", "convert", "one.safetensors"]

    def run(*words):
        return subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True)

    done = run("set", "--shard-size", "50KB", "--shard-name", "diffusion_pytorch_model")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "set" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    refused = run("other", "--shard-size", "50KB", "--shard-name", "../x")
    assert refused.returncode == 1
    assert "files cannot be called '../x'" in refused.stderr
    assert not (tmp_path / "other").exists()
