"""The conformance report's page: what it says, that it is safe, and that it works in a browser."""

import json
import re
import shutil
import subprocess

import pytest

from hardpoint.testing.check import LEVELS
from hardpoint.testing.journal import Result
from hardpoint.testing.report.build import Report, known_failures, levels
from hardpoint.testing.report.files import write_report
from hardpoint.testing.report.page import operators, page
from hardpoint.testing.report.page.words import figure, seconds
from html_pages import CHROMIUM, EVIL, Page, browse

CASES = [
    {"op": "kthvalue", "variant": "", "dtype": "float32", "state": "wrong", "reason": "sorts descending: 3.0 instead of 1.0"},
    {"op": "abs", "variant": "", "dtype": "float32", "state": "right", "reason": ""},
    {"op": "abs", "variant": "complex", "dtype": "complex64", "state": "unclaimed", "reason": "no complex numbers"},
    {"op": "svd", "variant": "", "dtype": "float32", "state": "crashed", "reason": "killed by SIGSEGV", "known": "bug 17"},
    {"op": "mul", "variant": "", "dtype": "bfloat16", "state": "refused", "reason": "compile raised: no bf16 unit"},
    {"op": "nonzero", "variant": "", "dtype": "int64", "state": "not_exportable", "reason": "data-dependent"},
]  # fmt: skip
OPERATORS = {
    "samples": 6, "run": 5, "claimed": 4, "right": 1, "wrong": 1, "operators_claimed": 4,
    "operators_right": 1, "seconds": 61.5, "notes": ["the cache was damaged and is ignored"],
    "cases": CASES,
}  # fmt: skip
CHECKS = [
    Result("loads_quickly", "loads", "Loading it takes less than 100 ms.", "passed", "", 0.4, {"ms": 12.345, "modules": [f"acme.m{i}" for i in range(20)]}),
    Result("wrong_value_is_named", "loads", "A wrong value is named.", "skipped", "no options are known", 0.01),
    Result("operators_are_right", "computes", "Every operator is right.", "failed", "2 samples of claimed operators are not right:\n  kthvalue float32", 62.0, {"operators": OPERATORS}),
    Result("runs_a_cnn", "computes", "``load`` of a CNN is right.", "passed", "", 3.25, {"max_error": 1.5e-6}),
    Result("nan_and_infinity", "computes", "NaN stays NaN.", "known", "the firmware flushes NaN to zero (bug 1234)", 0.2),
    Result("splits", "partitions", "Parts on another backend are right.", "passed", "", 1.0),
    Result("new_process", "packages", "The artifact survives a new process.", "crashed", "the process that ran it was killed by SIGSEGV", 9.0),
]  # fmt: skip


