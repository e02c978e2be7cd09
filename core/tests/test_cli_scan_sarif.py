"""``hardpoint weights scan`` over files and folders: tables, JSON and SARIF of the same findings."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import hardpoint as hp
from hardpoint import Registry
from hardpoint.cli import main
from hardpoint.weights.sarif import sarif
from hardpoint.weights.scan import FINE, REFUSED, UNKNOWN, Scanned, scan_paths

pytest.importorskip("hardpoint_checkpoint")
pytest.importorskip("hardpoint_safetensors")
pytest.importorskip("jsonschema")

from sarif_schema import checked


class Runs:
    """Asks its reader to run a command."""

    def __reduce__(self):
        import os

        return os.system, ("true",)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Good, bad, broken and strange files, some a folder deeper."""
    root = tmp_path / "model dir"
    (root / "deep").mkdir(parents=True)
    hp.save_weights({"w": torch.ones(3)}, root / "good.safetensors")
    torch.save({"w": torch.ones(3)}, root / "good.pt")
    torch.save({"w": torch.ones(3), "x": Runs()}, root / "deep" / "evil.pt")
    (root / "broken.safetensors").write_bytes((root / "good.safetensors").read_bytes()[:-1])
    (root / "deep" / "raw.dat").write_bytes(pickle.dumps(Runs()))
    (root / "README.md").write_text("# words")
    monkeypatch.chdir(tmp_path)
    return Path("model dir")


def run(*words):
    return CliRunner().invoke(main, ["weights", "scan", *map(str, words)], prog_name="hardpoint")


def statuses(ran):
    found = json.loads(ran.stdout)["files"]
    return {Path(each["file"]).name: each["status"] for each in found}


def test_every_file_below_a_folder_is_told(folder):
    ran = run(folder, "--json")
    assert ran.exit_code == 1
    assert statuses(ran) == {
        "README.md": UNKNOWN, "broken.safetensors": REFUSED, "good.pt": FINE,
        "good.safetensors": FINE, "evil.pt": REFUSED, "raw.dat": REFUSED,
    }  # fmt: skip


def test_a_summary_for_people_ends_with_counts(folder):
    ran = run(folder)
    assert ran.exit_code == 1
    lines = [line.rstrip() for line in ran.stdout.splitlines()]
    assert lines[-1] == "6 files: 3 refused, 2 fine, 1 that nobody reads"
    rows = {line.split("/")[-1].split()[0]: line for line in lines if line.startswith(str(folder))}
    assert rows["evil.pt"].endswith("REFUSED")
    assert rows["good.pt"].endswith("nothing is refused")
    assert "nobody reads it: it holds unknown data" in rows["README.md"]
    assert "posix.system NO evil.pt/data.pkl" in " ".join(ran.stdout.split())


def test_several_paths_are_scanned_in_one_run_and_each_file_once(folder):
    ran = run(folder / "good.pt", folder, folder / "deep", "--json")
    names = [Path(each["file"]).name for each in json.loads(ran.stdout)["files"]]
    assert sorted(names) == sorted(set(names))
    assert len(names) == 6


def test_good_files_end_with_0(folder):
    ran = run(folder / "good.pt", folder / "good.safetensors", "--json")
    assert ran.exit_code == 0
    assert set(statuses(ran).values()) == {FINE}


def test_strangers_below_a_folder_do_no_harm_but_one_that_is_named_was_not_scanned(folder):
    assert run(folder / "README.md").exit_code == 1
    for bad in ("broken.safetensors", "deep/evil.pt", "deep/raw.dat"):
        (folder / bad).unlink()
    assert run(folder).exit_code == 0


def test_a_folder_with_nothing_to_look_at_is_no_success(tmp_path):
    (tmp_path / "empty").mkdir()
    ran = run(tmp_path / "empty")
    assert ran.exit_code == 1
    assert ran.stdout == "0 files: 0 refused, 0 fine, 0 that nobody reads\n"
    (tmp_path / "empty" / "notes.txt").write_text("x")
    assert run(tmp_path / "empty").exit_code == 1


