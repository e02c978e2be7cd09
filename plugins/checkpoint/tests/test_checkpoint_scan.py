"""The scan: every global with its place, the reader's own decision, and others' verdicts beside."""

import importlib.util
import io
import json
import zipfile

import pytest
import torch
from checkpoint_forge import checkpoint, dictionary, name, pickled, tensor, text, tup

from hardpoint_checkpoint import others
from hardpoint_checkpoint.scan import scan

SYSTEM = name("posix", "system") + tup(text("id")) + b"R"
SPAWN = name("nowhere", "spawn") + tup(SYSTEM) + b"R"


def named(report):
    return {f"{each['module']}.{each['name']}": each["allowed"] for each in report["globals"]}


@pytest.mark.parametrize("new", [True, False])
def test_a_good_file_names_only_what_is_allowed(new, tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"a": torch.ones(2), "epoch": 3}, path, _use_new_zipfile_serialization=new)
    report = scan(path)
    assert report["refused"] is False
    assert report["reason"] is None
    assert named(report) == {
        "torch._utils._rebuild_tensor_v2": True,
        "torch.FloatStorage": True,
        "collections.OrderedDict": True,
    }


def test_every_global_is_listed_with_its_place_also_after_the_first_refused_one(craft):
    body = dictionary(x=SPAWN, w=tensor(), y=name("also", "this"))
    report = scan(craft(checkpoint(body)))
    assert report["refused"] is True
    assert "it asks for nowhere.spawn" in report["reason"]
    assert {key for key, allowed in named(report).items() if not allowed} == {
        "nowhere.spawn", "posix.system", "also.this",
    }  # fmt: skip
    places = {each["name"]: each["position"] for each in report["globals"]}
    assert places["system"] == pickled(body).index(b"cposix")
    json.dumps(report)


def test_a_file_may_be_refused_though_all_that_it_names_is_allowed(craft):
    report = scan(craft(checkpoint(dictionary(w=tensor(offset=9)))))
    assert all(named(report).values())
    assert report["refused"] is True
    assert "needs 13 elements" in report["reason"]


def test_the_pickles_of_all_shards_are_scanned(tmp_path, craft):
    torch.save({"a": torch.ones(2)}, tmp_path / "one.bin")
    craft(checkpoint(dictionary(b=tensor(), x=SYSTEM)), "two.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"a": "one.bin", "b": "two.bin"}}')
    report = scan(index)
    assert report["refused"] is True
    assert named(report)["posix.system"] is False
    assert {each["pickle"] for each in report["globals"]} == {
        "one.bin/data.pkl",
        "two.bin/data.pkl",
    }


def test_a_broken_archive_is_refused_with_the_reason(craft):
    report = scan(craft(checkpoint(dictionary(w=tensor()))[:-1]))
    assert report["refused"] is True
    assert "does not end with its directory" in report["reason"]
    assert report["globals"] == []


@pytest.mark.parametrize("tool", ["fickling", "picklescan"])
def test_others_verdicts_are_shown_and_decide_nothing(tool, craft, monkeypatch):
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed: it is an optional extra")
    report = scan(craft(checkpoint(dictionary(x=SYSTEM))))
    [verdicts] = [said for key, said in report["tools"].items() if key.startswith(tool)]
    assert verdicts[0].startswith("made.pt/a/data.pkl: ")
    assert "posix.system" in verdicts[0] or "malicious" in verdicts[0]
    monkeypatch.setattr("hardpoint_checkpoint.others._in_a_process", lambda *_: "all is well")
    assert scan(craft(checkpoint(dictionary(x=SYSTEM))))["refused"] is True


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("1 / 0", "failed (ZeroDivisionError"),
        ("while True: pass", "it was stopped after 1 seconds"),
    ],
)
def test_a_tool_that_fails_or_never_ends_is_told_and_decides_nothing(
    program, said, craft, monkeypatch
):
    if not any(map(importlib.util.find_spec, others.TOOLS)):
        pytest.skip("none is installed: they are an optional extra")
    monkeypatch.setattr(others, "_PROGRAM", program)
    monkeypatch.setattr(others, "_SECONDS", 1 if "while" in program else 60)
    report = scan(craft(checkpoint(dictionary(w=tensor()))))
    assert report["refused"] is False
    assert all(said in verdict for verdicts in report["tools"].values() for verdict in verdicts)


