"""An index that eager PyTorch refuses is refused by compiled code too; Inductor reads -1 as the last."""

import pytest
import torch

from hardpoint_cpu.indices import refuse_negative
from hardpoint_cpu.segment import from_program

TABLE = torch.arange(20.0).reshape(5, 4)
ROWS = torch.ones(2, 4)

# Name -> function of two indices, each below five.
FUNCTIONS = {
    "index_select": lambda i: TABLE.index_select(0, i) * 1.0,
    "index_copy": lambda i: TABLE.index_copy(0, i, ROWS) * 1.0,
    "index_add": lambda i: TABLE.index_add(0, i, ROWS, alpha=2) * 1.0,
    "embedding": lambda i: torch.nn.functional.embedding(i, TABLE) * 1.0,
}


@pytest.mark.parametrize("mode", ["eager", "inductor", "aot"])
def test_what_pytorch_refuses_is_refused_and_all_else_is_the_same(export, build, mode):
    def several(*indices):
        return tuple(f(i) for f, i in zip(FUNCTIONS.values(), indices, strict=True))

    good = [torch.tensor([0, 4]) for _ in FUNCTIONS]
    made = build(export(several, *good), mode=mode)
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


@pytest.mark.parametrize("mode", ["inductor", "aot"])
def test_within_control_flow_too_and_the_program_is_left_as_it_was(export, build, mode):
    def chosen(x, i):
        return torch.cond(
            x.sum() > 0, lambda x, i: x.index_select(0, i) * 1.0,
            lambda x, i: x.index_select(0, i) * 2.0, (x, i),
        )  # fmt: skip

    program = export(chosen, TABLE, torch.tensor([0, 1]))
    before = str(program.graph_module.code), [str(m.graph) for m in graphs(program)]
    made = build(program, mode=mode)
    assert before == (str(program.graph_module.code), [str(m.graph) for m in graphs(program)])
    for x in (TABLE, -TABLE):
        good = torch.tensor([4, 0])
        assert torch.equal(made(x, good)[0], chosen(x, good))
        with pytest.raises((IndexError, RuntimeError)):
            made(x, torch.tensor([-1, 0]))


def graphs(program):
    found = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    assert len(found) == 3
    return found


def test_what_the_model_holds_costs_nothing_where_none_is_negative(export):
    x = torch.ones(5, 4)
    for held, more in (([3, 0], 0), ([], 0), ([3, -1], 2)):
        places = torch.tensor(held, dtype=torch.int64)
        segment = from_program(export(lambda x, p=places: x.index_select(0, p), x))
        before = len(segment.graph.nodes)
        refuse_negative(segment)
        assert len(segment.graph.nodes) == before + more


def test_int32_indices(export, build):
    def pick(i):
        return TABLE.index_select(0, i) * 1.0

    made = build(export(pick, torch.tensor([0, 1], dtype=torch.int32)), mode="inductor")
    good = torch.tensor([4, 0], dtype=torch.int32)
    assert torch.equal(made(good)[0], pick(good))
    for bad in (-1, 5, -(2**31)):
        with pytest.raises((IndexError, RuntimeError)):
            made(torch.tensor([0, bad], dtype=torch.int32))
