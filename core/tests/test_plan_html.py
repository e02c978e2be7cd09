"""The page that draws a plan: whole, self-contained, safe, and usable for big plans too."""

import dataclasses
import itertools
import re
import stat
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given, strategies as st

from eager_backend import Provider
from hardpoint import Assignment, ConfigError, Partitioner, Registry
from hardpoint.page.markup import LONGEST, Markup, el, text
from hardpoint.planning import compute_nodes
from hardpoint.planning.costs import value_bytes
from hardpoint.planning.html import render_page
from hardpoint.planning.page import parts, picture
from hardpoint.planning.page.drawing import Box
from hardpoint.planning.page.flow import trace
from hardpoint.planning.page.layout import place
from hardpoint.planning.planner import plan_program
from hardpoint.program.capture import capture_module
from hardpoint.units import size
from html_pages import CHROMIUM, EVIL, Page, browse


class Counting(torch.nn.Module):
    """Several inputs and results, a buffer that is written back, an input that is written to."""

    def __init__(self, key="logits"):
        super().__init__()
        self.inner = torch.nn.Linear(8, 16)
        self.outer = torch.nn.Linear(16, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.key = key

    def forward(self, image, scale):
        self.calls.add_(1)
        hidden = torch.relu(self.inner(image))
        scale.mul_(2)
        return {self.key: self.outer(torch.nn.functional.gelu(hidden)) * scale, "hidden": hidden}


class Alternating(Partitioner):
    """The operations in runs of ``run``, each on the next target."""

    def __init__(self, run=1, reason=""):
        self.run, self.reason = run, reason

    def partition(self, program, targets, objective, costs):
        nodes = compute_nodes(program)
        chosen = {n.name: targets[i // self.run % len(targets)].target for i, n in enumerate(nodes)}
        return Assignment(chosen, dict.fromkeys(chosen, self.reason) if self.reason else {})


def make_plan(program, targets=("npu", "host"), partitioner=None, **claims):
    registry = Registry(path=[])
    for name in targets:
        registry.add("backend", name, Provider(name, **claims))
    chosen = partitioner or Alternating()
    return plan_program(program, registry=registry, targets=list(targets), partitioner=chosen)


@pytest.fixture(scope="module")
def program():
    inputs = (torch.randn(3, 8), torch.ones(()))
    return capture_module(Counting().eval(), inputs, dynamic={"image": {0: "batch"}}, name="tiny")


@pytest.fixture(scope="module")
def plan(program):
    return make_plan(program)


def test_every_element_is_closed_and_every_id_is_unique(plan):
    page = Page(render_page(plan))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link["href"].removeprefix("#") in ids


def test_the_page_needs_nothing_from_anywhere(plan):
    page = Page(render_page(plan))
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "base")
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "style")
            assert not name.startswith("on")
            assert name == "xmlns" or "://" not in (value or "")
            if name == "href":
                assert value.startswith("#")
    assert not re.search(r"https?:|@import|url\(", "".join(page.raw))
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy["content"]


def test_the_head_says_what_is_planned_and_in_what_sizes(plan):
    page = Page(render_page(plan)).text
    for said in ("tiny", "latency", "partitioner:Alternating", "image: float32[batch, 8]",
                 "hidden: float32[batch, 16]"):  # fmt: skip
        assert said in page
    assert re.search(r"sizes batch: \d+ or more", page)
    assert f"{len(plan.segments)} segments" in page
    assert f"{size(plan.crossing_bytes())} cross between segments" in page


def test_every_segment_is_drawn_tabled_and_detailed(plan):
    page = Page(render_page(plan))
    assert len(plan.segments) > 3
    for segment in plan.segments:
        assert len(page.all("a", href=f"#{segment.id}", **{"data-box": segment.id})) == 1
        assert len(page.all("div", id=segment.id)) == 1
        assert f"{segment.id} on {segment.target}: " in page.text
        for name in segment.nodes:
            assert name in page.words
    assert len(page.all("details", **{"class": "segment"})) == len(plan.segments)


def test_every_tensor_that_crosses_is_there_with_its_type_and_bytes(plan):
    page = Page(render_page(plan))
    made = {name: s.id for s in plan.segments for name in s.outputs}
    values = {n.name: n for n in plan.program.exported.graph.nodes}
    crossing = [(name, s.id) for s in plan.segments for name in s.inputs if name in made]
    assert crossing
    for name, taker in crossing:
        assert page.all("path", **{"data-from": made[name], "data-to": taker})
        value = trace(plan).values[name]
        assert value.nbytes == value_bytes(values[name])
        assert f"{name}: {value} · {size(value.nbytes)}" in page.text
    assert "relu: float32[batch, 16] · 192 B" in page.text


def test_inputs_results_and_what_is_written_back_are_ports(plan):
    page = Page(render_page(plan))
    for said in ("input image", "input scale", "state calls", "result logits", "result hidden",
                 "written to state calls", "written to input scale"):  # fmt: skip
        assert said in page.words, said
    flow = trace(plan)
    ends = {link.target for link in flow.links} | {link.source for link in flow.links}
    assert {p.id for p in flow.sources + flow.sinks} <= ends


def test_a_result_that_no_segment_makes_comes_from_its_input():
    class Same(torch.nn.Module):
        def forward(self, x):
            return x

    plan = make_plan(capture_module(Same().eval(), (torch.ones(2),)))
    page = Page(render_page(plan))
    assert plan.segments == ()
    assert page.all("path", **{"data-from": "from0", "data-to": "to0"})
    assert "0 operations" in page.text


def test_reasons_and_refusals_stand_with_the_operations_they_are_about(program):
    def claims(node):
        return "gelu" not in str(node.target)

    registry = Registry(path=[])
    registry.add("backend", "npu", Provider("npu", claims=claims))
    registry.add("backend", "host", Provider("host"))

    class Fallback(Partitioner):
        def partition(self, program, targets, objective, costs):
            chosen = {
                n.name: next(t for t in targets if n.name in t.support.supported).target
                for n in compute_nodes(program)
            }
            return Assignment(chosen, {"gelu": "host is the only one left"})

    plan = plan_program(program, registry=registry, targets=["npu", "host"], partitioner=Fallback())
    said = Page(render_page(plan)).text
    assert "host is the only one left not on npu: aten.gelu.default is not claimed gelu" in said
    assert "cannot run 1 operation 1 of them: aten.gelu.default is not claimed e.g. gelu" in said
    assert "The partitioner gave no reason of its own for these." in said


def test_targets_differ_without_colour_and_the_unused_ones_are_listed(program):
    class First(Partitioner):
        def partition(self, program, targets, objective, costs):
            return Assignment({n.name: targets[0].target for n in compute_nodes(program)})

    page = Page(render_page(make_plan(program, partitioner=First())))
    assert "runs 0 of" in page.text
    marks = [a["d"] for a in page.all("path", **{"class": "mark"})]
    assert len(marks) == 2
    assert len(set(marks)) == 2


def test_predicted_seconds_and_their_basis_are_shown_where_there_are_any(plan):
    assert "not predicted" in Page(render_page(plan)).text
    timed = dataclasses.replace(
        plan,
        segments=tuple(
            dataclasses.replace(s, cost=dataclasses.replace(s.cost, seconds=0.00025))
            for s in plan.segments
        ),
        basis="seconds: measured here",
    )
    said = Page(render_page(timed)).text
    assert "250 µs" in said
    assert "seconds: measured here" in said
    assert "predicted" in said
    assert "not predicted" not in said


def test_providers_that_were_left_out_stand_there_with_their_whole_reason(plan):
    skipped = (("acme", "backend:acme could not be loaded\n  cause: ImportError: libacme.so"),)
    page = Page(render_page(dataclasses.replace(plan, skipped=skipped)))
    assert "acme" in page.words
    assert skipped[0][1] in page.words
    assert "Left out" not in Page(render_page(plan)).text


def test_hostile_names_and_reasons_stay_text():
    model = Counting(key=EVIL[:60])
    program = capture_module(model.eval(), (torch.randn(3, 8), torch.ones(())), name=EVIL)
    plan = make_plan(program, partitioner=Alternating(reason=EVIL))
    device = dataclasses.replace(plan.segments[0].device, name=EVIL)
    plan = dataclasses.replace(
        plan,
        partitioner=EVIL,
        basis=EVIL,
        skipped=((EVIL, EVIL),),
        segments=tuple(dataclasses.replace(s, device=device) for s in plan.segments),
    )
    raw = render_page(plan)
    page = Page(raw)
    assert [t for t, _ in page.tags if t in ("script", "img")] == ["script"]
    assert "\u202e" not in raw
    assert "\x00" not in raw
    assert "\\u202e" in page.text
    assert EVIL[:20] in page.text


@given(st.text())
def test_any_text_becomes_text(raw):
    words = []
    parser = HTMLParser(convert_charrefs=True)
    parser.handle_data = words.append
    parser.handle_starttag = parser.handle_endtag = lambda *a: pytest.fail(f"markup: {a}")
    parser.feed(text(raw))
    parser.close()
    shown = "".join(words)
    assert all(c.isprintable() or c == "\n" for c in shown)
    if raw.isprintable() and len(raw) <= LONGEST:
        assert shown == raw


def test_attributes_are_escaped_and_markup_is_not_escaped_twice():
    made = el("p", el("b", "1 < 2"), " & ", Markup("<hr>"), cls='a"b', hidden=True, title=None)
    assert made == '<p class="a&quot;b" hidden><b>1 &lt; 2</b> &amp; <hr></p>'


def test_the_same_plan_gives_the_same_page(plan):
    assert render_page(plan) == render_page(plan)


def test_it_is_written_atomically_and_replaces_what_was_there(plan, tmp_path):
    path = tmp_path / "plan.html"
    path.write_text("old", "utf-8")
    assert plan.save_html(path) == path
    assert path.read_text("utf-8") == render_page(plan)
    assert list(tmp_path.iterdir()) == [path]
    fresh = tmp_path / "usual"
    fresh.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(fresh.stat().st_mode)


def test_a_page_that_cannot_be_written_says_why_and_leaves_nothing_behind(plan, tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "nowhere" / "plan.html"):
        with pytest.raises(ConfigError) as caught:
            plan.save_html(path)
        said = str(caught.value)
        assert said.startswith(f"the page {path} cannot be written\n  cause: ")
        assert "remedy: name a file in a folder that exists" in said
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.fixture(scope="module")
def big():
    """2,030 operations in 145 segments."""

    class Long(torch.nn.Module):
        def forward(self, x):
            for i in range(1015):
                x = (x + i) * 0.5
            return x

    program = capture_module(Long().eval(), (torch.ones(4),), name="long")
    plan = make_plan(program, targets=("a", "b", "c"), partitioner=Alternating(run=14))
    assert len(plan.segments) == 145
    return plan


def test_a_big_plan_stays_small_whole_and_says_what_is_folded(big):
    raw = render_page(big)
    assert len(raw.encode()) < 2_000_000
    page = Page(raw)
    for segment in big.segments:
        assert page.all("a", **{"data-box": segment.id})
    assert page.words.count("mul_1014") >= 1
    assert f"With more than {picture.COMPACT_ABOVE} segments, boxes are one line high" in page.text


def test_past_a_limit_it_draws_and_lists_the_first_and_says_so(big, monkeypatch):
    monkeypatch.setattr(picture, "DRAWN", 50)
    monkeypatch.setattr(parts, "ROWS", 100)
    page = Page(render_page(big))
    assert "Only the first 50 of 145 segments are drawn; the tables below have all." in page.text
    assert "The first 100 of 2,030 operations are listed" in page.text
    assert len([a for a in page.all("a") if "data-box" in a]) == 50
    assert len(page.all("details", **{"class": "segment"})) == 145
    assert "14 operations not listed here." in page.text


def test_many_inputs_of_one_kind_become_one_port_and_that_is_said():
    class Wide(torch.nn.Module):
        def forward(self, tensors):
            return {f"r{i}": t + 1 for i, t in enumerate(tensors)}

    program = capture_module(Wide().eval(), ([torch.ones(2)] * 20,))
    page = Page(render_page(make_plan(program)))
    assert "input 20 tensors" in page.words
    assert "result 20 tensors" in page.words
    assert "drawn as one" in page.text
    assert "input tensors.19" in page.words


@st.composite
def drawings(draw):
    lanes = draw(st.integers(1, 4))
    count = draw(st.integers(1, 14))
    boxes = [Box("in", None, 100, 30)]
    boxes += [Box(f"s{i}", draw(st.integers(0, lanes - 1)), 120, 20.0 + i) for i in range(count)]
    boxes += [Box("out", None, 100, 30)]
    pairs = [(a.id, b.id) for i, a in enumerate(boxes) for b in boxes[i + 1 :]]
    links = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=30))
    return boxes, links, lanes


