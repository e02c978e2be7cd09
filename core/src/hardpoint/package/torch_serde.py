"""The only place that touches PyTorch's private serialization code. Checked against torch 2.13.0.

What is used of ``torch._export.serde``: the dataclasses of ``schema`` (major version 8), the
serializer of graphs, and the deserializer, fed with dataclasses that :mod:`schema_reader` built and
with tensors that are mapped already; so no reader of PyTorch ever sees the file. Two of its habits
are relied upon: a size expression that is a sympy object already is not parsed again, and empty
example inputs are not read.
"""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._export.serde import schema, serialize as torch_serialize
from torch._export.serde.union import _Union
from torch.export import ExportedProgram

from hardpoint.package import graph_rules, symbols
from hardpoint.package.refusal import MalformedError
from hardpoint.package.schema_reader import SchemaReader
from hardpoint.package.tensors import Ref

_serde: Any = torch_serialize
_DTYPE_NAMES: Mapping[Any, str] = {
    kind: str(dtype).removeprefix("torch.")
    for dtype, kind in torch_serialize._TORCH_TO_SERIALIZE_DTYPE.items()
}
_DTYPE_NUMBERS: Mapping[str, int] = {name: int(kind) for kind, name in _DTYPE_NAMES.items()}
_OPERATOR = re.compile(r"torch\.ops\.([A-Za-z_]\w*)\.([A-Za-z_]\w*)(?:\.([A-Za-z_]\w*))?", re.ASCII)
_SYMBOLIC = re.compile(r"torch\.(_sym_sqrt|sym_[a-z]+)", re.ASCII)
_ARITHMETIC = frozenset(
    {f"_operator.{name}" for name in (
        *("eq", "ne", "le", "ge", "lt", "gt", "neg", "pos", "mul", "add", "sub", "floordiv", "mod"),
        *("pow", "truediv", "and_", "or_", "not_", "lshift", "rshift", "getitem", "abs"),
    )}
    | {"math.trunc", "math.ceil", "math.floor"}
)  # fmt: skip
# Operators that open files named by their arguments: no model needs them.
_TOUCH_FILES = frozenset({"aten.from_file", "aten.save", "debugprims.load_tensor"})
_SHARE_THE_MODEL = "load it with the torch that wrote it and save it again with this one"


def graph_json(exported: ExportedProgram) -> bytes:
    """The program's graph and signature, without weights and without what differs between runs.

    :raises MalformedError: it would be refused when read.
    :raises Exception: whatever PyTorch's serializer raises for what it cannot express.
    """
    serialized = _serde.ExportedProgramSerializer().serialize(
        exported,
        serialize_state_dict=False,
        serialize_constants=False,
        serialize_example_inputs=False,
    )
    plain = _serde._dataclass_to_dict(serialized.exported_program)
    for node in _nodes(plain["graph_module"]["graph"]):
        metadata = node["metadata"]
        node["metadata"] = {k: metadata[k] for k in graph_rules.KEPT_METADATA if k in metadata}
    text: str = json.dumps(plain, cls=_serde.EnumEncoder, allow_nan=False)
    # What cannot be read back must not be written: the rules are the same on both sides.
    _reader().read(schema.ExportedProgram, json.loads(text))
    return text.encode()


