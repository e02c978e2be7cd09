"""The whole way through a package: compile, save, load elsewhere, fall back, refuse."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch.export.pt2_archive._package import load_pt2

import hardpoint as hp
from hardpoint.planning import compute_nodes


class Counter(torch.nn.Module):
    """State, nested results, a size among them, and enough weight to be mapped."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Linear(8, 256)
        self.outer = torch.nn.Linear(256, 8)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x, extra):
        self.calls.add_(1)
        y = self.outer(torch.relu(self.inner(x))) * extra["scale"]
        return {"y": y, "rows": x.shape[0], "calls": self.calls, "nothing": None}


def example(rows=3):
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 8, generator=generator), {"scale": torch.full((8,), 2.0)}


class Halves(hp.Partitioner):
    """The first half of the program on the first target, the rest on the second."""

    def partition(self, program, targets, objective, costs):
        nodes = compute_nodes(program)
        half = len(nodes) // 2
        return hp.Assignment({n.name: targets[int(i >= half)].target for i, n in enumerate(nodes)})


@pytest.fixture(scope="module")
def program():
    return hp.capture(Counter().eval(), example(), dynamic={"x": {0: "batch"}})


@pytest.fixture(scope="module")
def package(program, tmp_path_factory):
    compiled = hp.compile(hp.plan(program, targets="cpu"))
    return compiled.save(tmp_path_factory.mktemp("package") / "counter.pt2")


def test_a_loaded_package_gives_what_the_model_gives_call_after_call(package):
    model, loaded = Counter().eval(), hp.load(package)
    for rows in (3, 5, 2):
        want, got = model(*example(rows)), loaded(*example(rows))
        assert torch.equal(got["y"], want["y"])
        assert torch.equal(got["calls"], want["calls"])
        assert got["rows"] == rows
        assert got["nothing"] is None


def test_a_package_starts_from_the_state_the_model_was_captured_with(package):
    first, second = hp.load(package), hp.load(package)
    first(*example())
    assert first(*example())["calls"].item() == 2
    assert second(*example())["calls"].item() == 1


def test_verify_compares_with_the_results_recorded_where_it_was_made(package):
    loaded = hp.load(package)
    figures = loaded.verify()
    assert {name: d.error for name, d in figures.items()} == {"y": 0, "rows": 0, "calls": 0}
    assert loaded(*example())["calls"].item() == 1, "verifying must leave the state alone"


def test_weights_are_mapped_from_the_file_not_copied(package):
    loaded = hp.load(package)
    inner = loaded.segments[0].artifact.weights["inner.weight"]
    maps = Path("/proc/self/maps").read_text().splitlines()
    regions = [line for line in maps if "counter.pt2" in line]
    spans = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in regions]
    assert any(start <= inner.data_ptr() < stop for start, stop in spans)


def test_pytorch_itself_opens_the_package(package):
    opened = load_pt2(str(package)).exported_programs["model"]
    x, extra = example()
    results = opened.module()(x, extra["scale"])
    assert torch.equal(results[0], Counter().eval()(x, extra)["y"])


def test_a_package_runs_where_only_torch_core_and_plugin_are_imported(tmp_path):
    """transformers is barred, so the classes of the model's results cannot be found either."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 64, "vocab_size": 100}  # fmt: skip
    model = BertModel(BertConfig(**small)).eval()
    ids = torch.randint(0, 100, (2, 7))
    both = {0: "batch", 1: "seq"}
    program = hp.capture(model, kwargs={"input_ids": ids}, dynamic={"input_ids": both})
    package = hp.compile(hp.plan(program, targets="cpu")).save(tmp_path / "bert.pt2")
    wanted = model(input_ids=ids).last_hidden_state
    script = (
        "import sys, json; sys.modules['transformers'] = None\n"
        "import torch, hardpoint as hp\n"
        f"out = hp.load({str(package)!r})(input_ids=torch.tensor({ids.tolist()}))\n"
        "print(json.dumps([type(out).__name__, sorted(out), out.last_hidden_state.tolist()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    kind, fields, values = json.loads(done.stdout)
    assert kind == "Record"
    assert fields == ["last_hidden_state", "pooler_output"]
    assert torch.equal(torch.tensor(values), wanted)


def test_saving_a_loaded_package_gives_an_equal_one(package, tmp_path):
    again = hp.load(package).save(tmp_path / "again.pt2")
    figures = hp.load(again).verify()
    assert set(figures) == {"y", "rows", "calls"}
    assert all(d.error == 0 for d in figures.values())


def test_several_segments_and_targets_share_each_weight_once(program, tmp_path):
    import hardpoint_cpu.plugin

    registry = hp.Registry()
    registry.add("backend", "second", hardpoint_cpu.plugin)
    plan = hp.plan(program, targets=["cpu", "second"], partitioner=Halves(), registry=registry)
    compiled = hp.compile(plan, registry=registry)
    assert [str(t) for t in plan.targets] == ["cpu", "second"]
    package = compiled.save(tmp_path / "two.pt2")
    weights = sum(t.nbytes for t in program.exported.state_dict.values())
    assert package.stat().st_size < 3 * weights + 200_000
    loaded = hp.load(package, registry=registry)
    assert torch.equal(loaded(*example())["y"], Counter().eval()(*example())["y"])


@pytest.fixture
def elsewhere(program, tmp_path):
    """A package whose backend exists in one registry only."""
    import hardpoint_cpu.plugin

    registry = hp.Registry()
    registry.add("backend", "npu9", hardpoint_cpu.plugin)
    compiled = hp.compile(hp.plan(program, targets="npu9", registry=registry), registry=registry)
    return compiled.save(tmp_path / "npu.pt2")


def test_a_missing_target_is_an_error_that_offers_the_fallback(elsewhere):
    with pytest.raises(hp.ProviderNotFound) as caught:
        hp.load(elsewhere)
    assert "npu9" in str(caught.value)
    assert "fallback=['cpu']" in str(caught.value)


def test_a_fallback_is_taken_with_a_warning_and_an_event(elsewhere):
    registry, events = hp.Registry(), []
    registry.observe(events.append)
    with pytest.warns(hp.HardpointWarning, match=r"npu\.pt2 falls back to cpu: .*npu9"):
        loaded = hp.load(elsewhere, fallback=["cpu"], registry=registry)
    fell = [e for e in events if e.kind == "fell back"]
    assert len(fell) == 1
    assert fell[0].data["to"] == ["cpu"]
    assert torch.equal(loaded(*example())["y"], Counter().eval()(*example())["y"])


def test_no_fallback_is_taken_where_none_is_needed(package):
    registry, events = hp.Registry(), []
    registry.observe(events.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = hp.load(package, fallback="cpu", registry=registry)
    assert [event for event in events if event.kind == "fell back"] == []
    assert torch.equal(loaded(*example())["y"], Counter().eval()(*example())["y"])


@pytest.mark.parametrize("spoil", ["flip", "cut", "empty", "not a zip"])
def test_a_damaged_package_is_one_package_error(package, tmp_path, spoil):
    data = bytearray(package.read_bytes())
    if spoil == "flip":
        data[len(data) // 2] ^= 1
    elif spoil == "cut":
        data = data[: len(data) // 2]
    else:
        data = bytearray(b"" if spoil == "empty" else b"no archive at all")
    damaged = tmp_path / "damaged.pt2"
    damaged.write_bytes(data)
    with pytest.raises(hp.PackageError) as caught:
        hp.load(damaged)
    assert "damaged.pt2" in str(caught.value)
    assert caught.value.remedy