def points(path):
    """Points along SVG path data of M, V and C."""
    x, y = 0.0, 0.0
    for command, words in re.findall(r"([MVC])([^MVC]*)", path):
        numbers = [float(n) for n in words.split()]
        if command == "M":
            x, y = numbers
        elif command == "V":
            yield from ((x, y + (numbers[0] - y) * i / 20) for i in range(21))
            y = numbers[0]
        else:
            xs, ys = [x, *numbers[0::2]], [y, *numbers[1::2]]
            for t in (i / 20 for i in range(21)):
                shares = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
                yield tuple(sum(s * v for s, v in zip(shares, c, strict=True)) for c in (xs, ys))
            x, y = numbers[-2:]


@given(drawings())
def test_boxes_do_not_overlap_and_keep_to_their_lanes(drawing):
    boxes, links, lanes = drawing
    layout = place(boxes, links, lanes, gap=40, heading=50)
    for i, a in enumerate(boxes):
        assert a.x >= 0
        assert a.x + a.width <= layout.width + 0.01
        assert a.y + a.height <= layout.height
        if a.lane is not None:
            left, width = layout.lanes[a.lane]
            assert left <= a.x
            assert a.x + a.width <= left + width + 0.01
        for b in boxes[:i]:
            beside = a.x + a.width <= b.x or b.x + b.width <= a.x
            assert beside or a.y + a.height <= b.y or b.y + b.height <= a.y


