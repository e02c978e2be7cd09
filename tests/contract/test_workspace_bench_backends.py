"""tests/bench/backends.py: slices that are kept, put together, held against claims, on one page."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import hardpoint as hp
from bench_rows import benchmark, eager, row, timing
from hardpoint.measuring.candidate import Candidate

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def scripts(monkeypatch):
    """The modules of the script, as they import each other."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv("HARDPOINT_CACHE", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import backends
    import torch

    threads = torch.get_num_threads()
    yield backends
    torch.set_num_threads(threads)
    for name in [n for n in sys.modules if n == "backends" or n.startswith("_backend")]:
        del sys.modules[name]


def kept(scripts, folder, **more):
    return scripts.Kept(folder, {"rounds": 15}, {"table": {"errors": "held out"}}, **more)


def test_a_part_is_measured_once_and_again_where_settings_differ(scripts, tmp_path):
    done = []
    first = kept(scripts, tmp_path)
    for _ in range(2):
        found = first.measure("table", "net", lambda: done.append(1) or {"figure": 3})
        assert found["data"] == {"figure": 3}
    assert len(done) == 1
    assert kept(scripts, tmp_path).known("table", "net")["data"] == {"figure": 3}
    assert scripts.Kept(tmp_path, {"rounds": 3}, {}).known("table", "net") is None
    assert first.known("table", "net", budget=5.0) is None
    first.measure("table", "net", lambda: {"figure": 4}, budget=5.0)
    assert first.known("table", "net", budget=5.0)["data"] == {"figure": 4}


def test_a_setting_of_one_part_is_none_of_the_others(scripts, tmp_path):
    first = kept(scripts, tmp_path)
    for part in ("table-cpu-fp32", "cold"):
        first.measure(part, "net", dict)
    other = scripts.Kept(tmp_path, {"rounds": 15}, {"table": {"errors": "on the examples"}})
    assert other.known("table-cpu-fp32", "net") is None
    assert other.known("cold", "net") is not None


def test_versions_of_the_runtimes_count_as_settings(scripts, tmp_path, monkeypatch):
    kept(scripts, tmp_path).measure("table", "net", dict)
    import _backend_kept

    monkeypatch.setattr(_backend_kept, "versions", lambda: {"openvino": "1"})
    assert kept(scripts, tmp_path).known("table", "net") is None


def test_what_failed_is_told_and_tried_again_only_when_asked(scripts, tmp_path):
    tries = []

    def fail():
        tries.append(1)
        raise RuntimeError("the compiler\nfell over")

    for _ in range(2):
        assert kept(scripts, tmp_path).measure("table", "net", fail) is None
    assert len(tries) == 1
    assert kept(scripts, tmp_path).failed("table", "net") == "RuntimeError: the compiler fell over"
    assert scripts.Kept(tmp_path, {"rounds": 3}, {}).failed("table", "net") == ""
    again = kept(scripts, tmp_path, again=True)
    assert again.measure("table", "net", lambda: {"figure": 1})["data"] == {"figure": 1}
    assert again.failed("table", "net") == ""


def test_after_the_minutes_nothing_is_begun_and_what_is_left_is_said(scripts, tmp_path):
    run = kept(scripts, tmp_path, minutes=0)
    assert run.measure("table", "net", pytest.fail) is None
    assert run.left == ["table net"]
    assert not list(tmp_path.iterdir())


def slices():
    """Two slices; the machine was twice as slow while the second one ran."""
    fast = row("npu", 2.0, 1e-5, limit=1e-4)  # 5.00x
    slow = replace(row("cpu", 3.0, 1e-5), timing=timing(3.0, ratio=6.5))
    coarse = row("cpu", 1.0, 0.5, precision="int4w", limit=0.2)
    return benchmark([eager(10.0), fast]), benchmark([eager(20.0), slow, coarse], noisy=True)