def _nodes(graph: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a graph in its JSON form, and of the graphs in their arguments."""
    for node in graph["nodes"]:
        yield node
        for argument in node["inputs"]:
            inner = argument["arg"].get("as_graph")
            if inner is not None:
                yield from _nodes(inner["graph"])


def build_program(
    data: object, state_dict: Mapping[str, torch.Tensor], constants: Mapping[str, torch.Tensor]
) -> ExportedProgram:
    """The program that :func:`graph_json` wrote as ``data``, on these tensors.

    :raises MalformedError: it breaks a rule, or PyTorch cannot make a program of it.
    """
    stored = _reader().read(schema.ExportedProgram, data)
    if stored.schema_version.major != schema.SCHEMA_VERSION[0]:
        raise MalformedError(
            f"its program is of schema {stored.schema_version.major} (torch "
            f"{stored.torch_version}); torch {torch.__version__} reads schema "
            f"{schema.SCHEMA_VERSION[0]}",
            remedy=_SHARE_THE_MODEL,
        )
    # Only the root's calling convention is needed; those of submodules serve to rebuild modules.
    graph_module = stored.graph_module
    roots = [entry for entry in graph_module.module_call_graph if entry.fqn == ""]
    if len(roots) != 1 or roots[0].signature is None:
        raise MalformedError("its program does not say how it is called")
    graph_module.module_call_graph = roots
    try:
        program: ExportedProgram = _serde.ExportedProgramDeserializer().deserialize(
            stored, dict(state_dict), dict(constants), b""
        )
    except MalformedError:
        raise
    except Exception as error:
        # PyTorch raises any class here, with pages of text; the last line says what was wrong.
        lines = [line for line in str(error).splitlines() if line.strip()]
        last = lines[-1].strip() if lines else ""
        raise MalformedError(
            f"PyTorch cannot make a program of it: {type(error).__name__}: {last[:300]}"
        ) from error
    _drop_unused_results(program)
    return program


def _drop_unused_results(program: ExportedProgram) -> None:
    """PyTorch's reader makes a node for each of several results, also for those that nobody uses.

    They were not in the program, and a backend that is asked for them may not have them: ONNX
    Runtime gives a batch norm's unused statistics another shape.
    """
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in [n for n in module.graph.nodes if n.target is operator.getitem]:
                if not node.users:
                    module.graph.erase_node(node)
            module.recompile()


def payload_json(tensors: Mapping[str, torch.Tensor], refs: Mapping[str, Ref]) -> bytes:
    """PyTorch's description of where the weights (or constants) of a program lie."""
    config = {
        name: {
            "path_name": refs[name]["entry"].rpartition("/")[2],
            "is_param": isinstance(tensor, torch.nn.Parameter),
            "use_pickle": False,
            "tensor_meta": _tensor_meta(tensor, refs[name]),
        }
        for name, tensor in tensors.items()
    }
    return json.dumps({"config": config}).encode()


def _tensor_meta(tensor: torch.Tensor, ref: Ref) -> dict[str, object]:
    return {
        "dtype": _DTYPE_NUMBERS[ref["dtype"]],
        "sizes": [{"as_int": size} for size in ref["shape"]],
        "requires_grad": tensor.requires_grad,
        "device": {"type": tensor.device.type, "index": tensor.device.index},
        "strides": [{"as_int": step} for step in ref["strides"]],
        "storage_offset": {"as_int": ref["offset"]},
        "layout": int(schema.Layout.Strided),
    }


@dataclass(frozen=True, slots=True)
class Payload:
    """One weight or constant, as PyTorch describes it."""

    ref: Ref
    device: torch.device
    is_parameter: bool
    requires_grad: bool


def read_payloads(data: object, folder: str) -> Iterator[tuple[str, Payload]]:
    """What :func:`payload_json` wrote as ``data``, by name; the entries lie in ``folder``.

    :raises MalformedError: it breaks a rule, or would have to be unpickled.
    """
    for name, payload in _reader().read(schema.PayloadConfig, data).config.items():
        meta = payload.tensor_meta
        if payload.use_pickle or meta is None:
            graph_rules.custom_object(name)
        if meta.layout is not schema.Layout.Strided or meta.dtype not in _DTYPE_NAMES:
            raise MalformedError(f"the tensor {name!r} has a layout or dtype that cannot be mapped")
        ref: Ref = {
            "entry": folder + payload.path_name,
            "dtype": _DTYPE_NAMES[meta.dtype],
            "shape": [_plain_int(size) for size in meta.sizes],
            "strides": [_plain_int(step) for step in meta.strides],
            "offset": _plain_int(meta.storage_offset),
        }
        yield name, Payload(ref, _device(meta.device), payload.is_param, meta.requires_grad)


def _device(stored: Any) -> torch.device:
    try:
        return torch.device(stored.type, stored.index or 0) if stored.type != "cpu" else _CPU
    except RuntimeError as error:
        raise MalformedError(f"it names the device {stored.type!r}: {error}") from None


_CPU = torch.device("cpu")


def _plain_int(value: Any) -> int:
    if value.type != "as_int":
        raise MalformedError("a weight of the program has a symbolic size")
    size: int = value.as_int
    return size


@functools.cache
def _operator(target: str) -> str:
    """``target``, which names an operator that is registered here."""
    if target in _ARITHMETIC or (_SYMBOLIC.fullmatch(target) and _is_symbolic(target)):
        return target
    match = _OPERATOR.fullmatch(target)
    if match is None:
        raise MalformedError(
            f"{target!r:.200} stands in the program where an operator should stand"
        )
    namespace, name, overload = match.groups()
    shown = f"{namespace}.{name}"
    if shown in _TOUCH_FILES:
        raise MalformedError(f"the program uses the operator {shown}, which opens files")
    try:
        found: object = getattr(getattr(torch.ops, namespace), name)
        if overload is not None:
            found = getattr(found, overload)
    except AttributeError:
        raise MalformedError(
            f"the program uses the operator {shown}, which is not registered here",
            remedy=f"import the library that registers {namespace!r} operators, then load again",
        ) from None
    if not isinstance(found, torch._ops.OpOverload | torch._ops.HigherOrderOperator):
        raise MalformedError(f"{target!r:.200} is not an operator")
    return target


def _is_symbolic(target: str) -> bool:
    return operator.attrgetter(target.removeprefix("torch."))(torch) in torch_serialize._SYM_OPS


def _nothing(kind: Callable[[], Any]) -> Callable[[Any], Any]:
    """For a field that is not needed, whatever the file says."""
    return lambda _: kind()


@functools.cache
def _reader() -> SchemaReader:
    rules: dict[str, graph_rules.Rule] = {
        **graph_rules.RULES,
        "SymExpr.expr_str": symbols.expression,
        "ExportedProgram.range_constraints{}": symbols.range_key,
        "ExportedProgram.guards_code": symbols.check_guard,
        "Node.target": _operator,
        "Argument.as_operator": _operator,
    }
    whole = {
        "Node.metadata": graph_rules.kept_metadata,
        "GraphModule.metadata": _nothing(dict),
        "GraphModule.treespec_namedtuple_fields": _nothing(dict),
    }
    return SchemaReader(schema, _Union, rules, whole)
