"""The table of a benchmark: its order, its front, its words; as text, JSON and CSV."""

import csv
import io
import json
import math
import os
import pty
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

import hardpoint as hp
from bench_rows import (
    ALL,
    COARSE,
    CRASHED,
    EAGER_ROW,
    EXACT,
    FAST,
    NAN,
    SLOW,
    benchmark,
    eager,
    row,
    timing,
)
from hardpoint.benching.benchmark import benchmark_from_json
from hardpoint.benching.columns import agreement, columns, figure, merged, remark
from hardpoint.benching.csv_file import is_ours, render
from hardpoint.benching.front import arrange, front
from hardpoint.benching.request import Request
from hardpoint.cli.bench_screen import fitting
from hardpoint.measuring.results import Errors, Failure


def labels(rows):
    return [r.label for r in rows]


def test_the_best_stands_first_then_what_is_beyond_then_what_failed_then_what_was_not_tried():
    assert labels(arrange(ALL, "latency")) == [
        "npu:0 int8 tiled", "cpu fp32", "gpu fp32", "eager PyTorch",  # by latency
        "npu:0 int4w",  # the fastest of all, but beyond its limit
        "gpu bf16", "gpu fp16", "dsp", "cpu int8",
    ]  # fmt: skip


def test_rows_are_sorted_by_the_objective():
    rows = [row("a", 1.0, 0.0), row("b", 2.0, 0.0)]
    assert labels(arrange(rows, "throughput")) == ["a fp32", "b fp32"]
    small = [hp.BenchRow(n, bytes=b, memory_bytes=m, state="timed") for n, b, m in
             (("a", 9, 1), ("b", 1, 9))]  # fmt: skip
    assert labels(arrange(small, "size")) == ["b", "a"]
    assert labels(arrange(small, "memory")) == ["a", "b"]


def test_the_front_holds_what_nothing_within_its_limit_beats_in_both():
    assert [r.label for r in arrange(ALL, "latency") if r.front] == [
        "npu:0 int8 tiled", "cpu fp32", "eager PyTorch"
    ]  # fmt: skip


def test_what_is_slower_than_eager_is_not_on_the_front_however_exact():
    assert front([eager(1.0), row("cpu", 2.0, 0.0)], 1) == [eager(1.0)]


points = st.tuples(st.floats(0.1, 100), st.floats(0, 1), st.sampled_from([1, 8]))


@given(st.lists(points, max_size=12))
def test_everything_off_the_front_is_beaten_by_something_on_it(found):
    rows = [row(f"t{i}", ms, e, limit=2.0, batch=b) for i, (ms, e, b) in enumerate(found)]
    for batch in (1, 8):
        on = front(rows, batch)
        for r in rows:
            if r.batch == batch:
                better = [o for o in on if o.timing.p50 <= r.timing.p50 and o.errors.max <= r.errors.max]  # fmt: skip
                assert better


def test_print_shows_a_line_a_row_and_says_how_it_was_measured():
    text = str(benchmark())
    lines = text.splitlines()
    assert lines[0].split() == ["target", "precision", "variant", "batch", "p50", "ms", "interval",
                                "p95", "ms", "p99", "ms", "samples/s", "x", "eager", "cold", "s",
                                "artifact", "package", "memory", "max", "error", "agreement", "remark"]  # fmt: skip
    assert lines[1].split() == ["*", "npu:0", "int8", "tiled", "1", "2.50", "2.38-2.63", "2.78",
                                "3.12", "400", "4.00", "0.250", "400.0", "kB", "1.5", "MB", "300.0", "MB",
                                "0.0200", "top-1", "97.5", "%"]  # fmt: skip
    assert lines[5].endswith("beyond 0.2, the usual error of int4w")
    assert lines[6].endswith("crashed in compile s0 for gpu: killed by SIGSEGV")
    assert lines[8].endswith("covers 3 of 4 operations: no relu")
    assert lines[9].endswith("not tried: the budget of 60 s was spent")
    assert "Acme Core 9, 2 cores, Linux 6.1 x86_64, 2 threads, avx512_vnni; PyTorch 2.13.0" in text
    assert "the front of latency against error" in text
    assert "busy" not in text


def test_a_busy_machine_and_several_heats_and_callers_are_said():
    text = str(benchmark(noisy=True, noise=1.72, heats=3, callers=2))
    assert "eager PyTorch's own rounds differ by 1.72x, so near ones may stand in any order" in text
    assert "Timed in 3 groups" in text
    assert "2 callers at the same time" in text


def test_the_best_is_right_and_timed():
    assert benchmark().best.label == "npu:0 int8 tiled"
    assert benchmark([COARSE, NAN]).best is None


def test_agreement_is_top_1_where_there_are_logits_else_cosine():
    cells = {c.name: c.cell for c in columns(ALL)}
    assert cells["agreement"](EXACT) == "top-1 97.5 %"
    assert cells["agreement"](NAN) == "cosine 0.00000"
    assert cells["max error"](NAN) == "infinite"


@pytest.mark.parametrize(
    ("share", "samples", "said"),
    [
        (1.0, 1, "top-1 1 of 1"),
        (0.75, 8, "top-1 6 of 8"),
        (1.0, 1000, "top-1 100 %"),
        (0.9999, 50_000, "top-1 99.99 %"),
        (0.99998, 50_000, "top-1 > 99.99 %"),
    ],
)
def test_an_agreement_says_no_more_than_its_samples_do(share, samples, said):
    assert agreement(Errors(0.1, 0.1, 1.0, share, samples)) == said