def test_slices_make_one_table_and_a_busy_one_is_not_hidden(scripts):
    tables = scripts.tables
    made = tables.put_together(slices(), [tables.refused("dsp", "fp32", "no relu")])
    assert [r.label for r in made.rows] == [
        "npu fp32", "cpu fp32", "eager PyTorch", "cpu int4w", "dsp fp32"
    ]  # fmt: skip
    assert made.noisy
    assert made.heats == 2
    assert [r.target for r in made.rows].count("eager PyTorch") == 1


def test_the_fastest_is_so_beside_eager_whatever_the_machine_did_meanwhile(scripts):
    from _backend_claims import Claim, fastest

    made = scripts.tables.put_together(slices())

    def best(precision):
        return fastest(made, Claim("", (precision,), 1.0), 1)

    assert best("fp32").target == "cpu"
    assert best("int4w").label == "cpu int4w", "its error on random weights says nothing"
    assert best("int8") is None


def choice(label, backend, error, state="winner"):
    won = Candidate((hp.Target(backend),), {backend: "fp32"})
    return {"winner": label, "rows": [
        {"candidate": won.to_json(), "errors": {"max": error}, "state": "winner"},
        {"candidate": won.to_json(), "errors": None, "state": state},
    ]}  # fmt: skip


def test_the_best_of_each_kind_and_autos_choice_come_into_the_final(scripts):
    """The best by ratio and the best by time: eager was slow beside one of them, or was not."""
    made = scripts.tables.put_together(slices())
    found = scripts.tables.contenders(
        made, [(("fp32",), None), (("int4w",), None), ((), 1e-3)], [choice("gpu fp32", "gpu", 0.0)]
    )
    assert [c.label for c in found] == ["cpu fp32", "npu fp32", "cpu int4w", "gpu fp32"]
    assert found[0].key == Candidate((hp.Target("cpu"),), {"cpu": "fp32"}).key


def model(name, kind="cnn"):
    from _backend_models import Model

    def nothing(*_):
        pytest.fail("nothing is made for a page")

    return Model(name, kind, "1 x 3", nothing, nothing)


LIMITS = {"fp32": 1e11, "bf16": 2e11, "int8": 4e11, "bytes": 1e10}


@pytest.mark.parametrize(
    ("flops", "ratio", "says"),
    [
        (1e6, 2.0, "*reached*"),
        (5.5e8, 1.5, "*not reached*, because eager's 9 ms stand 1.64x over this machine's floor"),
        (1e6, 1.5, "*not reached*, because it takes 6 ms, 600.00x this machine's floor"),
        (
            1e9,
            1.5,
            "*not reached*, because it takes 6 ms, less than the floor of 10 ms that was measured",
        ),
    ],
)
def test_a_claim_is_reached_or_not_and_says_why(scripts, flops, ratio, says):
    from _backend_claims import claim_row, claims_of

    made = benchmark([replace(row("cpu", 6.0, 1e-5), timing=timing(6.0, ratio=ratio))])
    net = model("net")
    cells = claim_row(net, claims_of(net)[0], made, None, {"flops": flops, "weights": 1}, LIMITS)
    assert str(cells[-1]).startswith(says), cells


def test_saved_weights_are_those_of_what_is_compiled_not_of_the_package(scripts):
    from _backend_claims import claim_row, claims_of

    made = benchmark(
        [replace(row("cpu", 1.0, 1e-5, precision="int8w"), bytes=500, artifact_bytes=100)]
    )
    net = model("decoder", "decode")
    cells = claim_row(net, claims_of(net)[2], made, None, {"flops": 0, "weights": 100}, LIMITS)
    assert "75%" in cells
    assert cells[-1] == "*reached*"


def test_of_a_claim_on_speed_and_weights_the_fastest_that_meets_both_is_shown(scripts):
    from _backend_claims import claim_row, claims_of

    narrow = replace(row("cpu", 2.0, 1e-5, precision="int8w"), artifact_bytes=100)
    fast = replace(row("npu", 1.0, 1e-5, precision="int8w"), artifact_bytes=300)
    net = model("decoder", "decode")
    for rows, label, verdict in (
        ([narrow, fast], "cpu int8w", "*reached*"),
        ([fast], "npu int8w", "*not reached*, because the artifact saves 25.0% only"),
    ):
        work = {"flops": 0, "weights": 100}
        cells = claim_row(net, claims_of(net)[2], benchmark(rows), None, work, LIMITS)
        assert (cells[3], cells[-1]) == (label, verdict)


