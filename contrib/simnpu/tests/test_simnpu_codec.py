"""The file ``program.json``: what is written is read, and nothing hostile gets to the machine."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from hardpoint import Artifact, ArtifactError, CompileOptions
from hardpoint_contrib_simnpu import codec, plugin
from hardpoint_contrib_simnpu.chip import SCRATCHPAD
from hardpoint_contrib_simnpu.isa import OPS, Instruction, Region, dense, fault
from hardpoint_contrib_simnpu.program import Port, Program, program_fault

BACKEND = plugin.hardpoint_backend_open({"dram_mib": 1})
DEVICE = BACKEND.devices()[0]
SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)
quick = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def artifact(function, export):
    """One with a weight, a convolution, a pool and int8."""

    def small(x, w, v):
        y = torch.nn.functional.max_pool2d(torch.nn.functional.conv2d(x, w, padding=1), 2)
        return torch.softmax(y.reshape(1, 8) @ v, -1)

    x = torch.linspace(-1, 1, 32).reshape(1, 2, 4, 4)
    module = function(small, torch.ones(2, 2, 3, 3), torch.eye(8))
    options = CompileOptions(precision="int8", example_inputs=(x,))
    return BACKEND.compile(export(module, x), DEVICE, options)


def load(artifact, data):
    return BACKEND.load(replace(artifact, files={codec.FILE: data}), DEVICE)


@st.composite
def programs(draw):
    """Well-formed programs: elementwise work on shapes of any rank, and matrices."""
    shape = draw(SIZES)
    tile = dense("pad", 0, "f16", shape)
    result = dense("pad", SCRATCHPAD // 2, "f16", shape)
    value = draw(st.floats(allow_nan=False, allow_infinity=False, width=32))
    middle = draw(
        st.sampled_from(
            [
                Instruction("RELU", result, (tile,)),
                Instruction("ADD", result, (tile, tile)),
                Instruction("MULI", result, (tile,), (value,)),
                Instruction("SOFTMAX", result, (tile,)),
            ]
        )
    )
    home = dense("dram", 64, "f16", shape)
    turned = Region("dram", 64, "f16", shape[::-1], home.strides[::-1])
    instructions = [
        Instruction("COPY_IN", home, (dense("host", 0, "f32", shape),)),
        Instruction("LOAD", dense("pad", 0, "f16", shape[::-1]), (turned,)),
        Instruction("LOAD", tile, (home,)),
        middle,
        Instruction("STORE", home, (result,)),
        Instruction("COPY_OUT", dense("host", 0, "f16", shape), (home,)),
    ]
    weights = {name: dense("const", 0, "i8", shape) for name in draw(st.sets(st.text(max_size=5)))}
    return Program(
        draw(st.sampled_from(["fp16", "int8"])),
        (Port("f32", shape),), (Port("f16", shape),), weights,
        const_bytes=max([home.elements] * bool(weights), default=0),
        dram_bytes=home.end, instructions=tuple(instructions),
    )  # fmt: skip


@quick
@given(programs())
def test_what_is_written_is_read(program):
    assert program_fault(program) is None
    assert codec.decode(codec.encode(program)) == program
    assert codec.decode(memoryview(codec.encode(program))) == program


@quick
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_an_artifact_error(data):
    with pytest.raises(ArtifactError):
        codec.decode(data)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**42) | st.floats(allow_nan=False)
    | st.sampled_from(["pad", "dram", "const", "host", "f16", "i8", "LOAD", "QUANT", "MATMUL8"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)  # fmt: skip


def paths(value, here=()):
    """Every place in a JSON value."""
    found = [here] if here else []
    if isinstance(value, (list, dict)):
        keys = range(len(value)) if isinstance(value, list) else value
        for key in keys:
            found += paths(value[key], (*here, key))
    return found


@settings(quick, max_examples=300)
@given(st.data())
def test_a_forged_program_is_refused_or_runs_within_its_memories(artifact, data):
    """What is read after all computes nonsense at worst: numbers of the declared shapes."""
    forged = json.loads(bytes(artifact.files[codec.FILE]))
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from(paths(forged)))
        inside = forged
        for key in path:
            inside = inside[key]
        inside[last] = data.draw(values | st.sampled_from([0, 1, 2, 3, 64, 128, 255]))
    try:
        run = load(artifact, json.dumps(forged).encode())
    except ArtifactError as error:
        assert error.cause
        return
    ports = {"f32": torch.float32, "f16": torch.float16}
    got = run(*(torch.ones(p.shape, dtype=ports[p.dtype]) for p in run.program.inputs))
    assert [tuple(t.shape) for t in got] == [p.shape for p in run.program.outputs]


@quick
@given(st.data())
def test_damaged_bytes_are_an_artifact_error_or_the_same_kind_of_program(artifact, data):
    whole = bytearray(artifact.files[codec.FILE])
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        del whole[place:]
    else:
        whole[place] ^= data.draw(st.integers(1, 255))
    try:
        load(artifact, bytes(whole))
    except ArtifactError as error:
        assert error.provider == "backend:simnpu"


def edited(artifact, change):
    data = copy.deepcopy(json.loads(bytes(artifact.files[codec.FILE])))
    change(data)
    return json.dumps(data).encode()


def instruction(data, op):
    """The first instruction with this opcode: [op, out, ins, numbers]."""
    return next(i for i in data["instructions"] if i[0] == op)


def put(value, *path):
    def change(data):
        *way, last = path
        inside = instruction(data, way.pop(0)) if path[0] in OPS else data
        for key in way:
            inside = inside[key]
        inside[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "what", "cause"),
    [
        (put("simnpu/2", "format"), "is for another version", "its format is 'simnpu/2', this plugin reads 'simnpu/1'"),
        (put("simnpu-b7", "chip"), "is for another chip", "its chip is 'simnpu-b7', this plugin reads 'simnpu-a1'"),
        (lambda d: d.pop("weights"), "is damaged", "it has the keys ["),
        (put(1, "extra"), "is damaged", "it has the keys ["),
        (put("fp8", "precision"), "is damaged", "its precision is 'fp8'"),
        (put("EXPLODE", "SOFTMAX", 0), "is damaged", "there is no opcode 'EXPLODE'"),
        (put(SCRATCHPAD - 8, "SOFTMAX", 1, 1), "is damaged", "is not a multiple of 64"),
        (put(SCRATCHPAD, "SOFTMAX", 1, 1), "is damaged", "an operand ends at byte 4,194,320 of pad, which has 4 MiB"),
        (put(2**30, "STORE", 1, 1), "is damaged", "of dram, which has"),
        (put([1, 9], "SOFTMAX", 1, 3), "is damaged", "operand [1, 8] gives [1, 9]"),
        (put("const", "STORE", 1, 0), "is damaged", "an operand lies in const, not in dram"),
        (put("dram", "SOFTMAX", 1, 0), "is damaged", "an operand lies in dram, not in pad"),
        (put("i8", "SOFTMAX", 1, 2), "is damaged", "an operand is i8, not f16"),
        (put([0.0], "QUANT", 3), "is damaged", "scale 0.0 is not positive"),
        (put([], "QUANT", 3), "is damaged", "it has 0 numbers, not 1"),
        (put([1], "QUANT", 3), "is damaged", "scale is 1, not a finite float"),
        (put(256, "CONV2D8", 3, 2), "is damaged", "pad_h is 256, not a whole number from 0 to 255"),
        (put(0, "CONV2D8", 3, 0), "is damaged", "kernel [2, 2, 3, 3] on image [2, 4, 4] gives [2, 4, 4]"),
        (put(0, "MAXPOOL", 3, 0), "is damaged", "window [0, 2] does not fit image [2, 4, 4]"),
        (put(7, "COPY_IN", 2, 0, 1), "is damaged", "host tensor 7 of 1"),
        (put([1, 2, 4, 5], "inputs", 0, 1), "is damaged", "host tensor 0 is f32[1, 2, 4, 5]"),
        (lambda d: d["instructions"].pop(), "is damaged", "it writes outputs [] of 1"),
        (lambda d: d["instructions"].append(d["instructions"][-1]), "is damaged", "it writes outputs [0, 0] of 1"),
        (put(True, "dram_bytes"), "is damaged", "True is no size or address"),
        (put([2, 0], "SOFTMAX", 1, 3), "is damaged", "0 is no size or address"),
        (put([1] * 17, "SOFTMAX", 1, 3), "is damaged", "0 to 16 dimensions may be there, found 17"),
        (put("tape", "SOFTMAX", 1, 0), "is damaged", "there is no memory 'tape'"),
        (put("f64", "SOFTMAX", 1, 2), "is damaged", "there is no dtype 'f64'"),
        (put(2**39, "dram_bytes"), "does not fit device 0", "it needs 524288 MiB"),
    ],
)  # fmt: skip
def test_each_fault_is_named(artifact, change, what, cause):
    with pytest.raises(ArtifactError) as caught:
        load(artifact, edited(artifact, change))
    assert what in caught.value.what
    assert cause in caught.value.cause
    assert "compile" in caught.value.remedy


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b'{"format":"simnpu/1","format":"simnpu/1"}', "the key 'format' stands there twice"),
        (b'{"format":NaN}', "NaN is no number of JSON"),
        (b"[" * 100_000, "recursion"),
        (b"[]", "it is no JSON object"),
        (b"\xff", "can't decode byte"),
        (b"9" * 10_000, "it is no JSON object|limit"),
    ],
)
def test_each_trick_of_json_is_named(data, cause):
    with pytest.raises(ArtifactError) as caught:
        codec.decode(data)
    assert any(part in caught.value.cause for part in cause.split("|"))


def test_a_file_beyond_the_limit_is_not_even_parsed(monkeypatch):
    monkeypatch.setattr(codec, "MAX_BYTES", 100)
    with pytest.raises(ArtifactError) as caught:
        codec.decode(b" " * 101)
    assert caught.value.cause == "it has 101 bytes, the limit is 100"


def test_weights_that_are_not_the_programs_are_refused(artifact):
    def with_weights(**changed):
        weights = {**artifact.weights, **changed}
        return replace(artifact, weights={k: v for k, v in weights.items() if v is not None})

    [name, *_] = artifact.weights
    tensor = artifact.weights[name]
    for forged, cause in [
        (with_weights(**{name: None}), f"the artifact lacks weight {name!r}"),
        (with_weights(zz=tensor), "its program does not know weight 'zz'"),
        (with_weights(**{name: tensor[:1]}), f"weight {name!r} is int8[1, 2, 3, 3], the program"),
        (with_weights(**{name: tensor.float()}), f"weight {name!r} is float32[2, 2, 3, 3], the"),
    ]:
        with pytest.raises(ArtifactError, match="weights are not those of its program") as caught:
            BACKEND.load(forged, DEVICE)
        assert cause in caught.value.cause


def test_foreign_and_empty_artifacts_are_refused(artifact):
    with pytest.raises(ArtifactError, match="'openvino/1' is not one that the simnpu backend"):
        BACKEND.load(Artifact("openvino/1"), DEVICE)
    with pytest.raises(ArtifactError, match=r"has no file program\.json"):
        BACKEND.load(Artifact("simnpu/1"), DEVICE)
    with pytest.raises(ArtifactError, match="has no device '1'") as caught:
        BACKEND.load(artifact, plugin.hardpoint_backend_open({"devices": 2}).devices()[1])
    assert caught.value.cause == "its devices are 0"


def test_the_listing_shows_every_instruction_for_people(artifact):
    listing = bytes(artifact.files[codec.LISTING]).decode()
    program = codec.decode(artifact.files[codec.FILE])
    lines = [line for line in listing.splitlines() if not line.startswith(";")]
    assert len(lines) == len(program.instructions) == artifact.metadata["instructions"]
    assert listing.startswith("; simnpu/1, precision int8, ")
    assert lines[0] == ("00000  COPY_IN  dram[0x000000] f16[1, 2, 4, 4] <- host[0] f32[1, 2, 4, 4]")
    assert any(" QUANT    pad[" in line and "i8[32] <- pad[" in line for line in lines)


def test_every_opcode_has_a_kernel_or_copies():
    from hardpoint_contrib_simnpu.kernels import KERNELS

    assert OPS.keys() - KERNELS.keys() == {"COPY_IN", "COPY_OUT", "LOAD", "STORE"}
    assert KERNELS.keys() <= OPS.keys()


def test_an_instruction_with_too_many_operands_is_refused():
    tile = dense("pad", 0, "f16", (2,))
    assert fault(Instruction("RELU", tile, (tile, tile))) == "it has 2 operands"