def report(checks=CHECKS, **more):
    return Report(
        **{
            "report": 1, "provider": "backend:acme", "kind": "backend",
            "distribution": "hardpoint-acme", "version": "1.2.0", "level": "loads",
            "known": known_failures(checks), "passed": False, "complete": True, "unavailable": "", "samples": "quick", "seconds": 75.9,
            "environment": {"hardpoint": "0.1.0", "torch": "2.13.0", "cores": "2"},
            "info": {"summary": "The Acme NPU", "precisions": ["fp16", "int8"], "unverified": ""},
            "settings": {"precision": "fp16", "config": {"devices": 1}, "options": {},
                         "expected_failures": {"nan_and_infinity": "bug 1234", "operator:svd": "bug 17"}},
            "levels": levels("backend", checks), "checks": [c.to_json() for c in checks],
            **more,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def shown():
    return Page(page(report()))


def test_the_head_names_the_provider_where_it_comes_from_and_the_verdict(shown):
    for said in ("backend:acme", "from hardpoint-acme 1.2.0 : The Acme NPU",
                 "Reaches loads, with 2 known failures : 2 checks failed", "3 passed", "1 known failures", "1 skipped",
                 "1 min 16 s in all"):  # fmt: skip
        assert said in shown.text, said


def test_each_level_says_in_words_whether_it_is_reached_and_why_not(shown):
    for said in ("✓ loads reached 1 passed · 1 skipped",
                 "✗ computes not reached: 1 check failed 1 passed · 1 failed · 1 known failure",
                 "\N{EN DASH} partitions not reached: a level below is not 1 passed",
                 "✗ packages not reached: 1 check failed",
                 "\N{EN DASH} robust not tried"):  # fmt: skip
        assert said in shown.text, said
    assert [li["class"] for li in shown.all("li") if "class" in li] == [
        "good",
        "bad",
        "none",
        "bad",
        "none",
    ]


def test_a_level_of_which_nothing_passed_says_so():
    skipped = [Result("a", "loads", "A.", "skipped", "not here")]
    said = Page(page(report(skipped, level="", passed=True))).text
    assert "loads not reached: no check of it passed 0 passed · 1 skipped" in said
    assert "Reaches no level : nothing failed" in said


def test_what_fails_comes_first_with_its_whole_reason_and_how_to_run_it_again(shown):
    text = shown.text
    assert text.index("What fails") < text.index("Known failures") < text.index("Every check")
    assert (
        "✗ failed computes Every operator is right. 2 samples of claimed operators are not right: kthvalue float32 hardpoint check backend:acme --checks operators_are_right"
        in text
    )
    assert (
        "✗ crashed packages The artifact survives a new process. the process that ran it was killed by SIGSEGV"
        in text
    )
    assert "What fails" not in Page(page(report([CHECKS[0]]))).text


def test_known_failures_stand_there_with_their_reasons(shown):
    assert "nan_and_infinity bug 1234" in shown.text
    assert "operator:svd bug 17" in shown.text


def test_every_check_is_in_the_table_with_outcome_time_and_figures(shown):
    table = shown.text.partition("Every check")[2]
    for check in CHECKS:
        assert " ".join(check.title.replace("``", " ").split()) in table
        assert check.name in table
    assert "computes (3 checks)" in table
    assert (
        "✓ passed Loading it takes less than 100 ms. loads_quickly 2 figures ms 12.35 modules acme.m0, acme.m1"
        in table
    )
    assert "acme.m11, and 8 more 0.40 s" in table
    assert (
        "\N{EN DASH} skipped A wrong value is named. wrong_value_is_named no options are known 0.01 s"
        in table
    )
    assert "! known failure NaN stays NaN." in table
    assert "max error 1.5e-06" in table


def test_operators_are_counted_and_listed_the_wrong_ones_first(shown):
    text = shown.text
    assert (
        "Of 5 samples of PyTorch's operator database it claims 4, and gets 1 of these right. These are samples of 4 operators; 1 are right in every one."
        in text
    )
    assert "the cache was damaged and is ignored" in text
    assert (
        "1 wrong 1 crashed 1 claimed, then refused 1 right 1 not claimed 1 not exportable by PyTorch"
        in text
    )
    rows = [row["data-state"] for row in shown.all("tr") if "data-state" in row]
    assert rows == ["wrong", "crashed", "refused", "right", "unclaimed", "not_exportable"]
    assert "kthvalue float32 wrong sorts descending: 3.0 instead of 1.0" in text
    assert "svd float32 crashed killed by SIGSEGV known: bug 17" in text
    assert "abs complex complex64 not claimed no complex numbers" in text
    bars = [float(r["width"]) for r in shown.all("rect")]
    assert len(bars) == 6
    assert sum(bars) == pytest.approx(1000, abs=1)


def test_a_report_without_samples_of_operators_has_no_such_section():
    others = [
        Result("values", "computes", "Values.", "passed", "", 1.0, {"operators": ["add", "mul"]})
    ]
    said = Page(page(report(others))).text
    assert "PyTorch's operator database" not in said
    assert "operators add, mul" in said


def test_of_very_many_samples_the_first_are_listed_and_that_is_said(monkeypatch):
    monkeypatch.setattr(operators, "ROWS", 2)
    shown = Page(page(report()))
    assert "The first 2 of 6 samples; the JSON file has all." in shown.text
    assert [r["data-state"] for r in shown.all("tr") if "data-state" in r] == ["wrong", "crashed"]


def test_what_a_reader_must_know_first_is_said(shown):
    said = Page(page(report(complete=False, unavailable="libacme.so.3 is missing",
                            info={"unverified": "no card at hand"}))).text  # fmt: skip
    assert "It cannot work on this machine: libacme.so.3 is missing" in said
    assert "Only a part of the suite was run; the levels count what was." in said
    assert "Not proven on real hardware: no card at hand" in said
    assert "it does not say what it is" in said
    assert "Only a part" not in shown.text
    assert "cannot work" not in shown.text


def test_facts_and_settings_are_listed(shown):
    for said in ("precisions fp16, int8", "torch 2.13.0", "cores 2", "samples quick",
                 'config {"devices": 1}'):  # fmt: skip
        assert said in shown.text, said
    plain = {"precision": "", "config": {}, "options": {}, "expected_failures": {}}
    assert "none: everything by default" in Page(page(report(settings=plain))).text


def test_every_element_is_closed_and_every_id_is_unique(shown):
    ids = [a["id"] for _, a in shown.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_page_needs_nothing_from_anywhere(shown):
    for tag, attributes in shown.tags:
        assert tag not in ("link", "img", "iframe", "object", "base", "a")
        for name in attributes:
            assert name not in ("src", "srcset", "style", "href")
            assert not name.startswith("on")
    assert not re.search(r"https?:|@import|url\(", "".join(shown.raw))
    (policy,) = shown.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy["content"]


def test_hostile_names_and_reasons_stay_text():
    checks = [
        Result("a", "loads", EVIL, "failed", EVIL, 0.1, {EVIL: EVIL, "deep": {"x": [EVIL]}}),
        Result("b", "loads", "B.", "skipped", EVIL, 0.1, {"list": [EVIL]}),
        Result("c", "computes", "C.", "failed", EVIL, 0.1, {"operators": {"notes": [EVIL], "cases": [
            dict.fromkeys(("op", "variant", "dtype", "state", "reason", "known"), EVIL)]}}),
    ]  # fmt: skip
    raw = page(
        report(checks, provider=EVIL, distribution=EVIL, version=EVIL, unavailable=EVIL,
               environment={"hardpoint": EVIL, EVIL: EVIL},
               info={"summary": EVIL, "unverified": EVIL, EVIL: EVIL},
               settings={"config": {EVIL: EVIL}, "expected_failures": {EVIL: EVIL}})
    )  # fmt: skip
    shown = Page(raw)
    assert [t for t, _ in shown.tags if t in ("script", "img")] == ["script"]
    assert "\u202e" not in raw
    assert "\x00" not in raw
    assert "\\u202e" in shown.text
    assert EVIL[:20] in shown.text


def test_a_long_reason_is_shown_and_one_without_end_is_cut():
    long = Result("a", "loads", "A.", "failed", f"begin {'x' * 3000} end")
    endless = Result("b", "loads", "B.", "failed", "y" * 10**6)
    raw = page(report([long, endless]))
    assert f"{'x' * 3000} end" in raw
    assert len(raw) < 60_000


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "yes"), (False, "no"), (1234567, "1,234,567"), (0.123456, "0.1235"),
        (float("nan"), "nan"), (None, "none"), ("", "none"), ("as it is", "as it is"), ([], "none"),
        (["a", 1, None], "a, 1, none"), ({"a": [1, 2]}, '{"a": [1, 2]}'), ([[1], 2], "[[1], 2]"),
    ],
)  # fmt: skip
def test_figures_are_written_for_people(value, words):
    assert figure(value) == words


