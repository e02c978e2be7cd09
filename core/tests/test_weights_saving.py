"""Checksums, saving in the background, parts of tensors, and private memory, through real files."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

import hardpoint as hp
from hardpoint import WeightsError
from hardpoint.weights.checksum import KEY, checksum


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {
        "w": torch.randn(64, 32),
        "v": torch.arange(24).view(2, 3, 4),
        "half": torch.randn(5).bfloat16(),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.empty(0, 3),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def equal(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in expected.items()
    )


# -- checksums -------------------------------------------------------------------------------------


def test_what_was_saved_with_a_checksum_is_verified(path, tensors):
    hp.save_weights(tensors, path, checksum=True, metadata={"who": "we"})
    assert equal(hp.load_weights(path, verify=True), tensors)
    with hp.open_weights(path) as reader:
        assert reader.metadata == {"who": "we", KEY: checksum(tensors)}


def test_one_changed_bit_is_found(path, tensors):
    hp.save_weights(tensors, path, checksum=True)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="is not what was saved") as caught:
        hp.load_weights(path, verify=True)
    assert caught.value.cause.startswith("its tensors have the checksum ")


def test_a_file_without_one_says_so(path, tensors):
    hp.save_weights(tensors, path)
    with pytest.raises(WeightsError, match="carries no checksum"):
        hp.load_weights(path, verify=True)


def test_only_whole_mappings_are_verified(path, tensors):
    hp.save_weights(tensors, path, checksum=True)
    with pytest.raises(WeightsError, match="only whole mappings of tensors are verified"):
        hp.load_weights(path, verify=True, slices={"w": 0})


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t | {"w": t["w"].t().contiguous()},
        lambda t: t | {"half": t["half"].view(torch.float16)},
        lambda t: {("x" if name == "w" else name): tensor for name, tensor in t.items()},
        lambda t: {name: tensor for name, tensor in t.items() if name != "none"},
    ],
    ids=["shape", "dtype", "name", "absence"],
)
def test_the_checksum_is_of_names_dtypes_and_shapes_too(tensors, change):
    assert checksum(change(tensors)) != checksum(tensors)


def test_the_checksum_is_of_values_not_of_strides_or_order(tensors):
    strided = {name: tensors[name] for name in reversed(tensors)}
    strided["w"] = tensors["w"].t().contiguous().t()
    assert checksum(strided) == checksum(tensors)


# -- in the background -----------------------------------------------------------------------------


def test_a_state_may_change_as_soon_as_save_returns(path, tensors):
    expected = {name: tensor.clone() for name, tensor in tensors.items()}
    with hp.save_in_background() as saver:
        done = saver.save(tensors, path)
        for tensor in tensors.values():
            tensor.zero_()
        done.result(30)
        assert equal(hp.load_weights(path), expected)
        saver.save(tensors, path)
    assert equal(hp.load_weights(path), tensors)


def test_one_save_is_under_way_at_a_time(tmp_path, tensors, monkeypatch):
    from hardpoint.weights import background

    running, most = [], []
    real = background.save_weights

    def slow(*args, **options):
        running.append(1)
        most.append(len(running))
        threading.Event().wait(0.05)
        real(*args, **options)
        running.pop()

    monkeypatch.setattr(background, "save_weights", slow)
    with hp.save_in_background() as saver:
        for step in range(3):
            saver.save(tensors, tmp_path / f"{step}.safetensors")
    assert most == [1, 1, 1]
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_an_error_is_raised_by_the_next_save_or_at_the_end(tmp_path, tensors):
    missing = tmp_path / "missing" / "a.safetensors"
    saver = hp.save_in_background()
    saver.save(tensors, missing)
    with pytest.raises(WeightsError, match="the file cannot be written"):
        saver.save(tensors, tmp_path / "b.safetensors")
    saver.save(tensors, missing)
    with pytest.raises(WeightsError, match="the file cannot be written"):
        saver.close()
    saver.close()
    with pytest.raises(WeightsError, match="the saver is closed"):
        saver.save(tensors, tmp_path / "b.safetensors")


def test_what_the_format_cannot_hold_is_named(path):
    with pytest.raises(WeightsError, match="'s'"), hp.save_in_background() as saver:
        saver.save({"s": torch.eye(3).to_sparse()}, path)
    assert not path.exists()


def test_the_copy_keeps_values_of_any_layout(path):
    views = {
        "t": torch.randn(3, 5).t(),
        "expanded": torch.randn(1, 4).expand(3, 4),
        "conj": torch.randn(4, dtype=torch.complex64).conj(),
        "grad": torch.randn(4, requires_grad=True),
    }
    with hp.save_in_background() as saver:
        saver.save(views, path)
    found = hp.load_weights(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in views.items())


# -- parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["map", "own"])
def test_a_rank_gets_its_part_of_each_tensor(path, tensors, mode):
    hp.save_weights(tensors, path)
    wanted = {
        "w": (slice(None), slice(16, 32)),
        "v": 1,
        "half": slice(1, 4, 2),
        "none": slice(0, 0),
    }
    found = hp.load_weights(path, mode=mode, slices=wanted)
    assert equal(found, {n: t[wanted[n]] if n in wanted else t for n, t in tensors.items()})
    asked = hp.load_weights(path, mode=mode, slices=lambda info: wanted.get(info.name))
    assert equal(asked, found)


def test_own_parts_are_private(path, tensors):
    hp.save_weights(tensors, path)
    found = hp.load_weights(path, mode="own", slices={"w": slice(0, 8)})
    path.write_bytes(b"")
    assert torch.equal(found["w"], tensors["w"][:8])


@pytest.mark.parametrize("mode", ["map", "own"])
def test_a_part_that_is_not_there_is_an_error(path, tensors, mode):
    hp.save_weights(tensors, path)
    with pytest.raises(WeightsError, match=r"tensor 'w' of shape .* has no slice"):
        hp.load_weights(path, mode=mode, slices={"w": 64})
    with pytest.raises(WeightsError, match="slices are given for tensors that are not there: x"):
        hp.load_weights(path, mode=mode, slices={"x": 0})
    with pytest.raises(WeightsError, match="slices cannot be loaded into a module"):
        hp.load_weights(path, into=torch.nn.Linear(2, 2), slices={"w": 0})


# -- private memory, and filling a module ----------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_private_memory_is_out_of_every_reach(path, tensors, threads):
    hp.save_weights(tensors, path)
    found = hp.load_weights(path, mode="own", threads=threads)
    path.write_bytes(b"")
    assert equal(found, tensors)


def test_filling_a_module_bumps_versions_so_that_autograd_notices(path):
    module = torch.nn.Linear(4, 4)
    hp.save_weights(module.state_dict(), path)
    loss = (module(torch.ones(1, 4, requires_grad=True)) ** 2).sum()
    hp.load_weights(path, into=module)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_module_whose_memory_is_not_in_order_is_filled_all_the_same(path):
    module = torch.nn.Linear(3, 5)
    module.weight = torch.nn.Parameter(torch.zeros(3, 5).t())
    weight, bias = torch.randn(5, 3), torch.randn(5)
    hp.save_weights({"weight": weight, "bias": bias}, path)
    hp.load_weights(path, into=module)
    assert torch.equal(module.weight, weight)
    assert not module.weight.is_contiguous()
