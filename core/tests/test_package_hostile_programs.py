"""Hostile programs: a graph is data, and no string in it becomes code."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from hardpoint.errors import PackageError
from hardpoint.package.archive import Archive
from hardpoint.package.pt2 import read_program, weights, write_program
from hardpoint.package.refusal import AGAIN
from hardpoint.package.writer import ArchiveWriter
from package_forge import remake

EVIL = "__import__('pathlib').Path('ran').touch()"
MODEL = "models/model.json"
CONFIG = "data/weights/model_weights_config.json"


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(4, 4)

    def forward(self, x):
        return (self.lin(x).relu(),)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "good.pt2"
    batch = {"x": {0: torch.export.Dim("b")}}
    program = torch.export.export(Small(), (torch.randn(3, 4),), dynamic_shapes=batch)
    with ArchiveWriter(path) as made:
        write_program(made, program.run_decompositions({}))
    return path


@pytest.fixture
def attack(source, tmp_path, monkeypatch):
    """Read the program with one change made to a JSON entry; how it is refused."""
    monkeypatch.chdir(tmp_path)

    def run(change, entry: str = MODEL) -> str:
        with Archive.open(source) as archive:
            data = json.loads(bytes(archive.view(entry)))
        changed = copy.deepcopy(data)
        change(changed)
        assert changed != data
        bad = remake(source, tmp_path / "bad.pt2", {entry: json.dumps(changed).encode()})
        with pytest.raises(PackageError) as error:
            read_program(Archive.open(bad))
        assert not (tmp_path / "ran").exists(), "code from the file ran"
        first, *rest = str(error.value).split("\n")
        assert first == f"{bad} is not a usable package"
        return "\n".join(rest)

    return run


def refused(cause: str, remedy: str = AGAIN) -> str:
    return f"  cause: {cause}\n  remedy: {remedy}"


def graph(data: dict) -> dict:
    return data["graph_module"]["graph"]


def root(data: dict) -> dict:
    return data["graph_module"]["module_call_graph"][0]["signature"]


def size(text: str):
    def change(data: dict) -> None:
        graph(data)["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = text

    return change


def guard(text: str):
    return lambda data: data["guards_code"].append(text)


def target(text: str):
    return lambda data: graph(data)["nodes"][-1].update(target=text)


def structure(kind: object, context: object):
    tree = {"type": kind, "context": context, "children_spec": []}
    return lambda data: root(data).update(in_spec=json.dumps([1, tree]))


def argument(value: object):
    return lambda data: graph(data)["nodes"][0]["inputs"][0].update(arg=value)


def renamed(old: str, new: str):
    def change(data: dict) -> None:
        text = json.dumps(data).replace(json.dumps(old), json.dumps(new))
        data.clear()
        data.update(json.loads(text))

    return change


def sample(data: dict) -> None:
    data["graph_module"]["signature"]["input_specs"].append(
        {"custom_obj": {"arg": {"name": "o", "class_fqn": "c"}, "custom_obj_name": "o"}}
    )


EXPRESSIONS = [
    EVIL,
    "Symbol('s0').__class__",
    "Symbol('s0', **{})",
    "Symbol('s0', commutative=print)",
    "Symbol(\"s0'); import os; ('\")",
    "Function('f')(Integer(1))",
    "lambda: 1",
    "[x for x in (1, 2)]",
    "Integer('1')",
    "Integer(99999999999999999999)",
    "s0",
    "1 +",
    "(" * 300 + ")" * 300,
    "'text'",
    "True",
]


@pytest.mark.parametrize("text", EXPRESSIONS, ids=range(len(EXPRESSIONS)))
def test_a_size_that_is_no_size_expression_is_refused(attack, text):
    shown = attack(size(text))
    assert "is not a size expression" in shown or "is not the name of a symbolic size" in shown


def test_the_message_shows_the_expression(attack):
    assert attack(size(EVIL)) == refused(f'"{EVIL}" is not a size expression')


@pytest.mark.parametrize("name", ["Pow", "PowByNatural", "LShift", "FloatPow"])
def test_a_size_that_would_never_end_is_refused(attack, name):
    cause = "a size expression has an exponent or a shift that is not a small number"
    assert attack(size(f"{name}(Integer(9), Integer(999999999))")) == refused(cause)
    assert attack(size(f"{name}(Integer(9), Symbol('s0'))")) == refused(cause)


def test_an_impossible_size_is_refused(attack):
    assert attack(size("Mod(Integer(1))")).startswith(
        "  cause: the size expression 'Mod(Integer(1))' is impossible: "
    )
    long = "Add(" + "Integer(1), " * 3000 + "Integer(1))"
    assert attack(size(long)) == refused(
        f"a size expression has {len(long)} characters, more than 20000"
    )


GUARDS = [
    EVIL,
    "L['x'].size()[0] == " + EVIL,
    "L['x'].__class__ == 1",
    "L['x'].to('cuda') == 1",
    "L['x\" + str(1) + \"'].size()[0] == 1",
    "(lambda: 1)() == 1",
    "open('ran', 'w') == 1",
    "math.__loader__ == 1",
    "[1 for _ in L] == 1",
    "f'{L}' == 1",
    "L['x'].size(dim=0) == 1",
    "2 ** 99 == 1",
    "x == 1",
    "1",
]


@pytest.mark.parametrize("text", GUARDS, ids=range(len(GUARDS)))
def test_a_guard_that_is_no_condition_on_sizes_is_refused(attack, text):
    cause = f"the guard {text!r:.100} is not a plain condition on the sizes of inputs"
    assert attack(guard(text)) == refused(cause)


@pytest.mark.parametrize(
    "name",
    ["os.system", "torch.hub.os.system", "torch.load", "torch.ops.load_library", "torch.ops.aten",
     "torch.ops.aten.relu", "torch.ops.aten.relu.default.__init__", "torch.ops.aten.relu._schema",
     "_operator.attrgetter", "math.factorial", "torch.sym_fresh_size", "#extension:op", "eval", ""],
)  # fmt: skip
def test_what_is_no_operator_cannot_be_called(attack, name):
    shown = attack(target(name))
    assert shown in (
        refused(f"{name!r} stands in the program where an operator should stand"),
        refused(f"{name!r} is not an operator"),
        refused(
            "the program uses the operator aten.relu, which is not registered here",
            "import the library that registers 'aten' operators, then load again",
        ),
    )


def test_an_operator_of_a_library_that_is_not_here_is_named(attack):
    assert attack(target("torch.ops.acme.fast_relu.default")) == refused(
        "the program uses the operator acme.fast_relu, which is not registered here",
        "import the library that registers 'acme' operators, then load again",
    )


@pytest.mark.parametrize("name", ["aten.from_file", "aten.save"])
def test_an_operator_that_opens_files_is_refused(attack, name):
    cause = f"the program uses the operator {name}, which opens files"
    assert attack(target(f"torch.ops.{name}.default")) == refused(cause)


@pytest.mark.parametrize(
    ("kind", "context"),
    [
        ("builtins.dict", json.dumps([{"__enum__": True, "fqn": "os:x", "name": "y"}])),
        ("builtins.dict", json.dumps([EVIL])),
        ("builtins.dict", "{"),
        ("builtins.tuple", json.dumps({"__enum__": True, "fqn": "os:x", "name": "y"})),
        (None, "x"),
        ([], "x"),
    ],
    ids=range(6),
)
def test_a_structure_that_would_import_or_generate_code_is_refused(attack, kind, context):
    shown = attack(structure(kind, context))
    assert "structure of the program's inputs" in shown or "where the name of a value" in shown


@pytest.mark.parametrize("kind", ["collections.defaultdict", "transformers.SomeOutput"])
def test_a_structure_of_a_class_is_refused_with_the_way_out(attack, kind):
    assert attack(structure(kind, "null")) == refused(
        f"its inputs or outputs hold a {kind!r}, which only that class's own code can build",
        "use hardpoint.capture(...) on the model itself: it describes such inputs and outputs in "
        "JSON",
    )


def test_a_structure_nested_without_end_is_refused(attack):
    tree = '{"type": "builtins.tuple", "context": "null", "children_spec": ['
    deep = "[1, " + tree * 3000 + "]}" * 3000 + "]"
    cause = "the structure of the program's inputs or outputs is malformed"
    assert attack(lambda data: root(data).update(in_spec=deep)) == refused(cause)


@pytest.mark.parametrize("name", ["x\n    " + EVIL, "x; y", "x=1", "x y", "", "1x", "é", "x" * 600])
def test_a_value_needs_a_plain_name(attack, name):
    shown = attack(renamed("linear", name))
    assert shown == refused(
        f"{name!r:.100} stands in the program where the name of a value should stand"
    )
    arguments = attack(lambda data: root(data).update(forward_arg_names=[name]))
    assert arguments == shown


@pytest.mark.parametrize("name", ['lin"+x+"', "lin\\", "lin\nweight", "lin'", ""])
def test_a_weight_needs_a_plain_name(attack, name):
    def change(data: dict) -> None:
        data["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = name

    cause = f"{name!r} stands in the program where the name of a weight should stand"
    assert attack(change) == refused(cause)


def test_a_custom_object_is_refused_as_the_pickle_that_it_is(attack):
    for change in (sample, argument({"as_custom_obj": {"name": "o", "class_fqn": "c"}})):
        assert attack(change) == refused(
            "the program uses the custom object 'o', which is stored as a pickle; unpickling can "
            "run any code, so it is not done",
            "replace the custom object by tensors, and save the model again",
        )


MISTYPED = [
    (argument({"as_int": "1"}), "Argument.as_int of the program cannot be '1'"),
    (argument({"as_int": True}), "Argument.as_int of the program cannot be True"),
    (argument({"as_int": 1 << 70}), f"Argument.as_int of the program cannot be {1 << 70}"),
    (argument({"as_float": "nan()"}), "Argument.as_float of the program cannot be 'nan()'"),
    (argument({"as_bool": 1}), "Argument.as_bool of the program cannot be 1"),
    (argument({"as_scalar_type": 99}), "Argument.as_scalar_type of the program cannot be 99"),
    (argument({"as_ints": {}}), "Argument.as_ints of the program cannot be {}"),
    (argument({"as_string": 3}), "Argument.as_string of the program cannot be 3"),
    (argument({"as_code": "x"}), "a Argument of the program has the unknown form 'as_code'"),
    (argument({}), "a Argument of the program has the unknown form None"),
    (argument(3), "the program has a int where a Argument belongs"),
    (lambda d: graph(d).pop("nodes"), "a Graph of the program has no 'nodes'"),
    (lambda d: d.pop("graph_module"), "a ExportedProgram of the program has no 'graph_module'"),
    (lambda d: graph(d).update(nodes=None), "Graph.nodes of the program cannot be None"),
    (lambda d: d.update(guards_code=[3]), "ExportedProgram.guards_code of the program cannot be 3"),
    (lambda d: d.update(range_constraints={"x" * 9 + "0" * 9: {}}),
     "'xxxxxxxxx000000000' is not the name of a symbolic size"),
    (lambda d: graph(d)["nodes"][0].update(metadata=[]),
     "the metadata of an operation is not an object"),
    (lambda d: graph(d)["nodes"][0].update(metadata={"stack_trace": "\x1b[2J"}),
     "the metadata 'stack_trace' of an operation is not plain text"),
    (lambda d: graph(d)["tensor_values"]["x"]["device"].update(type="cuda:0 '"),
     "\"cuda:0 '\" stands in the program where a device should stand"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "cause"), MISTYPED, ids=range(len(MISTYPED)))
def test_a_value_of_another_type_than_the_schema_says_is_refused(attack, change, cause):
    assert attack(change) == refused(cause)


def test_a_program_of_another_schema_says_which_torch_wrote_it(attack):
    def change(data: dict) -> None:
        data["schema_version"]["major"] = 7
        data["torch_version"] = "2.4.1"

    assert attack(change) == refused(
        f"its program is of schema 7 (torch 2.4.1); torch {torch.__version__} reads schema 8",
        "load it with the torch that wrote it and save it again with this one",
    )


CONTRADICTIONS = [
    lambda d: graph(d)["nodes"].pop(),
    lambda d: graph(d)["outputs"].clear(),
    lambda d: graph(d)["inputs"].pop(),
    lambda d: graph(d)["tensor_values"].pop("linear"),
    lambda d: graph(d)["nodes"].append(graph(d)["nodes"][0]),
    lambda d: d["graph_module"]["signature"]["input_specs"].pop(),
    lambda d: d.update(verifiers=["UNKNOWN"]),
    argument({"as_tensor": {"name": "nowhere"}}),
]


@pytest.mark.parametrize("change", CONTRADICTIONS, ids=range(len(CONTRADICTIONS)))
def test_a_graph_that_contradicts_itself_is_refused_in_one_line(attack, change):
    cause, remedy = attack(change).split("\n")
    assert cause.startswith("  cause: PyTorch cannot make a program of it: ")
    assert len(cause) < 400
    assert remedy == f"  remedy: {AGAIN}"


def test_a_program_must_say_how_it_is_called(attack):
    cause = "its program does not say how it is called"
    calls = "module_call_graph"
    assert attack(lambda d: d["graph_module"][calls].clear()) == refused(cause)
    assert attack(lambda d: d["graph_module"][calls][0].pop("signature")) == refused(cause)


# -- descriptions of weights -----------------------------------------------------------------------


def weight(**fields: object):
    return lambda data: data["config"]["lin.weight"].update(fields)


def meta(**fields: object):
    return lambda data: data["config"]["lin.weight"]["tensor_meta"].update(fields)


NEEDS = "the tensor in 'data/weights/weight_0' needs"
ABSENT = "a tensor refers to entry 'data/weights/weight_9', which does not exist"
SYMBOLIC = [{"as_expr": {"expr_str": "Integer(4)"}}] * 2
WEIGHTS = [
    (
        weight(path_name="../../etc/passwd"),
        "'../../etc/passwd' stands in the program where the name of a file of weights should stand",
    ),
    (weight(path_name="weight_9"), ABSENT),
    (
        weight(tensor_meta=None),
        "the program uses the custom object 'lin.weight', which is stored as a pickle; unpickling "
        "can run any code, so it is not done",
    ),
    (meta(dtype=8), f"{NEEDS} 128 bytes of an entry that has 64"),
    (meta(dtype=0), "the tensor 'lin.weight' has a layout or dtype that cannot be mapped"),
    (meta(layout=1), "the tensor 'lin.weight' has a layout or dtype that cannot be mapped"),
    (meta(dtype=4), "the parameter 'lin.weight' is of integers but wants a gradient"),
    (meta(sizes=[{"as_int": 5}, {"as_int": 4}]), f"{NEEDS} 80 bytes of an entry that has 64"),
    (meta(sizes=SYMBOLIC), "a weight of the program has a symbolic size"),
    (meta(storage_offset={"as_int": 1}), f"{NEEDS} 68 bytes of an entry that has 64"),
]


@pytest.mark.parametrize(("change", "cause"), WEIGHTS, ids=range(len(WEIGHTS)))
def test_a_description_of_weights_that_lies_is_refused(attack, change, cause):
    assert attack(change, CONFIG).split("\n")[0] == f"  cause: {cause}"


def test_weights_on_a_device_that_is_not_here_say_so(attack):
    shown = attack(meta(device={"type": "xpu", "index": 0}), CONFIG)
    assert shown.startswith("  cause: its weights belong on the device xpu:0, which is not usable")
    assert shown.endswith(
        "  remedy: load it on a machine with that device, or capture the model on the CPU"
    )
    shown = attack(meta(device={"type": "abacus", "index": None}), CONFIG)
    assert shown.startswith("  cause: it names the device 'abacus': ")


def test_a_pickle_is_found_before_torch_sees_anything(attack, source, tmp_path):
    shown = attack(weight(use_pickle=True), CONFIG)
    assert shown == refused(
        f"it holds pickles, which can run any code when read: lin.weight (in {CONFIG})",
        "replace custom objects and tensor subclasses in the model by plain tensors, and save it "
        "again",
    )
    with pytest.raises(PackageError, match="it holds pickles"):
        weights(Archive.open(tmp_path / "bad.pt2"))


def test_pickled_example_inputs_of_torch_export_save_are_never_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.export.save(torch.export.export(Small(), (torch.randn(3, 4),)), tmp_path / "their.pt2")
    evil = b"cpathlib\nPath\n(S'ran'\ntR."
    bad = remake(tmp_path / "their.pt2", tmp_path / "b.pt2", {"data/sample_inputs/model.pt": evil})
    program = read_program(Archive.open(bad))
    assert program.example_inputs is None
    assert program.module()(torch.zeros(3, 4))[0].shape == (3, 4)
