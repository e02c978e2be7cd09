"""Programs and tensors in a package: written once, mapped, and the same as before."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import subprocess
import sys
import typing
import warnings
from pathlib import Path

import pytest
import sympy
import torch
from torch._export.serde import schema
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import load_pt2

import hf_models
import small_models
from hardpoint.errors import PackageError
from hardpoint.package import graph_rules, symbols, torch_serde
from hardpoint.package.archive import Archive
from hardpoint.package.integrity import ARTIFACTS, finish_manifest
from hardpoint.package.pt2 import (
    TensorStore,
    read_program,
    tensor_from_ref,
    weights,
    write_program,
)
from hardpoint.package.writer import ArchiveWriter
from hardpoint.program.capture import capture_module
from hardpoint.program.program import Program, lifted_inputs

BERT = next(case for case in hf_models.CASES if case.name == "bert")
LLAMA = next(case for case in hf_models.CASES if case.name == "llama")
NAMED = {case.name: case for case in [*small_models.CASES, BERT, LLAMA]}
SMALL = [
    *("counter", "ring_buffer", "two_buffers_swapped", "input_mutated", "weights_returned"),
    *("constants_of_all_kinds_returned", "sizes_returned", "tied_weights", "cond_on_data"),
    *("cond_on_size", "while_loop", "map_over_rows", "item_as_size", "boolean_mask"),
    *("size_arithmetic", "many_dtypes", "empty_and_scalar_tensors", "expanded", "as_strided"),
    *("random_numbers", "recurrent", "conv_norm_train", "channels_last", "mixed_precision"),
    *("bert", "llama"),
]


def captured(name: str) -> Program:
    case = NAMED[name]
    args, kwargs = case.call(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training mode; lists of weights inside an LSTM
        return capture_module(case.model(), args, kwargs, dynamic=case.dynamic)


@pytest.fixture(scope="module")
def bert() -> Program:
    return captured("bert")


def run(exported: ExportedProgram, inputs) -> list[object]:
    torch.manual_seed(0)
    with torch.no_grad():
        held = [torch.clone(t) for t in lifted_inputs(exported, inputs)]
        return list(torch.fx.Interpreter(exported.graph_module).run(*held))


def same(one: object, two: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and torch.equal(one, two) and one.dtype == two.dtype
    return bool(one == two)


def saved(program: ExportedProgram, path: Path) -> Archive:
    with ArchiveWriter(path) as made:
        write_program(made, program)
    return Archive.open(path)


def mapping_of(archive: Archive, entry: str) -> range:
    view = archive.private(entry)
    start = ctypes.addressof(ctypes.c_char.from_buffer(view))
    return range(start, start + len(view))


# -- programs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_a_program_reads_back_the_same_for_us_and_for_pytorch(tmp_path, name):
    program = captured(name)
    archive = saved(program.exported, tmp_path / "a.pt2")
    ours = read_program(archive)
    theirs = load_pt2(str(tmp_path / "a.pt2")).exported_programs["model"]
    expected = run(program.exported, program.example_inputs)
    for other in (ours, theirs):
        got = run(other, program.example_inputs)
        assert len(got) == len(expected)
        assert all(map(same, expected, got))
        assert other.graph_signature == program.exported.graph_signature
        ranges = {str(k): str(v) for k, v in other.range_constraints.items()}
        assert ranges == {str(k): str(v) for k, v in program.exported.range_constraints.items()}


def test_results_that_nobody_uses_do_not_come_back_as_nodes(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    program = capture_module(model, (torch.randn(1, 3, 8, 8),), {})
    archive = saved(program.exported, tmp_path / "a.pt2")
    wanted = [str(node.target) for node in program.exported.graph.nodes]
    assert sum("getitem" in target for target in wanted) == 1  # of the batch norm's three results
    assert [str(node.target) for node in read_program(archive).graph.nodes] == wanted


def test_a_program_runs_at_other_sizes_than_its_examples(tmp_path, bert):
    program = read_program(saved(bert.exported, tmp_path / "a.pt2"))
    _, kwargs = BERT.call(1)
    got = program.module()(*kwargs.values())
    expected = BERT.model()(**kwargs)
    assert torch.equal(got[0], expected.last_hidden_state)


def test_a_program_loads_without_the_library_that_its_model_came_from(tmp_path, bert):
    path = tmp_path / "a.pt2"
    expected = run(bert.exported, bert.example_inputs)
    with ArchiveWriter(path) as made:
        store = TensorStore(made)
        write_program(made, bert.exported, store=store)
        refs = {"in": [store.put(t) for t in bert.example_inputs], "out": store.put(expected[0])}
    script = f"""
