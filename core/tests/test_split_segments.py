"""What a cut promises: every node once, no cycle, segments that are programs, tensors only."""

from __future__ import annotations

import io
import json

import pytest
import torch
from hypothesis import given, settings
from torch._export.verifier import Verifier
from torch.export.graph_signature import OutputKind

import hardpoint as hp
from hardpoint.compiler.wire import wire
from hardpoint.planning import compute_nodes
from hardpoint.program.program import lifted_inputs
from hardpoint.runtime import schedule as schedules
from small_models import CASES as SMALL
from splitting import TARGETS, Scatter, bounded, program, registry, scatters

MOUNTED = registry()
NAMES = [case.name for case in SMALL]
pytestmark = pytest.mark.filterwarnings("ignore:.*is in training mode")


def planned(name: str, partitioner: hp.Partitioner) -> hp.Plan:
    return hp.plan(program(name), targets=TARGETS, partitioner=partitioner, registry=MOUNTED)


@pytest.mark.parametrize("name", NAMES)
@settings(bounded, max_examples=4)
@given(partitioner=scatters)
def test_every_compute_node_is_in_exactly_one_segment_of_its_target(name, partitioner):
    plan = planned(name, partitioner)
    placed = [node for segment in plan.segments for node in segment.nodes]
    assert sorted(placed) == sorted(n.name for n in compute_nodes(plan.program.exported))
    for segment in plan.segments:
        inside = {n.name for n in compute_nodes(segment.program)}
        assert inside == set(segment.nodes)


@pytest.mark.parametrize("name", NAMES)
@settings(bounded, max_examples=4)
@given(partitioner=scatters)
def test_segments_run_in_order_and_read_only_what_is_there(name, partitioner):
    plan = planned(name, partitioner)
    graph = plan.program.exported.graph
    there = {n.name for n in graph.nodes if n.op == "placeholder"}
    for segment in plan.segments:
        assert set(segment.inputs) <= there
        assert not there & set(segment.outputs)
        there |= set(segment.outputs)
    wanted = {spec.arg.name for spec in plan.program.exported.graph_signature.output_specs}
    assert wanted <= there


@pytest.mark.parametrize("name", NAMES)
@settings(bounded, max_examples=4)
@given(partitioner=scatters)
def test_only_tensors_cross_and_no_segment_mutates(name, partitioner):
    for segment in planned(name, partitioner).segments:
        signature = segment.program.graph_signature
        nodes = {n.name: n for n in segment.program.graph.nodes}
        for crossing in (*signature.user_inputs, *signature.user_outputs):
            assert isinstance(nodes[crossing].meta["val"], torch.Tensor), crossing
        assert {s.kind for s in signature.output_specs} <= {OutputKind.USER_OUTPUT}
        assert signature.user_inputs == segment.inputs
        assert segment.outputs == signature.user_outputs


@pytest.mark.parametrize("name", NAMES)
@settings(bounded, max_examples=2)
@given(partitioner=scatters)
def test_every_segment_is_a_valid_program_that_survives_saving(name, partitioner):
    plan = planned(name, partitioner)
    values = plan.program.run(plan.program.example_inputs)
    for segment in plan.segments:
        segment.program.graph.lint()
        Verifier().check(segment.program)
        if any("Higher" in type(n.target).__name__ for n in compute_nodes(segment.program)):
            assert segment.program.graph_module.code  # its sub-graphs came along
        file = io.BytesIO()
        torch.export.save(segment.program, file)
        file.seek(0)
        loaded = torch.export.load(file)
        if name in ("random_numbers", "dropout_in_training"):
            continue
        with torch.no_grad():
            inputs = lifted_inputs(loaded, [values[i] for i in segment.inputs])
            got = torch.fx.Interpreter(loaded.graph_module).run(*inputs)
        for output, value in zip(segment.outputs, got, strict=True):
            torch.testing.assert_close(value, values[output], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
@settings(bounded, max_examples=4)
@given(partitioner=scatters)
def test_the_schedule_reads_no_freed_slot_and_survives_json(name, partitioner):
    schedule = wire(planned(name, partitioner))
    assert schedules.from_json(json.loads(json.dumps(schedule.to_json()))) == schedule
    kept = {*schedule.results, *schedule.held.values(), *range(schedule.inputs)}
    kept |= {slot for slot, _ in (*schedule.state_writes, *schedule.input_writes)}
    freed: set[int] = set()
    made: set[int] = set()
    for step in schedule.steps:
        assert not freed & set(step.inputs)
        made |= set(step.outputs)
        freed |= set(step.frees)
    assert freed == made - kept  # whatever is not needed in the end is let go


def test_a_plan_is_the_same_every_time():
    first, again = (planned("grouped_attention", Scatter(7, 3, 2)).to_json() for _ in range(2))
    assert first == again


def test_segments_of_one_target_that_may_run_together_are_merged():
    plan = hp.plan(program("several_results"), targets="a", partitioner=Scatter(0, 1, 1), registry=MOUNTED)  # fmt: skip
    assert len(plan.segments) == 1


def test_shared_weights_stay_one_tensor_in_all_segments():
    plan = planned("tied_weights", Scatter(3, 4, 1))
    held: dict[int, set[str]] = {}
    for segment in plan.segments:
        for tensor in segment.program.state_dict.values():
            held.setdefault(tensor.data_ptr(), set()).add(segment.id)
    assert any(len(ids) > 1 for ids in held.values())
    total = {t.data_ptr() for t in plan.program.exported.state_dict.values()}
    assert held.keys() <= total


def test_a_segment_holds_the_weights_that_it_uses_and_no_others():
    for segment in planned("conv_norm_eval", Scatter(5, 3, 1)).segments:
        targets = {s.target for s in segment.program.graph_signature.input_specs if s.target}
        assert targets == {*segment.program.state_dict, *segment.program.constants}


@pytest.mark.parametrize("broken", [{}, {"slots": 3}, [], None, 4, {"steps": 3}])
def test_a_schedule_that_is_none_is_refused_with_one_error(broken):
    with pytest.raises(hp.PackageError, match="schedule is malformed"):
        schedules.from_json(broken)


def test_a_schedule_that_reads_an_empty_slot_is_refused():
    data = wire(planned("tied_weights", Scatter(3, 4, 1))).to_json()
    data["steps"][0]["inputs"] = [data["slots"] - 1]
    with pytest.raises(hp.PackageError) as error:
        schedules.from_json(data)
    assert str(error.value) == (
        "the package's schedule is malformed\n"
        f"  cause: ValueError: s0 reads slot {data['slots'] - 1}, which is empty then\n"
        "  remedy: get the file again from its source, or save it again"
    )


def test_a_schedule_that_writes_an_input_is_refused():
    data = wire(planned("tied_weights", Scatter(3, 4, 1))).to_json()
    data["steps"][0]["outputs"] = [0]
    with pytest.raises(hp.PackageError, match="s0 writes slot 0"):
        schedules.from_json(data)
