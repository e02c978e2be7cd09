"""Embedding tables in few bits; one that is the head's weight too is held once."""

import ort_programs as shared
import pytest
import torch
from torch import nn

from hardpoint import CompileOptions, InputError


class Tied(nn.Module):
    def __init__(self, rows=320, width=64):
        super().__init__()
        self.table, self.layer = nn.Embedding(rows, width), nn.Linear(width, width)

    def forward(self, words):
        return nn.functional.linear(self.layer(self.table(words)), self.table.weight)


WORDS = torch.randint(0, 320, (2, 5))


def compiled(model, backend, cpu, precision="int8w", words=WORDS, dynamic=None, **options):
    program = shared.exported(model, words, dynamic=dynamic)
    return backend.compile(program, cpu, CompileOptions(precision, (words,), options))


def error(got, want):
    return float((got - want).abs().max() / want.abs().max())


@pytest.fixture(scope="module")
def tied():
    torch.manual_seed(0)
    return Tied().eval()


def test_a_tied_table_is_held_once(tied, backend, cpu):
    made = compiled(tied, backend, cpu)
    one = sum(p.numel() for p in tied.parameters())
    assert sum(t.nbytes for t in made.weights.values()) < 1.2 * one
    run = backend.load(made, cpu)
    assert run.facts()["precision"] == "int8w"
    with torch.no_grad():
        assert 0 < error(run(WORDS)[0], tied(WORDS)) < 0.02


def test_its_rows_are_what_the_head_multiplies_with(backend, cpu):
    torch.manual_seed(0)
    table = nn.Embedding(128, 64)

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = table

        def forward(self, words, x):
            return self.table(words), nn.functional.linear(x, self.table.weight)

    words, eye = torch.arange(128), torch.eye(64)
    program = shared.exported(Rows(), words, eye)
    run = backend.load(backend.compile(program, cpu, CompileOptions("int8w")), cpu)
    rows, columns = run(words, eye)
    torch.testing.assert_close(rows, columns.t())
    assert 0 < error(rows, table.weight.detach()) < 0.01


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 3), (0,)])
def test_indices_may_have_any_shape(shape, tied, backend, cpu):
    words = torch.randint(0, 320, shape)
    run = backend.load(compiled(tied, backend, cpu, words=words), cpu)
    with torch.no_grad():
        want = tied(words)
    [got] = run(words)
    assert got.shape == want.shape
    assert not words.numel() or 0 < error(got, want) < 0.02


def test_indices_may_have_any_size(tied, backend, cpu):
    count = torch.export.Dim("count", min=2, max=64)
    dynamic = {"words": {1: count}}
    run = backend.load(compiled(tied, backend, cpu, dynamic=dynamic), cpu)
    words = torch.randint(0, 320, (2, 9))
    with torch.no_grad():
        assert 0 < error(run(words)[0], tied(words)) < 0.02


@pytest.mark.parametrize(
    ("precision", "width", "times"), [("int4w", 64, 1.9), ("int8w", 72, 3)],
    ids=["in four bits, the table has eight", "blocks that are no part of a row"],
)  # fmt: skip
def test_else_the_table_is_held_beside_the_head(precision, width, times, backend, cpu):
    torch.manual_seed(0)
    model = Tied(width=width).eval()
    made = compiled(model, backend, cpu, precision)
    size = sum(t.nbytes for t in made.weights.values())
    assert 1.4 * 320 * width < size < times * 320 * width
    with torch.no_grad():
        limit = 0.3 if precision == "int4w" else 0.02
        assert 0 < error(backend.load(made, cpu)(WORDS)[0], model(WORDS)) < limit


class Linears(nn.Module):
    """The usual tie; and two heads, one with a bias."""

    def __init__(self, heads):
        super().__init__()
        self.table = nn.Embedding(320, 256)
        self.heads = nn.ModuleList(nn.Linear(256, 320, bias=bool(i)) for i in range(heads))
        for head in self.heads:
            head.weight = self.table.weight

    def forward(self, words):
        x = self.table(words)
        return [head(x) for head in self.heads]


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("activations", "block"), [("fp32", 32), ("int8", 128), ("int8", 256)])
def test_all_heads_share_the_table(heads, activations, block, backend, cpu):
    torch.manual_seed(0)
    model = Linears(heads).eval()
    made = compiled(model, backend, cpu, activations=activations, block=block)
    assert sum(t.nbytes for t in made.weights.values()) < 1.2 * model.table.weight.numel()
    run = backend.load(made, cpu)
    with torch.no_grad():
        for got, want in zip(run(WORDS), model(WORDS), strict=True):
            assert 0 < error(got, want) < 0.03


def test_two_lookups_share_the_table(backend, cpu):
    torch.manual_seed(0)
    table = nn.Embedding(320, 64)
    twice = nn.Module()
    twice.table, twice.forward = table, lambda a: table(a) + table(a + 1)
    words = WORDS % 300
    made = compiled(twice.eval(), backend, cpu, words=words)
    assert sum(t.nbytes for t in made.weights.values()) < 1.1 * table.weight.numel()
    with torch.no_grad():
        assert 0 < error(backend.load(made, cpu)(words)[0], twice.forward(words)) < 0.02


@pytest.mark.parametrize("index", [-1, 320])
def test_an_index_out_of_range_is_refused(index, tied, backend, cpu):
    run = backend.load(compiled(tied, backend, cpu), cpu)
    with pytest.raises(InputError):
        run(torch.full_like(WORDS, index))
