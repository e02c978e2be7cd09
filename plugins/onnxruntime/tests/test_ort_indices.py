"""An index that PyTorch refuses is refused: ONNX Runtime counts negative ones from the end."""

import ort_programs as shared
import pytest
import torch
import torch.nn.functional as F

import hardpoint as hp
from hardpoint import InputError
from hardpoint_onnxruntime import exporter

TABLE = torch.arange(20.0).reshape(5, 4)
ONES, COLUMN = torch.ones(2, 4), torch.ones(2, 1)

# Name -> function of two indices, how many places there are, and whether -1 is the last.
FUNCTIONS = {
    "embedding": (lambda i: F.embedding(i, TABLE), 5, False),
    "embedding_bag": (lambda i: F.embedding_bag(i.view(1, -1), TABLE), 5, False),
    "index_select": (lambda i: TABLE.index_select(0, i), 5, False),
    "gather": (lambda i: TABLE[:2].gather(1, i.view(-1, 1)), 4, False),
    "scatter": (lambda i: TABLE.scatter(1, i.view(-1, 1), COLUMN), 4, False),
    "scatter of a number": (lambda i: TABLE.scatter(1, i.view(-1, 1), 7.0), 4, False),
    "scatter_add": (lambda i: TABLE.scatter_add(1, i.view(-1, 1), COLUMN), 4, False),
    "scatter_reduce": (lambda i: TABLE.scatter_reduce(1, i.view(-1, 1), COLUMN, "amax"), 4, False),
    "index_copy": (lambda i: TABLE.index_copy(0, i, ONES), 5, False),
    "index_add": (lambda i: TABLE.index_add(0, i, ONES, alpha=2), 5, False),
    "nll_loss": (lambda i: F.nll_loss(TABLE[:2], i, reduction="none"), 4, False),
    "cross_entropy": (lambda i: F.cross_entropy(TABLE[:2], i), 4, False),
    "x[i]": (lambda i: TABLE[i] * 1.0, 5, True),
    "x[i] = y": (lambda i: torch.index_put(TABLE, (i,), ONES), 5, True),
    "index_fill": (lambda i: TABLE.index_fill(0, i, 7.0), 5, True),
    "take": (lambda i: TABLE.take(i), 20, True),
}
# PyTorch takes int32 in few; of those, ONNX Runtime declines x[i] and embedding_bag.
INT32 = ("embedding", "index_select", "gather", "scatter_add", "index_add")
CASES = [(name, torch.int64) for name in FUNCTIONS] + [(name, torch.int32) for name in INT32]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=str)
def test_what_pytorch_refuses_is_refused_and_all_else_is_the_same(name, dtype, opened, reasons):
    function, places, counts_back = FUNCTIONS[name]
    first = torch.tensor([0, 1], dtype=dtype)
    program = shared.exported(function, first)
    assert not reasons(program)
    made = opened(program)
    for good in [[0, places - 1], *([[-1, -places]] if counts_back else [])]:
        ids = torch.tensor(good, dtype=dtype)
        torch.testing.assert_close(made(ids)[0], function(ids))
    least = -places - 1 if counts_back else -1
    for bad in ([0, places], [places + 1000, 0], [0, least], [torch.iinfo(dtype).min, 0]):
        ids = torch.tensor(bad, dtype=dtype)
        with pytest.raises((IndexError, RuntimeError)):
            function(ids)
        with pytest.raises(InputError, match="an index is out of range"):
            made(ids)
    torch.testing.assert_close(made(first)[0], function(first))


@pytest.mark.parametrize("ignored", [-100, -1, 2])
def test_the_target_that_is_to_be_ignored_is(ignored, opened):
    def loss(targets):
        return F.cross_entropy(TABLE, targets, ignore_index=ignored, reduction="sum")

    targets = torch.tensor([0, ignored, 1, ignored, 3])
    made = opened(shared.exported(loss, targets))
    torch.testing.assert_close(made(targets)[0], loss(targets))
    with pytest.raises(InputError):
        made(torch.tensor([0, ignored, -2, 1, 1]))


def test_the_refusal_names_the_index_and_its_operator(opened):
    made = opened(shared.exported(FUNCTIONS["embedding"][0], torch.tensor([0, 1])))
    for bad, named in ((-7, "a negative index"), (5, "the index 5")):
        with pytest.raises(InputError) as caught:
            made(torch.tensor([0, bad]))
        assert str(caught.value) == (
            "an index is out of range\n"
            f"  cause: {named} of node_embedding has no place in its tensor\n"
            "  remedy: check the inputs that the index is made of"
        )


def test_an_index_that_the_model_holds_costs_nothing():
    class Held(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("places", torch.tensor([3, 0]))

        def forward(self, x, i):
            return x.index_select(0, self.places), x.index_select(0, i)

    program = shared.exported(Held(), TABLE, torch.tensor([1]))
    targets = [str(n.target) for n in exporter.decompose(program).graph.nodes]
    assert targets.count("aten.masked_fill.Scalar") == 1
    assert "aten.masked_fill.Scalar" not in [str(n.target) for n in program.graph.nodes]


def test_an_index_that_the_model_writes_to_is_not_held():
    class Written(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("places", torch.tensor([3, 0]))

        def forward(self, x):
            self.places.sub_(1)
            return x.index_select(0, self.places)

    targets = [
        str(n.target) for n in exporter.decompose(shared.exported(Written(), TABLE)).graph.nodes
    ]
    assert targets.count("aten.masked_fill.Scalar") == 1


def test_what_does_not_look_at_its_indices_is_not_claimed(reasons):
    def unpool(x, i):
        return F.max_unpool2d(x, i, 2)

    x, i = F.max_pool2d(torch.randn(1, 2, 4, 4), 2, return_indices=True)
    assert reasons(shared.exported(unpool, x, i)) == {
        "aten.max_unpool2d.default": "aten.max_unpool2d.default: with an index out of range ONNX "
        "Runtime writes another place, in silence"
    }
    target = torch.tensor([[2, 0, -1, 1]])
    found = reasons(shared.exported(F.multilabel_margin_loss, torch.randn(1, 4), target))
    assert [reason.partition(": ")[2] for reason in found.values()] == [
        "its targets end at a -1, which ONNX Runtime takes for a class"
    ]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_model_refuses_too_whole_and_from_its_package(tmp_path, precision):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = torch.nn.Embedding(50, 16), torch.nn.Linear(16, 4)

        def forward(self, ids):
            return self.head(self.table(ids))

    torch.manual_seed(0)
    ids = torch.tensor([[1, 2, 49]])
    plan = hp.plan(hp.capture(Net().eval(), (ids,)), targets="onnxruntime")
    model = hp.compile(plan, precision=precision)
    for each in (model, hp.load(model.save(tmp_path / "net.pt2"))):
        assert each(ids).shape == (1, 3, 4)
        for bad in (50, -1):
            with pytest.raises(InputError, match="an index is out of range"):
                each(torch.tensor([[1, 2, bad]]))