@pytest.mark.parametrize(
    ("ms", "ratio", "says"),
    [(30.0, 2.0, "in ms and by ratio"), (30.0, 1.2, "in ms"), (50.0, 2.0, "by ratio"), (50.0, 1.2, "no")],
)  # fmt: skip
def test_the_first_measurements_are_beaten_or_not(scripts, ms, ratio, says):
    from _backend_first import HEAD, first_rows

    made = benchmark([replace(row("npu", ms, 1e-5), timing=timing(ms, ratio=ratio))])
    [cells] = first_rows(model("resnet50"), made)
    assert len(cells) == len(HEAD)
    assert cells[:4] == ["resnet50", "fp32", "39.3 ms", "1.5x"]
    assert cells[-1] == says
    assert first_rows(model("net"), made) == []


def test_a_claim_on_likeness_leaves_out_what_is_fast_and_unlike(scripts):
    from _backend_claims import claim_row, claims_of

    rough = row("npu", 1.0, 1e-2, precision="int8", limit=0.1)
    rough = replace(rough, errors=replace(rough.errors, cosine=0.98))
    fine = row("cpu", 2.0, 1e-2, precision="int8", limit=0.1)
    fine = replace(fine, errors=replace(fine.errors, cosine=0.995))
    net = model("minilm", "transformer")
    labels = [
        claim_row(net, claim, benchmark([rough, fine]), None, {"flops": 0, "weights": 1}, LIMITS)[3]
        for claim in claims_of(net) if claim.precisions == ("int8",)
    ]  # fmt: skip
    assert labels == ["npu int8", "cpu int8"]


def test_what_a_process_saves_stands_beside_what_the_weights_do(scripts):
    from _backend_claims import claim_row, claims_of

    made = benchmark([replace(row("cpu", 1.0, 1e-5, precision="int8w"), artifact_bytes=100)])
    net = model("decoder", "decode")
    work = {"flops": 0, "weights": 100}
    cells = claim_row(net, claims_of(net)[2], made, None, work, LIMITS, {"cpu int8w": 0.61})
    assert cells[-2] == "75% (of a process's memory 61%)"


@pytest.mark.parametrize(
    ("in_final", "in_slice", "busy"), [(True, False, True), (False, True, False)]
)
def test_a_claim_says_that_the_machine_was_busy_when_what_it_rests_on_was_timed(
    scripts, in_final, in_slice, busy
):
    from _backend_claims import claim_row, claims_of

    rows = [replace(row("cpu", 6.0, 1e-5), timing=timing(6.0, ratio=2.0))]
    net = model("net")
    cells = claim_row(
        net, claims_of(net)[0], benchmark(rows, noisy=in_slice), benchmark(rows, noisy=in_final),
        {"flops": 1e6, "weights": 1}, LIMITS,
    )  # fmt: skip
    said = " (a busy machine: eager's own rounds differ)" if busy else ""
    assert cells[-1] == f"*reached*{said}"


def test_a_claim_that_nothing_can_meet_says_so(scripts):
    from _backend_claims import claim_row, claims_of

    net = model("net")
    cells = claim_row(net, claims_of(net)[2], benchmark([]), None, {}, LIMITS)
    assert str(cells[-1]).startswith("*not reached*, because nothing runs it")


