"""What a program assumes of sizes is found at capture and checked at every call."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.export import Dim

import hardpoint as hp
from hardpoint.package.program_file import from_exported
from hardpoint.program.signature import from_json
from splitting import CASES, Scatter, registry

MOUNTED = registry()


def module(forward) -> nn.Module:
    return type("Small", (nn.Module,), {"forward": forward})().eval()


def compiled(model, args, dynamic):
    program = hp.capture(model, args, dynamic=dynamic, registry=MOUNTED)
    return compiled_program(program)


def compiled_program(program):
    plan = hp.plan(program, targets="a", partitioner=Scatter(0, 1, 1), registry=MOUNTED)
    return hp.compile(plan, registry=MOUNTED)


def even(self, x):
    return x * 2 if x.shape[0] % 2 == 0 else x * 3


def longer(self, x, y):
    return x.sum(0) if x.shape[0] > y.shape[0] else y.sum(0)


def single(self, x):
    return x * 2 if x.shape[0] == 1 else x * 3


def plain(self, x):
    return torch.softmax(x, -1).cumsum(1)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_model_that_does_not_look_at_its_sizes_runs_any_size_even_one(rows):
    model = module(plain)
    run = compiled(model, (torch.randn(3, 4, 2),), {"x": {0: "batch", 1: "seq"}})
    x = torch.randn(rows, rows, 2)
    torch.testing.assert_close(run(x), model(x), rtol=0, atol=0)


def test_an_empty_batch_runs():
    run = compiled(module(plain), (torch.randn(3, 4, 2),), {"x": {0: "batch"}})
    assert run(torch.empty(0, 4, 2)).shape == (0, 4, 2)


@pytest.mark.parametrize("name", ["bert", "vit", "llama", "resnet", "t5"])
def test_real_architectures_run_a_batch_of_one(name):
    case = CASES[name]
    args, kwargs = case.call(0)
    model = case.model()
    program = hp.capture(model, args, kwargs, dynamic=case.dynamic, registry=MOUNTED)
    one = {key: tensor[:1] for key, tensor in kwargs.items()}
    with torch.no_grad():
        want = model(**one)
    got = compiled_program(program)(**one)
    for key, value in want.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(got[key], value, rtol=1e-5, atol=1e-5)


def test_an_example_of_one_row_makes_no_program_of_one_row():
    model = module(plain)
    run = compiled(model, (torch.randn(1, 4, 2),), {"x": {0: "batch"}})
    x = torch.randn(5, 4, 2)
    torch.testing.assert_close(run(x), model(x))


def test_a_size_for_which_the_model_takes_another_way_is_refused():
    run = compiled(module(even), (torch.ones(4, 3),), {"x": {0: "rows"}})
    assert torch.equal(run(torch.ones(6, 3)), torch.full((6, 3), 2.0))
    with pytest.raises(hp.InputError) as error:
        run(torch.ones(5, 3))
    assert str(error.value) == (
        "the program was captured for sizes where (rows%2) == 0, got rows = 5\n"
        "  cause: the model's code decides by these sizes, and took another way with the examples\n"
        "  remedy: pass other sizes, or capture again with examples of these sizes"
    )


def test_two_sizes_that_the_model_compares_are_checked_together():
    model = module(longer)
    run = compiled(model, (torch.ones(5, 3), torch.ones(3, 3)), {"x": {0: "n"}, "y": {0: "m"}})
    assert torch.equal(run(torch.ones(9, 3), torch.ones(8, 3)), torch.full((3,), 9.0))
    with pytest.raises(hp.InputError, match="where m < n, got n = 3, m = 4"):
        run(torch.ones(3, 3), torch.ones(4, 3))


def test_a_model_that_treats_one_row_apart_refuses_one_row():
    run = compiled(module(single), (torch.ones(4, 3),), {"x": {0: "rows"}})
    assert torch.equal(run(torch.ones(2, 3)), torch.full((2, 3), 3.0))
    with pytest.raises(hp.InputError, match="rows != 1, got rows = 1"):
        run(torch.ones(1, 3))


def test_a_bound_becomes_the_range_of_its_size():
    program = hp.capture(
        module(lambda self, x: x * 2 if x.shape[0] < 10 else x), (torch.ones(4, 3),),
        dynamic={"x": {0: "rows"}}, registry=MOUNTED,
    )  # fmt: skip
    assert program.signature.symbols == {"rows": (0, 9)}
    assert program.signature.guards == ()
    with pytest.raises(hp.InputError, match=r"dimension 0 \(rows\) is 10, it must be 0 to 9"):
        compiled_program(program)(torch.ones(10, 3))


def test_one_name_for_two_sizes_makes_them_one():
    program = hp.capture(
        module(lambda self, x, y: (x.sum(0), y.sum(0))), (torch.ones(4, 3), torch.ones(4, 2)),
        dynamic={"x": {0: "rows"}, "y": {0: "rows"}}, registry=MOUNTED,
    )  # fmt: skip
    graph = program.exported.graph
    sizes = {str(n.meta["val"].shape[0]) for n in graph.nodes if n.op == "placeholder"}
    assert len(sizes) == 1
    with pytest.raises(hp.InputError, match=r"dimension 0 \(rows\) is 5, but x \(dimension 0\) has 4"):  # fmt: skip
        compiled_program(program)(torch.ones(4, 3), torch.ones(5, 2))


def test_dims_of_torch_export_keep_their_names_and_ranges():
    program = hp.capture(
        module(plain), (torch.randn(3, 4, 2),), dynamic=({0: Dim("batch", min=2, max=64)},),
        registry=MOUNTED,
    )  # fmt: skip
    assert program.signature.symbols == {"batch": (2, 64)}


def test_guards_survive_json():
    program = hp.capture(
        module(longer), (torch.ones(5, 3), torch.ones(3, 3)),
        dynamic={"x": {0: "n"}, "y": {0: "m"}}, registry=MOUNTED,
    )  # fmt: skip
    again = from_json(json.loads(json.dumps(program.signature.to_json())))
    assert again == program.signature
    assert again.guards == (("<", "m", "n"),)


@pytest.mark.parametrize("strict", [False, True])
def test_an_export_of_somebody_else_keeps_its_guards(strict):
    dims = {0: Dim.DYNAMIC}
    exported = torch.export.export(module(even), (torch.ones(4, 3),), dynamic_shapes=(dims,), strict=strict)  # fmt: skip
    run = compiled_program(from_exported(exported, "even"))
    assert torch.equal(run(torch.ones(6, 3)), torch.full((6, 3), 2.0))
    with pytest.raises(hp.InputError, match="%2"):
        run(torch.ones(5, 3))


def test_an_export_of_somebody_else_keeps_its_ranges():
    def bounded(self, x):
        torch._check(x.shape[0] <= 7)
        torch._check(x.shape[0] > 3)
        return x * 2

    exported = torch.export.export(module(bounded), (torch.ones(4, 3),), dynamic_shapes=({0: Dim.DYNAMIC},))  # fmt: skip
    run = compiled_program(from_exported(exported, "bounded"))
    for rows in (3, 8):
        with pytest.raises(hp.InputError):
            run(torch.ones(rows, 3))
    assert run(torch.ones(7, 3)).shape == (7, 3)


def test_an_export_with_related_sizes_keeps_the_relation():
    def related(self, x, y):
        return x + 1, y + 1

    rows = Dim("rows", min=2, max=50)
    exported = torch.export.export(
        module(related), (torch.ones(4, 3), torch.ones(8, 3)),
        dynamic_shapes=({0: rows}, {0: 2 * rows}),
    )  # fmt: skip
    run = compiled_program(from_exported(exported, "related"))
    assert run(torch.ones(5, 3), torch.ones(10, 3))[1].shape == (10, 3)
    with pytest.raises(hp.InputError):
        run(torch.ones(5, 3), torch.ones(9, 3))


def test_a_rank_of_dynamic_sizes_may_be_given_by_position_or_from_the_end():
    run = compiled(module(plain), (torch.randn(3, 4, 2),), ({-2: "seq"},))
    assert run(torch.randn(3, 6, 2)).shape == (3, 6, 2)


def test_one_example_tensor_for_two_arguments_makes_two_arguments():
    x = torch.ones(4, 3)
    run = compiled(module(lambda self, x, y: x * 2 + y.sum()), (x, x), {"x": {0: "rows"}})
    assert run(torch.ones(7, 3), x).shape == (7, 3)
    with pytest.raises(hp.InputError, match="input y: dimension 0 is 5, it must be 4"):
        run(torch.ones(7, 3), torch.ones(5, 3))