import json, sys, torch
from hardpoint.package.archive import Archive
from hardpoint.package.integrity import finish_manifest
from hardpoint.package.pt2 import read_program, tensor_from_ref
archive, refs = Archive.open({str(path)!r}), json.loads({json.dumps(refs)!r})
program = read_program(archive)
got = program.module()(*[tensor_from_ref(archive, ref) for ref in refs["in"]])
assert torch.equal(got[0], tensor_from_ref(archive, refs["out"]))
assert "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_binary_artifacts_beside_a_program_do_not_disturb_pytorch(tmp_path, bert):
    with ArchiveWriter(tmp_path / "a.pt2") as made:
        write_program(made, bert.exported)
        made.add(f"{ARTIFACTS}/s0/code", b"\xff\xfe\x00")
        finish_manifest(made, {"format": "hardpoint/1"})
    contents = load_pt2(str(tmp_path / "a.pt2"))
    assert json.loads(contents.extra_files["hardpoint/manifest.json"])["format"] == "hardpoint/1"


def test_the_same_program_gives_the_same_bytes(tmp_path, bert):
    saved(bert.exported, tmp_path / "one.pt2").close()
    saved(bert.exported, tmp_path / "two.pt2").close()
    assert (tmp_path / "one.pt2").read_bytes() == (tmp_path / "two.pt2").read_bytes()


def test_a_program_that_was_read_can_be_written_again(tmp_path, bert):
    first = saved(bert.exported, tmp_path / "one.pt2")
    saved(read_program(first), tmp_path / "two.pt2")
    assert (tmp_path / "one.pt2").read_bytes() == (tmp_path / "two.pt2").read_bytes()


def test_the_lines_of_the_model_travel_along(tmp_path, bert):
    program = read_program(saved(bert.exported, tmp_path / "a.pt2"))
    nodes = [n for n in program.graph.nodes if n.target == torch.ops.aten.layer_norm.default]
    assert "modeling_bert.py" in nodes[0].meta["stack_trace"]
    assert "LayerNorm" in str(nodes[0].meta["nn_module_stack"])


class Dynamic(torch.nn.Module):
    def forward(self, x, *, scale):
        return {"y": (x * scale, x.sum())}


def test_a_file_of_torch_export_save_is_read_with_its_own_structure(tmp_path):
    x, scale = torch.randn(4, 3), torch.tensor(2.0)
    dynamic = {"x": {0: 2 * torch.export.Dim("half")}, "scale": None}
    exported = torch.export.export(Dynamic(), (x,), {"scale": scale}, dynamic_shapes=dynamic)
    torch.export.save(exported, tmp_path / "a.pt2")
    module = read_program(Archive.open(tmp_path / "a.pt2")).module()
    assert torch.equal(module(x, scale=scale)["y"][0], x * 2)
    assert module(torch.ones(6, 3), scale=scale)["y"][1] == 18
    with pytest.raises(RuntimeError, match="of the form 2"):
        module(torch.ones(5, 3), scale=scale)


def test_several_programs_fit_into_one_file(tmp_path, bert):
    path = tmp_path / "a.pt2"
    with ArchiveWriter(path) as made:
        store = TensorStore(made)
        write_program(made, bert.exported, "one", store=store)
        before = sum(d.bytes for d in made.digests.values())
        write_program(made, bert.exported, "two", store=store)
        added = sum(d.bytes for d in made.digests.values()) - before
    archive = Archive.open(path)
    assert weights(archive, "one").keys() == weights(archive, "two").keys()
    assert added < archive.entries["models/two.json"].size * 1.5, "the weights are there once"
    with pytest.raises(PackageError, match="it has no program 'model'; it has: one, two"):
        read_program(archive)