def test_nothing_of_the_folder_is_imported_to_ask_others(craft, tmp_path, monkeypatch):
    if importlib.util.find_spec("picklescan") is None:
        pytest.skip("picklescan is not installed: it is an optional extra")
    (tmp_path / "picklescan.py").write_text("raise SystemExit('imported from the folder')")
    monkeypatch.chdir(tmp_path)
    report = scan(craft(checkpoint(dictionary(x=SYSTEM))))
    [[verdict]] = [said for key, said in report["tools"].items() if key.startswith("picklescan")]
    assert "posix.system" in verdict


def test_without_the_tools_nothing_is_said(craft, monkeypatch):
    monkeypatch.setattr("hardpoint_checkpoint.others.find_spec", lambda name: None)
    assert scan(craft(checkpoint(dictionary(w=tensor()))))["tools"] == {}


@pytest.mark.parametrize(
    ("limit", "asked", "said"),
    [("_MOST_PICKLES", 3, "too many pickles"), ("_ALL_SECONDS", 0, "time is up")],
)
def test_others_are_asked_within_one_budget_for_all_pickles_of_a_file(
    limit, asked, said, tmp_path, monkeypatch
):
    monkeypatch.setattr(others, limit, asked)
    monkeypatch.setattr(others, "find_spec", lambda name: name == "picklescan" or None)
    monkeypatch.setattr(others, "version", lambda name: "1")
    monkeypatch.setattr(others, "_in_a_process", lambda name, raw, seconds: "fine")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for number in range(20):
            archive.writestr(f"a/{number:02}.pkl", pickled(text("x")))
    (tmp_path / "many.pt").write_bytes(made.getvalue())
    assert scan(tmp_path / "many.pt")["tools"] == {
        "picklescan 1": [
            *(f"many.pt/a/{number:02}.pkl: fine" for number in range(asked)),
            f"many.pt/a/{asked:02}.pkl: not asked: {said}",
        ]
    }


def command(*arguments):
    from click.testing import CliRunner

    from hardpoint.cli import main

    return CliRunner().invoke(main, ["weights", "scan", *map(str, arguments)])


def test_the_command_prints_it_and_ends_with_1_where_the_file_is_refused(craft, tmp_path):
    bad = craft(checkpoint(dictionary(w=tensor(), x=SYSTEM)))
    done = command(bad)
    assert done.exit_code == 1
    [line] = [line for line in done.stdout.splitlines() if line.startswith("posix.system")]
    assert line.split()[1:3] == ["NO", "made.pt/data.pkl"]
    assert "refused: " in done.stdout
    asjson = command(bad, "--json")
    assert asjson.exit_code == 1
    assert json.loads(asjson.stdout)["refused"] is True
    [found] = json.loads(asjson.stdout)["files"]
    assert (found["format"], found["refused"]) == ("checkpoint", True)
    good = craft(checkpoint(dictionary(w=tensor())), "good.pt")
    done = command(good)
    assert done.exit_code == 0
    assert "1 file: 0 refused, 1 fine, 0 that nobody reads" in done.stdout


def test_a_place_is_told_by_the_byte_of_the_file_too(craft, tmp_path):
    zipped = craft(checkpoint(dictionary(w=tensor(), x=SYSTEM)))
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    old = tmp_path / "old.pt"
    for path, member in ((zipped, "a/data.pkl"), (old, None)):
        for each in scan(path)["globals"]:
            raw = path.read_bytes()[each["offset"] :][: each["length"]]
            assert raw == name(each["module"], each["name"])
            assert (each["path"], each["member"]) == (str(path), member)


def test_other_formats_are_opened_with_their_own_readers(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(1)}, path)
    assert command(path).exit_code == 0
    path.write_bytes(path.read_bytes()[:-1])
    done = command(path)
    assert done.exit_code == 1
    assert "refused: " in done.stdout
    assert "the file is cut short" in done.stdout
