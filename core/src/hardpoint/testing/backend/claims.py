"""What it says of a program's nodes, and whether that is true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from hardpoint.compiler.segment import compile_segment
from hardpoint.compiler.verify import reference_values, verify_segment
from hardpoint.errors import HardpointError
from hardpoint.planning.data import Segment
from hardpoint.planning.graph import compute_nodes
from hardpoint.runtime.step import OpenedSegment
from hardpoint.testing.backend.bench import Bench, bench_of
from hardpoint.testing.backend.chosen import Chosen, choose
from hardpoint.testing.backend.judge import agree
from hardpoint.testing.backend.split import FirstFit, only
from hardpoint.testing.backend.watch import cpu_kernels
from hardpoint.testing.check import check, expect, fail, skip_unless
from hardpoint.testing.models import MODELS
from hardpoint.testing.subject import Subject

# Enough to look at how segments run; these need no other library.
_FEW = ("convolutional", "decoder", "diffusion", "recurrent")
_NOTHING = "it claims no node of any of the kit's models"


class ClaimChecks:
    """``support()``, held against ``compile()`` and against a run."""

    @check("partitions")
    def test_answers_for_every_node(self, subject: Subject, figures: dict[str, Any]) -> None:
        """``support()`` claims each node of each model or says in words why not, always the same,
        and leaves the program as it is.
        """
        bench = bench_of(subject)
        for case in MODELS.values():
            if case.missing():
                continue
            chosen = choose(bench, case.name, {})
            before = str(chosen.program.exported.graph)
            again = bench.answer(chosen.program).support
            differ = chosen.support.supported ^ again.supported
            expect(
                not differ,
                f"asked twice about {case.title}, support() answers differently on "
                f"{sorted(differ)[:3]}",
            )
            expect(
                str(chosen.program.exported.graph) == before,
                f"support() changes the program that it is asked about ({case.title})",
            )
            figures[case.name] = {
                "operations": len(again.supported) + len(again.unsupported),
                "claimed": len(again.supported),
                "reasons": sorted(set(again.unsupported.values()))[:8],
            }

    @check("partitions")
    def test_claimed_nodes_run_alone(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Of each operator that it claims in a model, one node compiles alone and is right."""
        bench = bench_of(subject)
        tried: set[str] = set()
        for case in MODELS.values():
            if case.missing():
                continue
            chosen = choose(bench, case.name, {})
            reference = reference_values(chosen.program, chosen.program.example_inputs)
            for node in compute_nodes(chosen.program.exported):
                if node.name in chosen.support.supported and str(node.target) not in tried:
                    tried.add(str(node.target))
                    subject.progress(len(tried), 0, str(node.target))
                    _alone(bench, chosen, node.name, str(node.target), reference)
        skip_unless(tried, _NOTHING)
        figures["tried"] = sorted(tried)

    @check("partitions")
    def test_results_are_on_its_device(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Results of its segments are on the device that it declares."""
        bench = bench_of(subject)
        device = bench.device.torch_device
        figures |= {"device": device, "segments": 0}
        for title, segment, opened, inputs, want in _segments(bench):
            got = bench.call(opened, inputs)
            agree(got, want, bench.limit, f"{title}, its segment {segment.id}", device)
            figures["segments"] += 1
        skip_unless(figures["segments"], _NOTHING)

    @check("partitions")
    def test_no_silent_cpu_fallback(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Where ``cpu_kernels`` is not declared, a call runs none of PyTorch's CPU kernels."""
        bench = bench_of(subject)
        skip_unless(not bench.info.cpu_kernels, "it declares that it computes by CPU kernels")
        figures["segments"] = 0
        for title, segment, opened, inputs, _ in _segments(bench):
            bench.call(opened, inputs)  # what is made once may be made on the host
            with cpu_kernels(bench.device.torch_device) as seen:
                bench.call(opened, inputs)
            expect(
                not seen,
                lambda title=title, segment=segment, seen=seen: (  # type: ignore[misc]
                    f"{title}, its segment {segment.id}: a call ran PyTorch's own CPU kernels "
                    f"{dict(seen.most_common(6))}: a silent fallback. Leave these nodes to another "
                    "backend in support(), or declare BackendInfo(cpu_kernels=True)"
                ),
            )
            figures["segments"] += 1
        skip_unless(figures["segments"], _NOTHING)


def _alone(
    bench: Bench,
    chosen: Chosen,
    name: str,
    operator: str,
    reference: Mapping[str, torch.Tensor],
) -> None:
    """Compile one claimed node as a segment of its own, and compare it with eager."""
    plan = bench.plan(chosen.program, FirstFit(only(name)))
    segment = next(s for s in plan.segments if name in s.nodes)
    what = f"{operator} ({name} of {chosen.case.title}) is claimed, and alone it"
    try:
        with _opened(bench, segment, reference) as opened:
            verify_segment(segment, opened, reference, bench.limit)
    except HardpointError as error:
        fail(f"{what} fails: {error}")


def _segments(
    bench: Bench,
) -> Iterator[tuple[str, Segment, OpenedSegment, list[torch.Tensor], list[torch.Tensor]]]:
    """Its segments of a few models: title, segment, opened, inputs on its device, eager results."""
    for name in _FEW:
        chosen = choose(bench, name, {})
        if not chosen.claimed:
            continue
        reference = reference_values(chosen.program, chosen.program.example_inputs)
        for segment in bench.plan(chosen.program, FirstFit()).segments:
            if segment.target.backend == bench.name:
                with _opened(bench, segment, reference) as opened:
                    inputs = bench.placed([reference[n] for n in segment.inputs])
                    want = [reference[n] for n in segment.outputs]
                    yield chosen.case.title, segment, opened, inputs, want


@contextmanager
def _opened(
    bench: Bench, segment: Segment, reference: Mapping[str, torch.Tensor]
) -> Iterator[OpenedSegment]:
    examples = [reference[name] for name in segment.inputs]
    opened = compile_segment(segment, bench.registry, bench.precision, examples, bench.options)
    try:
        yield opened
    finally:
        opened.executable.close()
