"""An index that is out of range is refused, as PyTorch does: OpenVINO reads on in silence."""

from __future__ import annotations

import pytest
import torch

import hardpoint as hp
from hardpoint import InputError
from hardpoint_openvino.program import decompose, take_apart

TABLE = torch.arange(20.0).reshape(5, 4)
SQUARE = torch.arange(12.0).reshape(4, 3)
PAIR = torch.arange(8.0).reshape(2, 4)
WIDE = torch.arange(24.0).reshape(2, 3, 4)


def embedding(ids):
    return torch.nn.functional.embedding(ids, TABLE) * 1.0


def select(ids):
    return TABLE.index_select(0, ids) * 1.0


def gather(ids):
    return PAIR.gather(1, ids.view(-1, 1)) * 1.0


def index(ids):
    return TABLE[ids] * 1.0


def second(ids):
    return WIDE[:, ids] * 1.0


def put(ids):
    return torch.index_put(TABLE, (ids,), torch.zeros(ids.shape[0], 4)) * 1.0


def copied(ids):
    return TABLE.index_copy(0, ids, torch.zeros(ids.shape[0], 4)) * 1.0


def scattered(ids):
    return TABLE.scatter(1, ids.view(-1, 1), 7.0) * 1.0


def filled(ids):
    return TABLE.index_fill(0, ids, 7.0) * 1.0


def further(ids):
    return TABLE[ids.clamp(0, 9) + 2] * 1.0


# Function -> how many places there are, and whether -1 is the last.
FUNCTIONS = {
    embedding: (5, False), select: (5, False), gather: (4, False), index: (5, True),
    second: (3, True), put: (5, True), copied: (5, False), scattered: (4, False),
    filled: (5, True), further: (3, False),
}  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_what_pytorch_refuses_is_refused_and_all_else_is_the_same(export, build, function):
    places, counts_back = FUNCTIONS[function]
    made = build(export(function, torch.tensor([0, 1])))
    good = [[0, places - 1], *([[-1, -places]] if counts_back else [])]
    for each in good:
        ids = torch.tensor(each)
        assert torch.equal(made(ids)[0], function(ids)), each
    bad = [[0, places], [places + 1000, 0]]
    if function is not further:  # it clamps
        bad.append([0, -places - 1] if counts_back else [-1, 0])
    for each in bad:
        ids = torch.tensor(each)
        with pytest.raises((IndexError, RuntimeError)):
            function(ids)
        with pytest.raises(InputError, match="an index is out of range in "):
            made(ids)
    assert torch.equal(made(torch.tensor(good[0]))[0], function(torch.tensor(good[0])))


def test_the_refusal_names_the_operators(export, build):
    def two(one, other):
        return embedding(one) + select(other)

    made = build(export(two, torch.tensor([0, 1]), torch.tensor([0, 1])))
    with pytest.raises(InputError) as caught:
        made(torch.tensor([0, 1]), torch.tensor([0, 5]))
    assert str(caught.value) == (
        "an index is out of range in index_select\n"
        "  cause: OpenVINO reads another place, or zeros, where PyTorch refuses\n"
        "  remedy: check the inputs that the index is made of"
    )


def test_a_size_that_changes_is_the_limit(export, build):
    def last(x, ids):
        return x.index_select(0, ids) * 1.0, x[ids] * 2.0

    batch = torch.export.Dim("batch", min=2, max=9)
    module = type("Last", (torch.nn.Module,), {"forward": lambda self, x, ids: last(x, ids)})()
    shapes = {"x": {0: batch}, "ids": None}
    program = torch.export.export(
        module, (torch.randn(4, 3), torch.tensor([0, 1])), dynamic_shapes=shapes, strict=False
    ).run_decompositions({})
    made = build(program)
    for size in (2, 7):
        x, ids = torch.randn(size, 3), torch.tensor([0, size - 1])
        assert all(map(torch.equal, made(x, ids), last(x, ids)))
        with pytest.raises(InputError, match="out of range in index_select, index"):
            made(x, torch.tensor([0, size]))


def test_one_index_along_two_dimensions_is_held_to_each(export, build):
    made = build(export(lambda i: SQUARE[i.clamp(min=0), i.clamp(min=0)] * 1.0, torch.tensor([0])))
    ids = torch.tensor([0, 1, 2])
    assert torch.equal(made(ids[:1])[0], SQUARE[ids[:1], ids[:1]])
    for place in (3, 4):
        with pytest.raises(InputError, match="an index is out of range in index"):
            made(torch.tensor([place]))


def checked(export, function, *inputs):
    return take_apart(decompose(export(function, *inputs))).indices


def test_an_index_that_is_certain_to_fit_costs_nothing(export):
    x = torch.randn(2, 5)
    fixed = torch.tensor([0, 3])
    assert checked(export, lambda x: x[:, fixed] * 1.0, x) == []
    assert checked(export, lambda x: x.index_select(1, torch.arange(5).flip(0)) * 1.0, x) == []
    assert checked(export, lambda x: x[x > 100.0].sum(), x) == []
    assert checked(export, index, torch.tensor([0, 1])) == ["index"]


@pytest.mark.parametrize("precision", ["fp32", "int8w"])
def test_a_model_refuses_too_whole_and_from_its_package(tmp_path, precision):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = torch.nn.Embedding(50, 16), torch.nn.Linear(16, 4)

        def forward(self, ids):
            return self.head(self.table(ids))

    torch.manual_seed(0)
    ids = torch.tensor([[1, 2, 49]])
    program = hp.capture(Net().eval(), (ids,))
    model = hp.compile(hp.plan(program, targets="openvino"), precision=precision)
    for each in (model, hp.load(model.save(tmp_path / "net.pt2"))):
        assert each(ids).shape == (1, 3, 4)
        with pytest.raises(InputError, match="an index is out of range in embedding"):
            each(torch.tensor([[1, 2, 50]]))


def test_an_artifact_that_does_not_say_whose_indices_it_tells_of_is_refused(
    export, compiled, backend, device
):
    artifact = compiled(export(index, torch.tensor([0, 1])))
    del artifact.metadata["indices"]  # type: ignore[attr-defined]
    with pytest.raises(hp.ArtifactError, match="the artifact does not name its indices"):
        backend.load(artifact, device)