# -- weights ---------------------------------------------------------------------------------------


def test_weights_are_mapped_not_copied(tmp_path, bert):
    archive = saved(bert.exported, tmp_path / "a.pt2")
    found = weights(archive)
    assert found.keys() == bert.exported.state_dict.keys()
    entries = [e for e in archive.entries if e.startswith("data/weights/weight_")]
    spans = [mapping_of(archive, entry) for entry in entries]
    for name, tensor in found.items():
        assert torch.equal(tensor, bert.exported.state_dict[name])
        assert any(tensor.data_ptr() in span for span in spans), f"{name} was copied"
        assert tensor.data_ptr() % 64 == 0


def test_writing_into_a_weight_changes_this_process_only(tmp_path):
    archive = saved(captured("counter").exported, tmp_path / "a.pt2")
    before = (tmp_path / "a.pt2").read_bytes()
    for tensor in weights(archive).values():
        tensor.detach().add_(1)
    assert (tmp_path / "a.pt2").read_bytes() == before


def test_weights_outlive_the_archive_and_the_file(tmp_path, bert):
    archive = saved(bert.exported, tmp_path / "a.pt2")
    found = weights(archive)
    archive.close()
    (tmp_path / "a.pt2").unlink()
    del archive
    assert all(torch.equal(t, bert.exported.state_dict[n]) for n, t in found.items())


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    exported = captured("llama").exported
    archive = saved(exported, tmp_path / "a.pt2")
    storages = {t.untyped_storage().data_ptr() for t in exported.state_dict.values()}
    entries = [e for e in archive.entries if e.startswith("data/weights/weight_")]
    assert len(entries) == len(storages) < len(exported.state_dict)
    found = weights(archive)
    one, two = (found[n] for n in found if "embed_tokens" in n or "lm_head" in n)
    assert one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()


def test_artifacts_share_the_weights_of_the_program(tmp_path, bert):
    with ArchiveWriter(tmp_path / "a.pt2") as made:
        store = TensorStore(made)
        write_program(made, bert.exported, store=store)
        before = len(made.digests)
        refs = {name: store.put(tensor) for name, tensor in bert.exported.state_dict.items()}
        rows = store.put(bert.exported.state_dict["embeddings.word_embeddings.weight"][3:5])
        assert len(made.digests) == before
    archive = Archive.open(tmp_path / "a.pt2")
    for name, ref in refs.items():
        assert torch.equal(tensor_from_ref(archive, ref), bert.exported.state_dict[name])
    expected = bert.exported.state_dict["embeddings.word_embeddings.weight"][3:5]
    assert torch.equal(tensor_from_ref(archive, rows), expected)
    assert rows["offset"] == 3 * expected.shape[1]


# -- the store -------------------------------------------------------------------------------------


def through_a_file(path: Path, tensors: dict[str, torch.Tensor]):
    with ArchiveWriter(path) as made:
        refs = TensorStore(made).put_all(tensors)
        sizes = [d.bytes for n, d in made.digests.items() if n.startswith("data/hardpoint/")]
    archive = Archive.open(path)
    return {name: tensor_from_ref(archive, ref) for name, ref in refs.items()}, sizes


BASE = torch.arange(24.0)
KINDS = {
    "plain": BASE.view(4, 6),
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 7),
    "transposed": BASE.view(4, 6).t(),
    "every other": BASE.view(4, 6)[::2, 1::2],
    "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
    "channels last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
    "bool": torch.tensor([True, False]),
    "parameter": torch.nn.Parameter(torch.randn(3)),
    "gradient": torch.randn(3, requires_grad=True) * 2,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tensor_reads_back(tmp_path, kind):
    tensor = KINDS[kind]
    got, _ = through_a_file(tmp_path / "a.pt2", {"x": tensor})
    assert torch.equal(got["x"], tensor)
    assert got["x"].stride() == tensor.stride()


