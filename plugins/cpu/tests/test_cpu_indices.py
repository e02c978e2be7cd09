"""An index that eager PyTorch refuses is refused by compiled code too; Inductor reads -1 as the last."""

import pytest
import torch

TABLE = torch.arange(20.0).reshape(5, 4)
ROWS = torch.ones(2, 4)

# Name -> function of two indices, and how many places there are.
FUNCTIONS = {
    "index_select": lambda i: TABLE.index_select(0, i) * 1.0,
    "index_copy": lambda i: TABLE.index_copy(0, i, ROWS) * 1.0,
    "index_add": lambda i: TABLE.index_add(0, i, ROWS, alpha=2) * 1.0,
    "embedding": lambda i: torch.nn.functional.embedding(i, TABLE) * 1.0,
}


class Calls(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def exported(function, *inputs):
    return torch.export.export(Calls(function), inputs, strict=False).run_decompositions({})


@pytest.mark.parametrize("mode", ["eager", "inductor", "aot"])
def test_what_pytorch_refuses_is_refused_and_all_else_is_the_same(build, mode):
    def several(*indices):
        return tuple(f(i) for f, i in zip(FUNCTIONS.values(), indices, strict=True))

    good = [torch.tensor([0, 4]) for _ in FUNCTIONS]
    made = build(exported(several, *good), mode=mode)
    for got, right in zip(made(*good), several(*good), strict=True):
        assert torch.equal(got, right)
    for at, (name, function) in enumerate(FUNCTIONS.items()):
        for bad in ([-1, 0], [0, 5], [0, -6], [0, -(2**63)]):
            given = [torch.tensor(bad) if i == at else g for i, g in enumerate(good)]
            with pytest.raises((IndexError, RuntimeError)):
                function(given[at])
            with pytest.raises((IndexError, RuntimeError)):
                made(*given)
                pytest.fail(f"{name} took {bad}")
    assert torch.equal(made(*good)[0], several(*good)[0])


def test_int32_indices_and_those_that_the_model_holds(build):
    held = torch.tensor([3, 0])

    def both(i):
        return TABLE.index_select(0, i), TABLE.index_select(0, held)

    made = build(exported(both, torch.tensor([0, 1], dtype=torch.int32)), mode="inductor")
    good = torch.tensor([4, 0], dtype=torch.int32)
    assert all(map(torch.equal, made(good), both(good)))
    with pytest.raises((IndexError, RuntimeError)):
        made(torch.tensor([0, -1], dtype=torch.int32))
