"""What each string of a stored program may say.

Reading a program turns these strings into attributes, operators and *generated Python source*
(``torch.fx`` prints the names of arguments and attributes into code that it executes), so a name
that is not plainly a name may be code of the file's author. Every string field of PyTorch's schema
has a rule here, and a field without one cannot be read at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from hardpoint.package.refusal import MalformedError

Rule = Callable[[str], object]

MAX_TEXT = 1 << 20
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,500}")
_PATH = re.compile(r"[A-Za-z0-9_.:/@+ -]{1,1000}")
_WORD = re.compile(r"[A-Za-z0-9_.+-]{0,100}")
_DEVICE = re.compile(r"[a-z]{1,32}")
_PAYLOAD = re.compile(r"[A-Za-z0-9_]{1,100}")
_CAPTURE = (
    "use hardpoint.capture(...) on the model itself: it describes such inputs and outputs in JSON"
)

# Kinds of containers that pytree rebuilds without importing anything.
_CONTAINERS = frozenset({"builtins.tuple", "builtins.list"})
_DICTIONARIES = frozenset({"builtins.dict", "collections.OrderedDict"})

# The only metadata kept: the model's source lines and module names, which explain a plan. The rest
# (e.g. ``custom``, ``from_node``) is not needed to run, and makes bytes differ from run to run.
KEPT_METADATA = ("stack_trace", "nn_module_stack", "torch_fn")


def _matching(pattern: re.Pattern[str], what: str) -> Rule:
    def rule(text: str) -> str:
        if not pattern.fullmatch(text):
            raise MalformedError(f"{text!r:.100} stands in the program where {what} should stand")
        return text

    return rule


identifier = _matching(_IDENTIFIER, "the name of a value")
optional_identifier = _matching(re.compile(f"(?:{_IDENTIFIER.pattern})?"), "the name of a value")
attribute = _matching(_PATH, "the name of a weight")
word = _matching(_WORD, "a version or a name")
device_type = _matching(_DEVICE, "a device")
payload_path = _matching(_PAYLOAD, "the name of a file of weights")


def text(value: str) -> str:
    """A string argument: it stays data (it is printed into code by ``repr``)."""
    if len(value) > MAX_TEXT:
        raise MalformedError(f"a string in the program has {len(value)} characters")
    return value


def module_path(value: str) -> str:
    """Where in the model something stood; shown to people only."""
    return value if value == "" else str(attribute(value))


def custom_object(value: str) -> str:
    """:raises MalformedError: always: such an object is stored as a pickle."""
    raise MalformedError(
        f"the program uses the custom object {value!r:.100}, which is stored as a pickle; "
        "unpickling can run any code, so it is not done",
        remedy="replace the custom object by tensors, and save the model again",
    )


def tree_structure(value: str) -> str:
    """How nested inputs or outputs are built: tuples, lists and dicts only.

    PyTorch's reader imports modules named in the context of other kinds
    (``torch/utils/_pytree.py``, ``enum_object_hook`` and ``_defaultdict_deserialize``).
    """
    try:
        version, tree = json.loads(text(value))
        if version != 1:
            raise ValueError
        _check_tree(tree)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise MalformedError(
            "the structure of the program's inputs or outputs is malformed"
        ) from None
    return value


def _check_tree(tree: dict[str, Any]) -> None:
    kind, context, children = tree["type"], tree["context"], tree["children_spec"]
    if not isinstance(children, list):
        raise TypeError
    if kind is None:
        if context is not None or children:
            raise ValueError
    elif kind in _CONTAINERS:
        if context not in (None, "null"):
            raise ValueError
    elif kind in _DICTIONARIES:
        keys = json.loads(context)
        if not isinstance(keys, list) or len(keys) != len(children):
            raise ValueError
        # The keys of keyword arguments become parameter names of generated code.
        for key in keys:
            if not isinstance(key, int):
                identifier(key)
    else:
        raise MalformedError(
            f"its inputs or outputs hold a {kind!r:.200}, which only that class's own code "
            "can build",
            remedy=_CAPTURE,
        )
    for child in children:
        _check_tree(child)


def kept_metadata(metadata: Any) -> dict[str, str]:
    """The part of a node's metadata that is read."""
    if not isinstance(metadata, dict):
        raise MalformedError("the metadata of an operation is not an object")
    kept = {}
    for key in KEPT_METADATA:
        value = metadata.get(key)
        if value is None:
            continue
        if not isinstance(value, str) or not value.replace("\n", "").isprintable():
            raise MalformedError(f"the metadata {key!r} of an operation is not plain text")
        kept[key] = text(value)
    return kept


# "Class.field" of torch._export.serde.schema -> the rule for its strings; "Class.field{}" for the
# keys of a dictionary. Sizes, guards and operators need PyTorch: their rules are in torch_serde.
RULES: Mapping[str, Rule] = {
    "Device.type": device_type,
    "SymIntArgument.as_name": identifier,
    "SymFloatArgument.as_name": identifier,
    "SymBoolArgument.as_name": identifier,
    "TensorArgument.name": identifier,
    "TokenArgument.name": identifier,
    "GraphArgument.name": identifier,
    "CustomObjArgument.name": custom_object,
    "CustomObjArgument.class_fqn": custom_object,
    "Argument.as_string": text,
    "Argument.as_strings": text,
    "Argument.as_string_to_argument{}": identifier,
    "NamedArgument.name": optional_identifier,
    "Node.name": identifier,
    "Graph.tensor_values{}": identifier,
    "Graph.sym_int_values{}": identifier,
    "Graph.sym_bool_values{}": identifier,
    "Graph.sym_float_values{}": identifier,
    "Graph.custom_obj_values{}": custom_object,
    "ConstantValue.as_string": text,
    "InputToConstantInputSpec.name": identifier,
    "InputToParameterSpec.parameter_name": attribute,
    "InputToBufferSpec.buffer_name": attribute,
    "InputToTensorConstantSpec.tensor_constant_name": attribute,
    "InputToCustomObjSpec.custom_obj_name": custom_object,
    "BufferMutationSpec.buffer_name": attribute,
    "ParameterMutationSpec.parameter_name": attribute,
    "GradientToParameterSpec.parameter_name": attribute,
    "GradientToUserInputSpec.user_input_name": attribute,
    "UserInputMutationSpec.user_input_name": attribute,
    "ModuleCallSignature.in_spec": tree_structure,
    "ModuleCallSignature.out_spec": tree_structure,
    "ModuleCallSignature.forward_arg_names": identifier,
    "ModuleCallEntry.fqn": module_path,
    "ExportedProgram.opset_version{}": word,
    "ExportedProgram.verifiers": word,
    "ExportedProgram.torch_version": word,
    "PayloadMeta.path_name": payload_path,
    "PayloadConfig.config{}": attribute,
}
