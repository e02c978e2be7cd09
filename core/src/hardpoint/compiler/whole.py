"""The whole compiled model against eager PyTorch: numbers, state, what outlives a call."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch.export.graph_signature import OutputKind

from hardpoint.compiler.lasting import Lasting
from hardpoint.compiler.made import Made
from hardpoint.compiler.verify import reference_values
from hardpoint.errors import HardpointWarning, VerificationError
from hardpoint.numerics import Difference, compare
from hardpoint.planning.extract import mutable_state
from hardpoint.planning.graph import compute_nodes, is_random
from hardpoint.program.program import Program
from hardpoint.runtime.model import CompiledModel

Differences = list[tuple[str, Difference]]


def verify_whole(
    model: CompiledModel,
    program: Program,
    reference: Mapping[str, torch.Tensor],
    examples: Sequence[torch.Tensor],
    limit: float,
    made: Sequence[Made],
    where: str = "",
) -> Differences:
    """Run the whole model on the examples; compare results, changed inputs and state.

    A model with state runs a second time, from the state of the first: one that was frozen when
    the model was compiled shows there, and only there. The greater errors of the two count: who
    sets no limit here (measuring) judges by the figures.

    :param where: what stands behind the cause of an error, if these are not the examples.
    :raises VerificationError: an error above ``limit``.
    :raises ContractViolation: a segment's call overwrites what its call before gave.
    """
    random = any(is_random(n) for n in compute_nodes(program.exported))
    state = mutable_state(program.exported)
    with model.preserving_state():
        results = _run(model, program, reference, examples, Lasting(made))
        if random:
            return []
        cause = "each segment alone is within the limit; their errors add up"
        if where:
            cause = f"on the examples that it was compiled with it is right{where}"
        _check(results, limit, cause)
        if state:
            now = {name: model.held[name].clone() for name in state}
            second = program.run([t.clone() for t in examples], now)
            again = _run(model, program, second, examples)
            _check(
                again, limit, "it is right on the first call, and on the second, which starts from "
                f"the state that the first has left, it is not{where}",
            )  # fmt: skip
            results = worse(results, again, limit)
    return results


def verify_held_out(
    model: CompiledModel, program: Program, limit: float, made: Sequence[Made], found: Differences
) -> Differences:
    """The same on the program's check inputs, if it has any; the greater errors of both.

    :param found: on the examples.
    """
    if not program.check_inputs:
        return found
    reference = reference_values(program, program.check_inputs)
    more = verify_whole(
        model, program, reference, program.check_inputs, limit, made, "; on check_inputs it is not"
    )
    return worse(found, more, limit)


def worse(one: Differences, other: Differences, limit: float) -> Differences:
    """Of each result the greater difference; one that hides behind its small size goes before."""
    pairs = zip(one, other, strict=True)
    return [max(pair, key=lambda row: (row[1].hidden(limit), row[1].error)) for pair in pairs]


def _run(
    model: CompiledModel,
    program: Program,
    reference: Mapping[str, torch.Tensor],
    examples: Sequence[torch.Tensor],
    lasting: Lasting | None = None,
) -> Differences:
    inputs = [t.clone() for t in examples]
    signature = program.exported.graph_signature
    users = list(signature.user_inputs)
    results: Differences = []
    got = iter(zip(program.signature.results, model.run(inputs, lasting), strict=True))
    for spec in signature.output_specs:
        if spec.kind is OutputKind.USER_OUTPUT:
            described, value = next(got)
            label = described.name
        elif spec.kind is OutputKind.USER_INPUT_MUTATION:
            value = inputs[users.index(str(spec.target))]
            label = f"changed input {spec.target}"
        else:
            label, value = f"state {spec.target}", model.held[str(spec.target)]
        results.append((label, compare(value, reference[spec.arg.name])))
    return results


def _check(results: Differences, limit: float, cause: str) -> None:
    for label, difference in results:
        if not difference.error <= limit:
            raise VerificationError(
                f"the compiled model gives wrong numbers: error {difference.error:.3g} in {label}, "
                f"at most {limit:.3g} is allowed",
                cause=cause,
                remedy="ask for another precision=, or allow more with max_error=",
            )


def warn_of_hidden(name: str, results: Differences, limit: float, stacklevel: int) -> None:
    """Tell of results that are accepted only because they are small.

    :param name: of the program.
    """
    for label, difference in results:
        if difference.hidden(limit):
            warnings.warn(
                f"{name}: {label} is within max_error={limit:.3g}, but its error is "
                f"{difference.relative:.0%} of its greatest value (cosine "
                f"{difference.cosine:.6f}): below 1 the limit is absolute, and these values are "
                "smaller than what it lets pass. Remedy: give a max_error= that suits their size, "
                "or scale the result",
                HardpointWarning,
                stacklevel=stacklevel + 1,
            )


def eager_results(
    program: Program, reference: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Eager's flat results."""
    specs = program.exported.graph_signature.output_specs
    return tuple(reference[s.arg.name].detach() for s in specs if s.kind is OutputKind.USER_OUTPUT)