@given(drawings())
def test_lines_lead_downwards_from_their_source_to_their_target_through_no_box(drawing):
    boxes, links, lanes = drawing
    layout = place(boxes, links, lanes, gap=40, heading=50)
    for line, (source, target) in zip(layout.lines, links, strict=True):
        assert (line.source, line.target) == (source, target)
        path = list(points(line.path))
        (first_x, first_y), (last_x, last_y) = path[0], path[-1]
        start, end = layout.boxes[source], layout.boxes[target]
        assert first_y == pytest.approx(start.y + start.height, abs=0.1)
        assert last_y == pytest.approx(end.y, abs=0.1)
        assert start.x < first_x < start.x + start.width
        assert end.x < last_x < end.x + end.width
        assert all(b[1] >= a[1] - 0.1 for a, b in itertools.pairwise(path))
        for box in boxes:
            for x, y in path:
                beside = x <= box.x or x >= box.x + box.width
                assert beside or y <= box.y + 0.1 or y >= box.y + box.height - 0.1


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_in_a_real_browser_the_script_runs_and_an_address_opens_its_segment(plan, tmp_path):
    path = plan.save_html(tmp_path / "plan.html")
    page, said = browse(path, tmp_path, "#s1")
    assert "hidden" not in page.all("form", id="tools")[0]
    folded = ["open" not in a for a in page.all("details", **{"class": "segment"})]
    assert folded == [True, False, *[True] * (len(plan.segments) - 2)]
    assert "Content Security Policy" not in said