def test_a_tensor_that_is_negated_lazily_is_written_with_its_real_values(tmp_path):
    tensor = torch.randn(3, dtype=torch.complex64).conj().imag
    assert tensor.is_neg()
    got, _ = through_a_file(tmp_path / "a.pt2", {"x": tensor})
    assert torch.equal(got["x"], tensor)


@pytest.mark.parametrize("dtype", torch_serde._DTYPE_NUMBERS)
def test_every_dtype_reads_back(tmp_path, dtype):
    raw = torch.randint(0, 2, (64,), dtype=torch.uint8)
    tensor = raw.view(getattr(torch, dtype))
    got, _ = through_a_file(tmp_path / "a.pt2", {"x": tensor})
    assert got["x"].dtype == tensor.dtype
    assert torch.equal(got["x"].view(torch.uint8), raw)


def test_only_the_used_part_of_a_storage_is_written(tmp_path):
    large = torch.zeros(1_000_000)
    _, sizes = through_a_file(tmp_path / "a.pt2", {"x": large[500:510], "y": large[900_000:]})
    assert sizes == [40, 400_000]


def test_views_that_overlap_share_an_entry(tmp_path):
    base = torch.arange(100.0)
    got, sizes = through_a_file(
        tmp_path / "a.pt2", {"a": base[10:30], "b": base[20:50].view(5, 6), "c": base[15:16]}
    )
    assert sizes == [160]
    assert torch.equal(got["b"], base[20:50].view(5, 6))
    assert got["c"].data_ptr() - got["a"].data_ptr() == 20


def test_two_dtypes_of_one_storage_are_two_entries(tmp_path):
    base = torch.randn(8)
    got, sizes = through_a_file(tmp_path / "a.pt2", {"f": base, "i": base.view(torch.int32)})
    assert sizes == [32, 32], "PyTorch's reader takes an entry for an array of one dtype"
    assert torch.equal(got["i"], base.view(torch.int32))


class Wrapped(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.eye(2).to_sparse(), "Tensor, torch.float32, torch.sparse_coo"),
        (torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8), "Tensor, torch.qint8"),
        (torch.empty(2, device="meta"), "Tensor, torch.float32, torch.strided"),
        (torch.ones(2).as_subclass(Wrapped), "Wrapped, torch.float32"),
    ],
    ids=["sparse", "quantized", "meta", "subclass"],
)
def test_a_tensor_without_plain_bytes_is_refused(tmp_path, tensor, kind):
    with pytest.raises(PackageError) as error:
        through_a_file(tmp_path / "a.pt2", {"w": tensor})
    assert str(error.value).startswith(
        f"{tmp_path / 'a.pt2'} could not be written\n  cause: the tensor 'w' ({kind}"
    )
    assert str(error.value).endswith(
        "has no plain bytes to write\n"
        "  remedy: turn it into an ordinary dense tensor before capturing the model"
    )


# -- what cannot be written ------------------------------------------------------------------------


def test_a_program_with_a_custom_object_is_not_written(tmp_path, bert):
    exported = captured("counter").exported
    exported.constants["packed"] = object()
    with pytest.raises(PackageError) as error:
        saved(exported, tmp_path / "a.pt2")
    assert str(error.value) == (
        f"{tmp_path / 'a.pt2'} could not be written\n"
        "  cause: the program's constant 'packed' is a object, not a tensor\n"
        "  remedy: a package holds graphs and plain tensors only: replace what is named above"
    )


def test_a_program_that_could_not_be_read_again_is_not_written(tmp_path):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.items = torch.nn.ParameterDict({"a'b": torch.nn.Parameter(torch.ones(2))})

        def forward(self, x):
            return (x + self.items["a'b"],)

    exported = torch.export.export(Odd(), (torch.ones(2),)).run_decompositions({})
    with pytest.raises(PackageError) as error:
        saved(exported, tmp_path / "a.pt2")
    assert '"items.a\'b" stands in the program where the name of a weight should stand' in str(
        error.value
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "x" * 101])
def test_a_program_needs_a_plain_name(tmp_path, bert, name):
    with pytest.raises(PackageError, match="cannot name a program"):
        with_name(tmp_path / "a.pt2", bert.exported, name)


