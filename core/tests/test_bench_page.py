"""The page of a benchmark: what it shows, that it is safe, and that it works in a browser."""

import re
from dataclasses import replace

import pytest

from bench_rows import (
    ALL,
    COARSE,
    EAGER_ROW,
    EXACT,
    FAST,
    MACHINE,
    PARTIAL,
    benchmark,
    eager,
    row,
)
from hardpoint import BenchRow
from hardpoint.benching.page import render_page
from hardpoint.measuring.results import Failure
from html_pages import CHROMIUM, EVIL, Page, browse

TWO = [*ALL, eager(60.0, 8), row("cpu", 30.0, 3e-6, batch=8)]


@pytest.fixture(scope="module")
def shown():
    return Page(render_page(benchmark(TWO)))


def test_the_head_names_the_model_the_best_and_how_many_failed(shown):
    for said in ("Net", "npu:0 int8 tiled", "the best for latency", "2.5 ms", "4.00x",
                 "as fast as eager PyTorch", "5 / 3 rows timed / failed"):  # fmt: skip
        assert said in shown.text, said


def test_each_timed_row_is_a_point_and_its_number_is_the_tables(shown):
    points = [a for a in shown.all("g") if a.get("data-row")]
    assert len([a for a in points if a["data-row"] == "1"]) == 2, "in the scatter and in the lines"
    titles = shown.text
    assert "1: npu:0 int8 tiled, 2.5 ms, error 0.0200" in titles
    assert "4: eager PyTorch, 10 ms, error 0" in titles
    rows = [a for a in shown.all("tr") if a.get("data-row")]
    assert [a["data-row"] for a in rows][:4] == ["1", "2", "3", "4"]


def test_what_is_beyond_its_limit_is_hollow_and_off_the_front(shown):
    circles = [a["class"] for a in shown.all("circle") if "hollow" in a["class"]]
    assert len(circles) == 1
    assert len(shown.all("polyline", **{"class": "front"})) == 2, "one at each batch"


def test_failures_stand_in_the_same_table_with_their_reasons(shown):
    for said in ("covers 3 of 4 operations: no relu", "killed by SIGSEGV",
                 "not tried: the budget of 60 s was spent"):  # fmt: skip
        assert said in shown.text, said


def test_one_batch_has_no_plot_by_batch_and_nothing_timed_has_no_plot_at_all():
    assert "Latency by batch" not in render_page(benchmark())
    bare = Page(render_page(benchmark([PARTIAL])))
    assert bare.all("svg") == []
    assert "covers 3 of 4" in bare.text


@pytest.mark.parametrize("rows", [[EAGER_ROW], [EAGER_ROW, COARSE], [EXACT], [FAST, FAST]])
def test_few_points_still_make_a_plot(rows):
    assert len(Page(render_page(benchmark(rows))).all("svg")) == 1


def test_what_failed_while_it_was_timed_is_no_point():
    lost = replace(FAST, state="failed", failure=Failure("crashed", "call", "killed by SIGSEGV"))
    page = Page(render_page(benchmark([lost, EXACT, EAGER_ROW])))
    assert "error 0.0200" not in page.text
    assert "killed by SIGSEGV" in page.text


def test_an_infinite_error_is_a_number_to_the_script_that_sorts():
    cells = [a.get("data-value") for a in Page(render_page(benchmark())).all("td")]
    assert "Infinity" in cells
    assert not {"inf", "nan"} & set(cells)


def test_a_busy_machine_is_said_at_the_top():
    text = Page(render_page(benchmark(noisy=True, noise=1.9))).text
    assert text.index("The machine was busy") < text.index("Latency against error")


def test_the_page_needs_nothing_from_anywhere(shown):
    for tag, attributes in shown.tags:
        assert tag not in ("link", "img", "iframe", "object", "base", "a")
        for name in attributes:
            assert name not in ("src", "srcset", "style", "href")
            assert not name.startswith("on")
    assert not re.search(r"https?:|@import|url\(", "".join(shown.raw))


def test_hostile_names_and_reasons_stay_text():
    evil = BenchRow(EVIL, EVIL, EVIL, state="failed", failure=Failure("raised", EVIL, EVIL))
    timed = row(EVIL, 3.0, 1e-3, precision=EVIL)
    page = render_page(
        benchmark([evil, timed, *TWO], program=EVIL, machine={**MACHINE, "sdks": {EVIL: EVIL}})
    )
    seen = Page(page)
    assert not seen.all("img")
    assert len(seen.all("script")) == 1
    assert "\u202e" not in page
    assert "\x00" not in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser_the_table_is_sorted_by_what_was_asked(tmp_path):
    path = benchmark(TWO).save_html(tmp_path / "bench.html")
    seen, complaints = browse(path, tmp_path, "#p50%20ms")
    assert "Content Security Policy" not in complaints
    assert "Uncaught" not in complaints
    heads = [a for a in seen.all("th") if a.get("aria-sort")]
    assert [a["aria-sort"] for a in heads] == ["ascending"]
    buttons = seen.all("button", type="button")
    assert len(buttons) == len(seen.all("th")), "each head is a button"
    order = [a.get("data-row") for a in seen.all("tr") if a]
    assert order[:3] == ["5", "1", "2"], "the fastest first, even what is beyond its limit"
    assert order[-1] is None, "what has no figures stands last"
