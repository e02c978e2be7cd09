"""One hostile file of each known kind through ``hardpoint weights scan``: refused, and with its reason."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper

from hardpoint.cli import main
from sarif_schema import checked

# Seconds a file may take, on a busy machine; most take a hundredth of one.
LIMIT = 30


class Runs:
    def __reduce__(self):
        return os.system, ("true",)


def saved(value, **how):
    made = io.BytesIO()
    torch.save(value, made, **how)
    return made.getvalue()


def zipped(*members, method=zipfile.ZIP_STORED):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return made.getvalue()


def checkpoint(body, **how):
    """An archive as torch.save makes, around any pickle."""
    return zipped(("a/data.pkl", b"\x80\x02" + body + b"."), ("a/version", b"3\n"), **how)


def laughs():
    """Thirty lists, each ten times the one before: 10^30 items, if anybody counted them."""
    body = b"]q\x000"
    for level in range(1, 31):
        body += b"](" + (b"h" + bytes([level - 1])) * 10 + b"eq" + bytes([level]) + b"0"
    return b"}X\x01\x00\x00\x00x" + body + b"h\x1es"


def npy(descr, shape, data=b""):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def objects():
    made = io.BytesIO()
    np.savez(made, w=np.array([Runs()], object))
    return made.getvalue()


def gguf(pair):
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + pair


def text(value):
    return struct.pack("<Q", len(value)) + value


def onnx(location):
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(2,))
    proto.data_location = TensorProto.EXTERNAL
    proto.external_data.add(key="location", value=location)
    graph = helper.make_graph([], "g", [], [], [proto])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return made.SerializeToString()


def safetensors(header):
    return struct.pack("<Q", len(header)) + header


EVIL = saved({"w": torch.ones(2), "x": Runs()})
OLD_EVIL = saved({"w": torch.ones(2), "x": Runs()}, _use_new_zipfile_serialization=False)

# name of the file -> (its bytes, part of the reason, dangerous global)
CASES = {
    "system.pt": (EVIL, "it asks for posix.system", "posix.system"),
    "system-legacy.pt": (OLD_EVIL, "it asks for posix.system", "posix.system"),
    "second-pickle.pt": (checkpoint(b"}.cposix\nsystem\n"), "bytes follow its end", None),
    "nested-pickle.pt": (
        checkpoint(b"}X\x01\x00\x00\x00xc_pickle\nloads\nB\x10\x00\x00\x00" + b"cposix\nsystem\n.." + b"\x85Rs"),
        "it asks for _pickle.loads", "_pickle.loads",
    ),
    "raw.pkl": (pickle.dumps(Runs(), 4), "this is no checkpoint", "posix.system"),
    "protocol-0.bin": (pickle.dumps(Runs(), 0), "this is no checkpoint", "posix.system"),
    "laughs.pt": (checkpoint(laughs()), "or 1000000 values", None),
    "marks.pt": (checkpoint(b"(" * 20_000), "groups are within each other", None),
    "endless-number.pt": (checkpoint(b"\x8b\xff\xff\xff\x7f"), "announced, and it ends before", None),
    "memo.pt": (checkpoint(b"Nr\xff\xff\xff\x7f"), "remembers an object under the number", None),
    "zip-in-zip.pt": (zipped(("a/model.pt", EVIL)), "it has no member data.pkl", None),
    "zip-bomb.pt": (
        checkpoint(b"X\x00\x00\x00\x04" + bytes(64 << 20), method=zipfile.ZIP_DEFLATED),
        "compress", None,
    ),
    "zip-bomb.npz": (
        zipped(("w.npy", npy("<f4", (1 << 38,)) + bytes(32 << 20)), method=zipfile.ZIP_DEFLATED),
        "takes 1099511627776 bytes", None,
    ),
    "zip-in-zip.npz": (zipped(("w.npz", objects())), "w.npz", None),
    "objects.npz": (objects(), "a pickle, which can run code", None),
    "terabytes.npy": (npy("<f4", (10**12,)), "takes 4000000000000 bytes", None),
    "parent.onnx": (onnx("../../etc/passwd"), "../../etc/passwd", None),
    "absolute.onnx": (onnx("/etc/passwd"), "/etc/passwd", None),
    "string.gguf": (gguf(text(b"k") + struct.pack("<IQ", 8, 1 << 62)), "4611686018427387904", None),
    "array.gguf": (gguf(text(b"k") + struct.pack("<IIQ", 9, 4, 1 << 60)), "4611686018427387904", None),
    "nested-array.gguf": (
        gguf(text(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 50_000), "nested more than 4 deep", None,
    ),
    "counts.gguf": (struct.pack("<4sIQQ", b"GGUF", 3, 1 << 60, 0), "1152921504606846976", None),
    "header.safetensors": (struct.pack("<Q", 1 << 60) + b"{}", "header", None),
    "deep.safetensors": (safetensors(b'{"a":' * 100_000), "nested too deeply", None),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request, tmp_path, monkeypatch):
    raw, reason, asked = CASES[request.param]
    (tmp_path / request.param).write_bytes(raw)
    monkeypatch.chdir(tmp_path)
    return request.param, reason, asked


def scan(*words):
    began = time.monotonic()
    ran = CliRunner().invoke(main, ["weights", "scan", *words], prog_name="hardpoint")
    assert time.monotonic() - began < LIMIT
    assert ran.exit_code == 1
    return ran.stdout


@pytest.mark.timeout(3 * LIMIT)
def test_it_is_refused_with_its_reason(case):
    file, reason, asked = case
    [found] = json.loads(scan(file, "--json"))["files"]
    assert found["status"] == "refused"
    assert reason in found["reason"]
    named = [f"{e['module']}.{e['name']}" for e in found["globals"] if not e["allowed"]]
    assert named == ([asked] if asked else [])


@pytest.mark.timeout(3 * LIMIT)
def test_sarif_tells_the_same(case, tmp_path):
    file, reason, asked = case
    results = checked(json.loads(scan(file, "--sarif")))["results"]
    assert [each["ruleId"] for each in results] == [
        *(["dangerous-global"] if asked else []), "refused-file",
    ]  # fmt: skip
    assert reason in results[-1]["message"]["text"]
    for each in results:
        place = each["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == file
        if each["ruleId"] == "dangerous-global":
            region = place["region"]
            raw = (tmp_path / file).read_bytes()[region["byteOffset"] :][: region["byteLength"]]
            module, name = asked.split(".")
            assert raw in (b"\x93", f"c{module}\n{name}\n".encode())


@pytest.mark.timeout(300)
def test_all_of_them_in_one_folder_as_a_program(tmp_path):
    for name, (raw, _, _) in CASES.items():
        (tmp_path / name).write_bytes(raw)
    command = [
        sys.executable,
        "-m",
        "hardpoint.cli",
        "weights",
        "scan",
        ".",
        "--sarif",
        "-o",
        "s.sarif",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last == f"{len(CASES)} files: {len(CASES)} refused, 0 fine, 0 that nobody reads"
    results = checked(json.loads((tmp_path / "s.sarif").read_text()))["results"]
    asked = sum(bool(each) for _, _, each in CASES.values())
    assert len(results) == len(CASES) + asked