def test_the_notes_say_of_how_many_calls_the_percentiles_are():
    few = replace(FAST, timing=timing(2.5, calls=15))
    assert "p95 and p99 of all calls, 15 of each at the least" in str(benchmark([few, EXACT]))


def test_what_failed_alike_in_several_precisions_is_one_line_for_people():
    refused = Failure("refused", "compile", "tiled is for int8 only")
    rows = [
        hp.BenchRow("npu", p, "tiled", state="failed", failure=refused) for p in ("fp32", "bf16")
    ]
    (line,) = merged(rows)
    assert line.precision == "fp32, bf16"
    assert merged([EXACT, *rows])[0] == EXACT
    other = replace(rows[0], variant="wide")
    assert len(merged([*rows, other])) == 2
    assert sum("tiled is for int8 only" in text for text in str(benchmark(rows)).splitlines()) == 1
    assert len(benchmark(rows).to_json()["rows"]) == 2


def test_columns_that_say_nothing_are_not_there():
    assert "remark" not in [c.name for c in columns([EXACT])]
    assert "variant" not in [c.name for c in columns([EXACT])]
    assert "variant" in [c.name for c in columns([FAST])]


@pytest.mark.parametrize(("width", "gone"), [(None, []), (500, []), (120, ["interval", "p95 ms"])])
def test_a_narrow_screen_loses_the_least_columns_first(width, gone):
    there = [c.name for c in columns(ALL)]
    shown = [c.name for c in fitting(columns(ALL), ALL, width)]
    missing = [name for name in there if name not in shown]
    assert missing[: len(gone)] == gone or set(gone) <= set(missing)
    assert {"target", "precision", "p50 ms", "max error", "remark"} <= set(shown)


@given(st.floats(1e-12, 1e12))
def test_figures_keep_their_value(value):
    assert float(figure(value)) == pytest.approx(value, rel=6e-3)


def test_json_is_json_and_reads_back():
    bench = benchmark()
    text = json.dumps(bench.to_json(), allow_nan=False)
    again = benchmark_from_json(json.loads(text))
    assert again.rows == bench.rows
    assert math.isinf(again.rows[6].errors.max)
    assert str(again) == str(bench)


def test_csv_has_plain_units_and_no_formulas():
    evil = hp.BenchRow("=HYPERLINK(1)", state="failed", failure=CRASHED.failure)
    lines = list(csv.DictReader(io.StringIO(render(benchmark([*ALL, evil])))))
    first = lines[0]
    assert (first["program"], first["target"], first["variant"]) == ("Net", "npu:0", "tiled")
    assert float(first["p50_s"]) == 0.0025
    assert first["package_bytes"] == "1500000"
    assert first["on_front"] == "True"
    assert first["top1_agreement"] == "0.975"
    crashed = [line for line in lines if line["failure"] == "crashed"]
    assert crashed[0]["reason"] == "killed by SIGSEGV"
    assert {line["target"] for line in crashed} == {"gpu", "'=HYPERLINK(1)"}


def test_only_a_table_of_ours_is_known_as_one(tmp_path):
    mine, theirs = tmp_path / "bench.csv", tmp_path / "sales.csv"
    benchmark().save_csv(mine)
    theirs.write_text("program,customer\n1,2\n")
    assert is_ours(mine)
    assert not is_ours(theirs)
    assert not is_ours(tmp_path / "nowhere.csv")


def test_a_file_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(hp.ConfigError, match="cannot be written") as caught:
        benchmark().save_csv(tmp_path / "nowhere" / "a.csv")
    assert "name a file in a folder that exists" in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"objective": "latncy"}, "'latncy' is no objective"),
        ({"rounds": 0}, "rounds is 0"),
        ({"budget": -1.0}, "budget is -1.0"),
        ({"batches": (0,)}, "0 is no batch size"),
        ({"max_error": -1.0}, "max_error is -1.0"),
        ({"max_error": math.nan}, "max_error is nan"),
        # NaN where eager has none is an infinite error, and must never be within the limit.
        ({"max_error": math.inf}, "max_error is inf"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong, says):
    with pytest.raises(hp.ConfigError, match=says):
        Request(**wrong)


LIVE = """
    import sys
    from bench_rows import ALL, PARTIAL
    from hardpoint.benching.row import BenchRow
    from hardpoint.cli.bench_screen import BenchScreen
    with BenchScreen(shows_table=True) as screen:
        screen.progress(0, 0, "asking the backends")
        screen.watch([BenchRow("cpu", "fp32", batch=1)])
        screen.progress(1, 3, "cpu fp32: compiling s0")
        print("a library prints")
        screen.watch(ALL[:4])
    print("after")
"""


def test_on_a_terminal_the_table_fills_in_and_what_is_printed_meanwhile_goes_to_stderr():
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LIVE)], stdout=child, stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "150",
             "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    os.close(child)
    painted = b""
    try:
        while chunk := os.read(parent, 65536):
            painted += chunk
    except OSError:  # the other end is closed: Linux says so by an error
        pass
    assert process.stderr.read().decode().strip() == "a library prints"
    process.stderr.close()
    assert process.wait() == 0
    os.close(parent)
    text = painted.decode()
    assert "waiting" in text
    assert "killed by" in text
    assert text.index("waiting") < text.index("killed by") < text.index("after")


def test_a_row_says_what_is_done_with_it_until_there_are_figures():
    assert remark(hp.BenchRow("cpu", state="building")) == "building"
    assert remark(EXACT) == ""
    assert remark(SLOW) == ""
    assert remark(EAGER_ROW) == ""
