"""Weights to a GPU: cut into loads for the pinned stages, and there bit for bit."""

from __future__ import annotations

import os

import pytest
import torch

import hardpoint as hp
from hardpoint import WeightsError
from hardpoint.registry.registry import default_registry
from hardpoint.storage import transfer
from hardpoint.storage.layout import Layout
from hardpoint.weights import convert_weights
from hardpoint.weights.bulk import split
from hardpoint.weights.opened import Opened

needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA GPU, and PyTorch built for it"
)
STAGE = 1000  # bytes; neither a power of two nor a multiple of any tensor below


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    """Nine stages and some: of less than one, of one exactly, and of several."""
    torch.manual_seed(0)
    return {
        "several": torch.randint(-(2**31), 2**31 - 1, (1999,), dtype=torch.int32),
        "exactly": torch.randint(0, 255, (STAGE,), dtype=torch.uint8),
        "less": torch.randn(7, 5).bfloat16(),
        "flags": torch.tensor([True, False, True]),
        "nothing": torch.empty(0, 3),
        "one": torch.tensor(2.5, dtype=torch.float64),
    }


@pytest.fixture
def path(tmp_path, tensors):
    """A set of two files, so that a stage holds parts of both."""
    hp.save_weights(tensors, tmp_path / "model.safetensors")
    found = tmp_path / "set"
    report = convert_weights(
        tmp_path / "model.safetensors", found, registry=default_registry(), shard_size=8500
    )
    assert len(report.files) == 3
    return found


def placed(path):
    reader = hp.open_weights(path)
    direct, others = split(Opened("safetensors", "here", reader))
    assert not others
    return direct


def test_loads_fill_their_stages_and_hold_every_byte_once(path):
    """Carried out in plain memory, they make what reading at once makes."""
    layout = Layout(placed(path))
    made, loads = bytearray(layout.nbytes), list(transfer._loads(layout, STAGE))
    for pieces in loads:
        stage = bytearray(STAGE)
        for source, begin, at, nbytes, _ in pieces:
            source.read_into(begin, memoryview(stage)[at : at + nbytes])
        for _, _, at, nbytes, to in pieces:
            made[to : to + nbytes] = stage[at : at + nbytes]
    for info, source in placed(path):
        at = layout.places.get(info.name, 0)  # empty ones have none
        assert made[at : at + info.nbytes] == source.read(info.offset, info.nbytes)
    filled = [sum(nbytes for _, _, _, nbytes, _ in pieces) for pieces in loads]
    assert len(filled) > 2
    assert filled[:-1] == [STAGE] * (len(filled) - 1)
    assert sum(filled) == sum(run.end - run.begin for run in layout.runs)
    assert any(len({id(source) for source, *_ in pieces}) == 2 for pieces in loads)


@needs_cuda
@pytest.mark.parametrize("stage", [STAGE, transfer._STAGE])
def test_a_gpu_holds_the_file_bit_for_bit(path, tensors, monkeypatch, stage):
    """By ten stages, each used again while the one before is on its way, and by one that is not full."""
    monkeypatch.setattr(transfer, "_STAGE", stage)
    ticks: list[int] = []
    found = transfer.to_device(placed(path), torch.device("cuda"), tick=ticks.append)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].is_cuda
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].cpu(), tensor)
    assert sum(ticks) == sum(run.end - run.begin for run in Layout(placed(path)).runs)


@needs_cuda
def test_a_file_that_ends_early_is_an_error_on_a_gpu_too(path, monkeypatch):
    """And what is on its way by then arrives before its memory is given back."""
    monkeypatch.setattr(transfer, "_STAGE", STAGE)
    found = placed(path)
    last = max(path.glob("*.safetensors"))
    os.truncate(last, last.stat().st_size - 1)
    with pytest.raises(WeightsError):
        transfer.to_device(found, torch.device("cuda"))
    assert torch.ones(10_000, device="cuda").sum().item() == 10_000