@pytest.mark.parametrize(
    ("label", "backend", "error", "asked", "says"),
    [
        ("npu fp32", "npu", 1e-5, 1e-3, ["0.0%", "PASS"]),
        ("cpu fp32", "cpu", 1e-5, 1e-3, ["50.0%, by medians 50.0%", "FAIL"]),
        ("cpu fp32", "cpu", 1e-2, 1e-3, ["", "FAIL: beyond the error"]),
        ("gpu fp32", "gpu", 1e-5, 1e-3, ["its choice has no figures in the final", "FAIL"]),
    ],
)
def test_autos_choice_is_held_against_the_final(scripts, label, backend, error, asked, says):
    from _backend_pages import _auto_row

    finals = benchmark([eager(10.0), row("npu", 2.0, 1e-5), row("cpu", 3.0, 1e-5)])
    cells = _auto_row(model("net"), asked, choice(label, backend, error, "not tried"), finals)
    assert cells[-2:] == says
    assert "(1 not tried)" in cells[2]


def test_autos_choice_is_not_judged_before_the_final(scripts):
    from _backend_pages import _auto_row

    cells = _auto_row(model("net"), 1e-3, choice("npu fp32", "npu", 1e-5), None)
    assert cells[-2:] == ["the final was not run", ""]


def test_the_page_shows_all_that_is_known_and_says_what_is_not(scripts, tmp_path, monkeypatch):
    options = argparse.Namespace(
        only="minilm", targets="cpu", parts="table", show=False, quick=True, budget=None, rounds=15,
        threads=1, data=tmp_path / "data", cache=tmp_path / "cache", minutes=None, again=False, fresh=False,
    )  # fmt: skip
    monkeypatch.setattr(scripts, "machine_limits", lambda _: LIMITS)
    monkeypatch.setattr(
        scripts.Run, "table",
        lambda _run, _model, target, precision: {
            "work": {"flops": 1e6, "weights": 10},
            "bench": benchmark([eager(10.0), row(target, 5.0, 1e-5, precision=precision)]).to_json(),
        },
    )  # fmt: skip
    run = scripts.Run(options)
    run.measure()
    run.models = list(scripts.MODELS)
    page = scripts.Page("Backends")
    scripts.pages.write(page, run, None)
    text = "\n".join(page.parts)
    (claimed,) = [line.split() for line in text.splitlines() if "≥ 1.8x" in line]
    assert "minilm" in claimed
    assert "2.00x" in claimed
    assert claimed[-2] == "*reached*"
    (lacks,) = [line for line in text.splitlines() if line.startswith("**Not complete**")]
    for part in ("slices of resnet50", "the final of minilm", "cold of minilm", "calls of all", "accuracy on digits"):  # fmt: skip
        assert part in lacks
    assert "memory of minilm" not in lacks, "only a decoder's is measured"
    assert "resnet50" in text
    assert "Not measured." in text
    shown = scripts.Run(argparse.Namespace(**{**vars(options), "show": True, "only": ""}))
    shown.measure()
    assert shown.bench(run.models[3]).rows[0].label == "cpu fp32"
    assert json.loads(json.dumps(shown.waiting(run.models[0])))


def test_a_case_that_fails_costs_the_others_nothing(scripts):
    from _backend_cold import in_turn

    def broken():
        raise RuntimeError("exit status -9: ")

    notes = {}
    assert in_turn({"a": lambda: 1.0, "b": broken}, 2, notes) == {"a": [1.0, 1.0]}
    assert notes == {"b": "RuntimeError: exit status -9:"}


def test_memory_is_held_against_the_weights_in_fp32(scripts, tmp_path):
    won = Candidate((hp.Target("npu"),), {"npu": "int8w"}, "")
    data = {"weights": 1000, "rows": [{"label": "npu int8w", "private": 250, "mapped": 150}]}
    net = model("decoder", "decode")
    store = scripts.Kept(tmp_path, {}, {})
    store.measure("memory", net.name, lambda: data, candidates=[won.key])
    run = scripts.Run.__new__(scripts.Run)
    run.models, run.kept, run.winners = [net], store, lambda _: [won]
    page = scripts.Page("Backends")
    scripts.pages._memory(page, run)
    cells = [c.strip() for c in page.parts[-1].splitlines()[-1].strip("| ").split("|")]
    assert cells == ["npu int8w", "250 B", "150 B", "60%", "75%"]