def test_sarif_says_where_each_dangerous_global_is_to_the_byte(folder):
    ran = run(folder, "--sarif")
    assert ran.exit_code == 1
    found = checked(json.loads(ran.stdout))
    globals_ = {
        each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]: each
        for each in found["results"]
        if each["ruleId"] == "dangerous-global"
    }
    assert set(globals_) == {"model%20dir/deep/evil.pt", "model%20dir/deep/raw.dat"}
    for uri, each in globals_.items():
        [location] = each["locations"]
        region = location["physicalLocation"]["region"]
        file = Path(uri.replace("%20", " "))
        raw = file.read_bytes()[region["byteOffset"] :][: region["byteLength"]]
        # GLOBAL with its names (protocol 2), or STACK_GLOBAL, whose names stand before it.
        assert raw in (b"cposix\nsystem\n", b"\x93")
        assert "posix.system" in each["message"]["text"]
    [logical] = globals_["model%20dir/deep/evil.pt"]["locations"][0]["logicalLocations"]
    assert logical == {
        "name": "data.pkl", "fullyQualifiedName": "evil/data.pkl", "kind": "resource",
    }  # fmt: skip


def test_sarif_has_refused_files_as_results_and_strangers_as_notifications(folder):
    found = checked(json.loads(run(folder, "--sarif").stdout))
    refused = {
        Path(each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]).name: each
        for each in found["results"]
        if each["ruleId"] == "refused-file"
    }
    assert set(refused) == {"broken.safetensors", "evil.pt", "raw.dat"}
    assert "cut short" in refused["broken.safetensors"]["message"]["text"]
    [note] = found["invocations"][0]["toolExecutionNotifications"]
    assert note["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("README.md")
    assert {each["properties"]["status"] for each in found["artifacts"]} == {FINE, REFUSED, UNKNOWN}
    assert len(found["artifacts"]) == 6


def test_what_is_allowed_is_no_result(folder):
    found = checked(json.loads(run(folder / "good.pt", "--sarif").stdout))
    assert found["results"] == []


def test_fingerprints_stay_when_a_file_moves_and_differ_between_findings(folder):
    def prints():
        results = checked(json.loads(run(folder, "--sarif").stdout))["results"]
        return {each["partialFingerprints"]["hardpoint/v1"] for each in results}

    before = prints()
    assert len(before) == 5
    (folder / "deep").rename(folder / "moved")
    assert prints() == before


def test_sarif_goes_to_a_file_and_the_table_to_people(folder, tmp_path):
    for _ in range(2):  # a report is replaced by the next
        ran = run(folder, "--sarif", "-o", "scan.sarif")
        assert ran.exit_code == 1
        assert "6 files: 3 refused" in ran.stdout
        assert len(checked(json.loads(Path("scan.sarif").read_text()))["results"]) == 5
    kept = (folder / "good.pt").read_bytes()
    ran = run(folder, "--sarif", "-o", folder / "good.pt")
    assert ran.exit_code == 2
    assert "is not a SARIF report" in " ".join(ran.stderr.replace("│", " ").split())
    assert (folder / "good.pt").read_bytes() == kept


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--json", "--sarif"], "Take --json or --sarif."),
        (["-o", "x.sarif"], "--output goes with --sarif."),
        (["--sarif", "-o", "no/where.sarif"], "cannot be written"),
    ],
)
def test_a_wrong_command_line_ends_with_2(folder, words, complaint):
    ran = run(folder, *words)
    assert ran.exit_code == 2
    assert complaint in ran.stderr


