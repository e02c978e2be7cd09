"""Checkpoints that torch itself saved, and ways to bend their metadata."""

import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp

from hardpoint_dcp.serializer import DcpSerializer


@pytest.fixture
def serializer():
    return DcpSerializer()


@pytest.fixture
def saved(tmp_path):
    """``saved(state)``: what ``dcp.save`` makes of it."""

    def make(state, name="made.dcp"):
        dcp.save(state, checkpoint_id=tmp_path / name, no_dist=True)
        return tmp_path / name

    return make


@pytest.fixture
def bent(saved):
    """``bent(change)``: a checkpoint of ``w`` [2, 4], its metadata changed and pickled again."""

    def make(change, state=None):
        path = saved(state or {"w": torch.arange(8.0).reshape(2, 4), "step": 3})
        metadata = pickle.loads((path / ".metadata").read_bytes())
        metadata = change(metadata) or metadata
        (path / ".metadata").write_bytes(pickle.dumps(metadata))
        return path

    return make