@pytest.mark.parametrize(
    ("amount", "words"),
    [(0.0, "0.00 s"), (9.994, "9.99 s"), (12.3, "12 s"), (59.96, "1 min 0 s"), (200.0, "3 min 20 s"), (119.7, "2 min 0 s")],
)  # fmt: skip
def test_seconds_are_written_for_people(amount, words):
    assert seconds(amount) == words


def test_the_same_report_gives_the_same_page():
    assert page(report()) == page(report())


def test_json_and_page_are_written_side_by_side_and_the_json_is_strict(tmp_path):
    checks = [
        Result(
            "a",
            "loads",
            "A.",
            "passed",
            "",
            0.1,
            {"error": float("nan"), "most": float("inf"), "pair": (1, 2)},
        )
    ]
    data, shown = write_report(report(checks), tmp_path / "new" / "reports")
    assert [p.name for p in sorted(data.parent.iterdir())] == [
        "backend-acme.html",
        "backend-acme.json",
    ]

    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads(data.read_text("utf-8"), parse_constant=refuse)
    assert read["checks"][0]["figures"] == {"error": "nan", "most": "inf", "pair": [1, 2]}
    assert read["provider"] == "backend:acme"
    assert shown.read_text("utf-8") == page(report(checks))


def test_every_level_of_every_kind_gets_a_step():
    for kind, names in LEVELS.items():
        text = Page(page(report([], kind=kind, levels=levels(kind, [])))).text
        for name in names:
            assert f"{name} not tried" in text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_in_a_real_browser_the_script_runs_under_the_page_s_own_policy(tmp_path):
    _, path = write_report(report(), tmp_path)
    shown, said = browse(path, tmp_path)
    assert "hidden" not in shown.all("form", id="tools")[0]
    assert [o["value"] for o in shown.all("option")] == [
        "",
        "wrong",
        "crashed",
        "refused",
        "right",
        "unclaimed",
        "not_exportable",
    ]
    assert "Content Security Policy" not in said


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_in_a_real_browser_the_filter_keeps_the_rows_that_match(tmp_path):
    _, path = write_report(report(), tmp_path)
    # The page's own policy forbids a test's script, so the test takes a page without one.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text("utf-8"))
    act = (
        'const field = document.getElementById("filter"), state = document.getElementById("state");'
        'field.value = "FLOAT32"; field.dispatchEvent(new Event("input"));'
        'document.title = document.getElementById("found").textContent;'
        'state.value = "wrong"; state.dispatchEvent(new Event("change"));'
    )
    path.write_text(text.replace("</body>", f"<script>{act}</script></body>"), "utf-8")
    shown, _ = browse(path, tmp_path)
    rows = {row["data-state"]: "hidden" in row for row in shown.all("tr") if "data-state" in row}
    assert rows == {
        "wrong": False,
        "crashed": True,
        "refused": True,
        "right": True,
        "unclaimed": True,
        "not_exportable": True,
    }
    assert "3 of 6 samples" in shown.text
    assert "1 of 6 samples" in shown.text


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_is_valid_on_its_own(tmp_path):
    script = tmp_path / "page.js"
    script.write_text("".join(Page(page(report())).raw).partition('"use strict";')[2])
    subprocess.run(["node", "--check", str(script)], check=True)


def test_known_failures_are_counted_by_check_and_by_operator():
    cases = [
        {"op": "relu", "state": "right"},
        {"op": "kthvalue", "state": "wrong", "known": "bug 1"},
    ]
    found = [
        Result(
            "operators_are_right",
            "computes",
            "t",
            "passed",
            figures={"operators": {"cases": cases}},
        ),
        Result(
            "claimed_nodes_run_alone", "partitions", "t", "passed", figures={"operators": ["relu"]}
        ),
        Result("nan_and_infinity", "computes", "t", "known", "bug 2"),
    ]
    assert known_failures(found) == 2