def test_as_a_program_stdout_is_sarif_and_nothing_else(folder):
    command = [sys.executable, "-m", "hardpoint.cli", "weights", "scan", str(folder), "--sarif"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(checked(json.loads(done.stdout))["results"]) == 5


def test_a_pickle_is_refused_even_where_nobody_can_read_it(tmp_path):
    (tmp_path / "weights").write_bytes(pickle.dumps(Runs()))
    [found] = scan_paths([tmp_path / "weights"], registry=Registry(path=[]))
    assert found.status == REFUSED
    assert found.reason.startswith("it holds a pickle, which can run code\n")
    assert "install hardpoint-checkpoint" in found.reason


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_known_under_any_name(protocol, tmp_path):
    path = tmp_path / "vocabulary"
    path.write_bytes(pickle.dumps(Runs(), protocol))
    [found] = scan_paths([tmp_path], registry=hp.default_registry())
    assert found.status == REFUSED
    assert [f"{each['module']}.{each['name']}" for each in found.dangerous] == ["posix.system"]


def deflated():
    """A checkpoint that our reader refuses before it comes to the pickle."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps(Runs()))
    return made.getvalue()


@pytest.mark.parametrize(
    "evil", [pickle.dumps(Runs()), b"N0cos\nsystem\n(S'true'\ntR.", deflated()]
)
def test_a_file_is_not_hidden_by_a_set_that_calls_it_its_part(evil, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("hardpoint_onnx")
    (tmp_path / "data.bin").write_bytes(evil)
    proto = onnx.TensorProto(name="w", data_type=onnx.TensorProto.UINT8)
    proto.dims.append((tmp_path / "data.bin").stat().st_size)
    proto.data_location = onnx.TensorProto.EXTERNAL
    proto.external_data.add(key="location", value="data.bin")
    graph = onnx.helper.make_graph([], "g", [], [], [proto])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    found = {
        each.file.name: each for each in scan_paths([tmp_path], registry=hp.default_registry())
    }
    assert found["m.onnx"].status == FINE
    assert found["data.bin"].status == REFUSED


def test_the_parts_of_a_distributed_checkpoint_stand_under_its_metadata(tmp_path):
    pytest.importorskip("hardpoint_dcp")
    hp.save_weights({"a": torch.ones(3), "b": torch.zeros(2)}, tmp_path / "c.dcp")
    [found] = scan_paths([tmp_path], registry=hp.default_registry())
    assert (found.file.name, found.status) == (".metadata", FINE)


def test_an_archive_of_something_else_is_a_stranger(tmp_path):
    with zipfile.ZipFile(tmp_path / "docs.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    [found] = scan_paths([tmp_path], registry=hp.default_registry())
    assert found.status == UNKNOWN


# Neither begins as pickles do: any opcode may come first.
@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.bin", "X.PT", "m.pth.tar"])
@pytest.mark.parametrize(
    "raw",
    [b"N0cos\nsystem\n(S'true'\ntR.", b"\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."],
)
@pytest.mark.parametrize("installed", [True, False])
def test_what_nobody_reads_is_refused_where_its_name_is_one_of_pickles(
    name, raw, installed, tmp_path
):
    (tmp_path / name).write_bytes(raw)
    registry = hp.default_registry() if installed else Registry(path=[])
    [found] = scan_paths([tmp_path], registry=registry)
    assert found.status == REFUSED
    assert found.reason.startswith("nobody reads it, and a file of that name may be a pickle\n")
    assert [each["name"] for each in found.dangerous] == ["system"] * installed


@pytest.mark.parametrize(
    "names",
    [
        ["a/notes.txt", "a/data.pkl", *(f"a/{number}{'x' * 70}" for number in range(15_000))],
        ["a/notes.txt", "a/DATA.PKL"],
        ["model.pt"],
    ],
    ids=["last of many", "capitals", "within"],
)
def test_an_archive_that_nobody_reads_is_refused_where_a_member_may_be_a_pickle(names, tmp_path):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for at, name in enumerate(names):
            how = zipfile.ZIP_STORED if at else zipfile.ZIP_DEFLATED
            archive.writestr(name, pickle.dumps(Runs()), how)
    (tmp_path / "weights.zip").write_bytes(made.getvalue())
    [found] = scan_paths([tmp_path], registry=hp.default_registry())
    assert found.status == REFUSED
    assert "a zip archive with such members may hold a pickle" in found.reason


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [("_MAX_ZIP", 300, "more than 300 bytes"), ("_MAX_ENTRIES", 3, "more than 3 members")],
)
def test_an_archive_too_large_to_search_is_refused(limit, value, reason, tmp_path, monkeypatch):
    monkeypatch.setattr(f"hardpoint.weights.scan.{limit}", value)
    with zipfile.ZipFile(tmp_path / "docs.zip", "w") as archive:
        for number in range(5):
            archive.writestr(f"{number}.txt", "x")
    [found] = scan_paths([tmp_path], registry=hp.default_registry())
    assert found.status == REFUSED
    assert f"a zip archive of {reason} is not searched" in found.reason


def test_a_model_with_its_usual_companions_is_fine(tmp_path):
    hp.save_weights({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    torch.save({"w": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03" + bytes(19))
    for name, text in {
        "config.json": "{}", "tokenizer.json": '{"version": "1.0"}', "README.md": "# words",
        "LICENSE": "MIT", "vocab.txt": "[PAD]\n[UNK]", "merges.txt": "#version: 0.2\na b",
        "modeling.py": "import os\n", ".gitattributes": "*.bin filter=lfs",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    for name in ("tokenizer.model", "spiece.model"):
        (tmp_path / name).write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    if find_spec("onnx") and find_spec("hardpoint_onnx"):
        from onnx import TensorProto, helper

        proto = TensorProto(name="w", data_type=TensorProto.UINT8, dims=(64,))
        proto.data_location = TensorProto.EXTERNAL
        proto.external_data.add(key="location", value="model_data.bin")
        (tmp_path / "model_data.bin").write_bytes(bytes(64))
        graph = helper.make_graph([], "g", [], [], [proto])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
        (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    ran = run(tmp_path, "--json")
    assert REFUSED not in statuses(ran).values(), ran.stdout
    assert statuses(ran)["pytorch_model.bin"] == FINE
    assert ran.exit_code == 0


def test_a_file_s_name_gives_the_terminal_no_orders(tmp_path):
    (tmp_path / "a\x1b[2Jb\n0 files: 0 refused.bin").write_bytes(b"x")
    (tmp_path / "c\x1b[2Jd.txt").write_bytes(b"x")
    ran = run(tmp_path)
    assert ran.exit_code == 1
    assert "\x1b" not in ran.stdout
    assert "\\x1b[2Jb\\n0 files: 0 refused.bin" in ran.stdout
    assert not [line for line in ran.stdout.splitlines() if line.startswith("0 files")]


def test_what_an_index_repeats_of_its_shards_is_told_once(tmp_path):
    torch.save({"a": torch.ones(1), "x": Runs()}, tmp_path / "one.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "one.bin"}}')
    found = scan_paths([tmp_path], registry=hp.default_registry())
    assert sum(len(each.dangerous) for each in found) == 1
    [alone] = scan_paths(
        [tmp_path / "pytorch_model.bin.index.json"], registry=hp.default_registry()
    )
    [place] = alone.dangerous
    assert Path(place["path"]).name == "one.bin"
    run = checked(sarif([alone], version="1", base=tmp_path))
    uris = [
        each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for each in run["results"]
    ]
    assert uris == ["one.bin", "pytorch_model.bin.index.json"]


def test_files_outside_the_folder_that_one_stands_in_have_whole_addresses(tmp_path):
    run = checked(
        sarif(
            [Scanned(Path("/elsewhere/x y.pt"), REFUSED, reason="no")], version="1", base=tmp_path
        )
    )
    [result] = run["results"]
    address = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert address == {"uri": "file:///elsewhere/x%20y.pt"}
