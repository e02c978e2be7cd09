"""All that this plugin uses of PyTorch's ONNX exporter.

``torch.onnx.export`` is public, but takes 0.5 s for the smallest program, most of it for tables
that never change. Asking about single nodes needs its steps one by one: those are private, which is
why ``pyproject.toml`` holds PyTorch to one minor version, and nothing else here touches them.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

from hardpoint_onnxruntime.indices import decompose_refusing_negative, refuse_negative

# The exporter records what it is at in a module's global.
_TALKATIVE = ("torch.onnx", "onnx_ir", "onnxscript")
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """One export at a time, without remarks about libraries and types that are no one's concern."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = [(log, log.level) for log in map(logging.getLogger, _TALKATIVE)]
        for log, _ in before:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for log, level in before:
                log.setLevel(level)


@functools.cache
def _registry() -> Any:
    from torch.onnx._internal.exporter import _registration

    with quiet():
        return _registration.ONNXRegistry.from_torchlib()


@functools.cache
def _table() -> dict[Any, Callable[..., Any]]:
    from torch.onnx._internal.exporter import _decomp

    known = set(_decomp.get_onnx_implemented_overloads(_registry()))
    table: dict[Any, Callable[..., Any]] = _decomp.create_onnx_friendly_decomposition_table(known)
    decompose_refusing_negative(table)
    return table


def decompose(program: ExportedProgram) -> ExportedProgram:
    """``program`` in operators that the exporter knows, types promoted; a new program.

    Negative indices are replaced where PyTorch takes none: see indices.py.
    """
    from torch.fx.experimental import _config
    from torch.onnx._internal.exporter import _fx_passes

    # As the exporter does: sizes 0 and 1 of dynamic dimensions are no special cases.
    with quiet(), _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        made: ExportedProgram = program.run_decompositions(_table())
        _fx_passes.insert_type_promotion_nodes(made.graph_module)
        _fx_passes.remove_assertion_nodes(made.graph_module)
        refuse_negative(made)
    _name_results(made)
    return made


def _name_results(program: ExportedProgram) -> None:
    """Let the signature name what the graph gives now.

    Promotion puts a cast back to float16 or bfloat16 behind sums, and makes that the result; the
    signature, by which the exporter finds results, still names the sum: it would be float32.
    """
    results = program.graph.output_node().args[0]
    for spec, node in zip(program.graph_signature.output_specs, results, strict=True):
        if isinstance(node, Node) and isinstance(spec.arg, TensorArgument):
            spec.arg.name = node.name


def translate(decomposed: ExportedProgram, *, repaired: bool = True) -> Any:
    """A decomposed program as an ``onnx_ir.Model``, simplified as ``torch.onnx.export`` does it,
    and repaired where ONNX Runtime would lose a NaN.

    :param repaired: ``False`` for what will be quantized to integers, which hold no NaN.
    :raises Exception: whatever the exporter raises where it has no translation.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from torch.onnx._internal.exporter import _core

    from hardpoint_onnxruntime.fusible import fusible

    with quiet():
        made = _core._exported_program_to_onnx_program(decomposed, registry=_registry())
        made.optimize()
        fusible(made.model)
        if repaired:
            from hardpoint_onnxruntime.repairs import repair

            repair(made.model)
        RemoveUnusedNodesPass()(made.model)  # ONNX Runtime would compute them at each call
    return made.model


def serialized(model: Any) -> bytes:
    """An ``onnx_ir.Model`` as a file's bytes."""
    import onnx_ir as ir

    data: bytes = ir.serde.serialize_model(model).SerializeToString()
    return data


def program_of(graph: Graph, like: ExportedProgram) -> ExportedProgram:
    """A program of ``graph``, whose placeholders are all inputs; sizes range as in ``like``."""
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    results: Sequence[Node] = graph.output_node().args[0]  # type: ignore[assignment]
    signature = ExportGraphSignature(
        [InputSpec(InputKind.USER_INPUT, TensorArgument(name=n.name), None) for n in inputs],
        [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(name=n.name), None) for n in results],
    )
    call = ModuleCallSignature(
        inputs=[],
        outputs=[],
        in_spec=pytree.tree_flatten((tuple(range(len(inputs))), {}))[1],
        out_spec=pytree.tree_flatten(tuple(range(len(results))))[1],
    )
    return ExportedProgram(
        root={},
        graph=graph,
        graph_signature=signature,
        state_dict={},
        range_constraints=dict(like.range_constraints),
        module_call_graph=[ModuleCallEntry(fqn="", signature=call)],
    )