def with_name(path: Path, exported: ExportedProgram, name: str) -> None:
    with ArchiveWriter(path) as made:
        write_program(made, exported, name)


# -- how the graph is read -------------------------------------------------------------------------


def strings_of(cls: type, seen: set[type]) -> set[str]:
    """`Class.field` of every string in the schema, from `cls` on; `{}` for keys of dictionaries."""
    if cls in seen:
        return set()
    seen.add(cls)
    found = set()
    for name, hint in typing.get_type_hints(cls, globalns=vars(schema)).items():
        if name.startswith("_"):
            continue
        place = f"{cls.__name__}.{name}"
        pending = [(hint, place)]
        while pending:
            inner, where = pending.pop()
            arguments = typing.get_args(inner)
            if inner is str:
                found.add(where)
            elif dataclasses.is_dataclass(inner):
                found |= strings_of(inner, seen)
            elif typing.get_origin(inner) is dict:
                pending += [(arguments[0], place + "{}"), (arguments[1], where)]
            else:
                pending += [(argument, where) for argument in arguments]
    return found


def test_every_string_of_pytorchs_schema_has_a_rule():
    ours = torch_serde._reader()
    needed = strings_of(schema.ExportedProgram, set()) | strings_of(schema.PayloadConfig, set())
    ruled = set(ours._rules) | set(ours._whole)
    ruled |= {place + "{}" for place in ours._whole}
    assert needed - ruled - {"NamedTupleDef.field_names"} == set()
    assert set(graph_rules.RULES) <= needed, "a rule for a field that does not exist"


@pytest.mark.parametrize("name", ["bert", "cond_on_data", "size_arithmetic", "while_loop"])
def test_we_build_the_same_dataclasses_as_pytorch(name):
    data = json.loads(torch_serde.graph_json(captured(name).exported))
    ours = torch_serde._reader().read(schema.ExportedProgram, data)
    theirs = torch_serde._serde._dict_to_dataclass(schema.ExportedProgram, data)
    plain = torch_serde._serde._dataclass_to_dict
    assert json.dumps(plain(ours), cls=Printed) == json.dumps(plain(theirs), cls=Printed)


class Printed(torch_serde._serde.EnumEncoder):
    def default(self, value):
        return sympy.srepr(value) if isinstance(value, sympy.Basic) else super().default(value)


EXPRESSIONS = [
    "Integer(3)",
    "Symbol('s36', positive=True, integer=True)",
    "Add(Mul(Integer(2), Symbol('s1', positive=True, integer=True)), Integer(-1))",
    "FloorDiv(Symbol('s1', integer=True), Integer(2))",
    "Mod(Symbol('s1', integer=True), Integer(2))",
    "Pow(Symbol('s1', integer=True), Integer(2))",
    "Max(Integer(1), Symbol('u0', integer=True))",
    "Rational(1, 2)",
    "Float('0.5', precision=53)",
    "And(Equality(Symbol('u0', integer=True), Integer(3)), true)",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_a_size_expression_is_the_same_as_sympy_reads_it(text):
    known = {n: f for n, f in symbols._FUNCTIONS.items() if n not in ("Max", "Min")}
    assert str(symbols.expression(text)) == str(sympy.sympify(text, locals=known))


GUARDS = [
    "L['x'].size()[0] <= 64",
    "L['x'].size()[0] % 2 == 0",
    "Eq(Mod(L['x'].size()[0], 2), 0)",
    "L['kwargs']['ids'][0].size()[1] >= 2 and L['x'].stride()[0] != 1",
    "not L['x'].storage_offset() < -1",
    "L['x'].size()[0]*L['y'].size()[1] < math.floor(L['y'].size()[0] / 2.5)",
]


@pytest.mark.parametrize("text", GUARDS)
def test_a_guard_on_sizes_is_accepted(text):
    assert symbols.check_guard(text) == text
