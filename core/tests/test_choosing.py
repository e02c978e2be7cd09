"""hp.compile(program, targets="auto"): the best of what is measured, with the table and reasons."""

import importlib.metadata
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import hardpoint as hp
from eager_backend import Provider
from fakes.dists import FakeSite
from fakes.vendor import vendor
from hardpoint.choosing.choice import Choice, choice_from_json
from hardpoint.choosing.mixes import mixes
from hardpoint.choosing.order import by_promise, in_order, variants_by_promise
from hardpoint.choosing.request import read_request
from hardpoint.choosing.row import Row
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.results import SAME_DATA, Errors, Failure, Timing

LINEAR = nn.Linear(4, 2).eval()


def _installed(*dists):
    found = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    return set(dists) <= found


@pytest.fixture(scope="module")
def program():
    return hp.capture(LINEAR, (torch.randn(3, 4),))


@pytest.fixture
def registry():
    made = hp.Registry()
    made.add("backend", "eager", Provider())
    return made


# One process makes all the choices: each costs processes of its own.
CHOOSE = """
import json, pathlib, sqlite3, sys, warnings, torch, hardpoint as hp

class Model(torch.nn.Module):
    def forward(self, x):
        return -torch.relu(x)

def main():
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    program = hp.capture(Model().eval(), (x,), dynamic={"x": {0: "n"}})
    notes, said = pathlib.Path(sys.argv[1]), {}

    def choose(name, **asked):
        notes.write_text("")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                compiled = hp.compile(program, targets="auto", **asked)
            except hp.HardpointError as error:
                said[name] = {"error": str(error)}
                return None
        x = torch.randn(7, 4)
        said[name] = {
            "choice": compiled.choice.to_json(), "text": str(compiled.choice),
            "compiled": notes.read_text().split("\\n")[:-1],
            "warnings": [str(w.message) for w in caught],
            "right": float((compiled(x) + torch.relu(x)).abs().max()),
            "allowed": compiled.verification["allowed"],
        }
        return compiled

    choose("no time", budget=1e-3)
    choose("latency")
    choose("size", objective="size")
    choose("again", objective="size")
    compiled = choose("auto", precision="auto", max_error=1.0, objective="memory")
    compiled.save(sys.argv[2])
    x = torch.randn(2, 4)
    assert torch.equal(hp.load(sys.argv[2])(x), compiled(x))
    known = sqlite3.connect(pathlib.Path(sys.argv[3], "measurements.sqlite3"))
    query = "SELECT package FROM choices WHERE request LIKE '%: _size_%'"
    [[winner]] = known.execute(query).fetchall()
    pathlib.Path(sys.argv[3], "packages", winner + ".pt2").write_bytes(b"damaged")
    choose("damaged", objective="size")
    print(json.dumps(said))

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choosing")
    site = FakeSite(folder / "site")
    source = vendor("slow", "big", "wrong", precisions=("fp32",))
    site.add_backend("vendor", source)
    script = folder / "script.py"
    script.write_text(CHOOSE)
    done = site.run(
        str(script), str(folder / "notes"), str(folder / "saved.pt2"), str(folder / "cache"),
        timeout=900, HARDPOINT_ALLOW="backend:vendor", HARDPOINT_CACHE=str(folder / "cache"),
        VENDOR_NOTES=str(folder / "notes"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    found["saved"] = folder / "saved.pt2"
    return found


def states(choice):
    return {row["candidate"]["variant"]: row["state"] for row in choice["rows"]}


def test_without_time_nothing_is_compiled_and_the_error_says_what_was_not_tried(said):
    error = said["no time"]["error"]
    assert error.startswith("no target was found that runs Model within the error asked for\n")
    assert "vendor fp32: not tried" in error
    assert "vendor fp32 slow: not tried" in error
    assert "budget=" in error


def test_the_fastest_wins_and_the_clearly_slower_one_is_given_up_early(said):
    choice = said["latency"]["choice"]
    found = states(choice)
    # A slept 50 ms is beyond any noise; "big" is the default with ballast in its package.
    assert found["slow"] == "slower"
    assert found["wrong"] == "failed"
    assert {found[""], found["big"]} <= {"winner", "timed", "slower"}
    [slow] = [row for row in choice["rows"] if row["candidate"]["variant"] == "slow"]
    assert slow["timing"]["rounds"] == 3
    assert slow["timing"]["p50"] > 0.05
    assert choice["rows"][0]["timing"]["rounds"] >= 15
    assert choice["rows"][0]["timing"]["p50"] < 0.05
    assert not choice["remembered"]
    assert said["latency"]["compiled"] == ["default fp32", "slow fp32", "big fp32", "wrong fp32"]


def test_every_choice_gives_right_numbers_within_what_was_allowed(said):
    for name in ("latency", "size", "again", "damaged"):
        assert said[name]["right"] == 0.0, name
    assert said["latency"]["allowed"] == 1e-4
    # As large as the model's results, "wrong" may use the least memory, or not.
    off = 0.5 if states(said["auto"]["choice"])["wrong"] == "winner" else 0.0
    assert said["auto"]["right"] == pytest.approx(off, abs=1e-6)
    assert off < said["auto"]["allowed"] == 1.0


def test_another_objective_compiles_nothing_again(said):
    assert said["size"]["compiled"] == []
    choice = said["size"]["choice"]
    sizes = {row["candidate"]["variant"]: row["bytes"] for row in choice["rows"]}
    assert choice["rows"][0]["bytes"] == min(sizes[v] for v in ("", "slow", "big"))
    assert choice["winner"] != "vendor fp32 big"
    assert sizes["big"] > 2**20
    assert states(choice)["wrong"] == "failed"


def test_the_same_choice_is_known_the_second_time(said):
    first, second = said["size"]["choice"], said["again"]["choice"]
    assert second["remembered"]
    assert second["winner"] == first["winner"]
    assert second["rows"] == first["rows"]
    assert "Known from before; nothing was run." in said["again"]["text"]


def test_a_wider_limit_lets_in_what_was_too_far_off_before(said):
    choice = said["auto"]["choice"]
    assert states(choice)["wrong"] in ("ready", "winner")
    # Its figures were known, but not its package: what nobody may use is not kept.
    assert said["auto"]["compiled"] == ["wrong fp32"]


def test_damaged_packages_are_told_of_and_compiled_again(said):
    assert len(said["damaged"]["compiled"]) == 1
    assert any("was changed since it was written" in w for w in said["damaged"]["warnings"])


def test_what_was_chosen_can_be_saved_and_loaded(said):
    assert said["saved"].stat().st_size > 1000  # the script has compared what it gives


@pytest.mark.skipif(
    not _installed("hardpoint-cpu", "hardpoint-partitioners"), reason="needs cpu and partitioners"
)
def test_a_part_of_the_model_on_each_of_two_backends_is_a_candidate_too(tmp_path):
    site = FakeSite(tmp_path / "site")
    site.add_backend("vendor", vendor())
    (tmp_path / "made.py").write_text(
        "import torch\n"
        "def make():\n"
        "    layers = torch.nn.ReLU(), torch.nn.Linear(4, 4), torch.nn.ReLU()\n"
        "    return torch.nn.Sequential(*layers).eval(), (torch.randn(3, 4),)\n"
    )
    done = site.cli(
        "compile", f"{tmp_path / 'made.py'}:make", "--objective", "size", "-o",
        str(tmp_path / "m.pt2"), "--json", "--option", "cpu.mode=eager",
        HARDPOINT_CACHE=str(tmp_path / "cache"),
        HARDPOINT_ALLOW="backend:vendor,backend:cpu,partitioner:capability",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    rows = {row["label"]: row for row in facts["choice"]["rows"] if not row["candidate"]["variant"]}
    assert rows["cpu fp32"]["segments"] == 1
    assert rows["vendor + cpu fp32 by capability"]["segments"] == 3
    assert all(row["failure"] is None for row in rows.values())
    assert facts["verification"]["precision"] == "fp32"
    assert facts["package"]["bytes"] == (tmp_path / "m.pt2").stat().st_size


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """``hardpoint compile`` by latency on a slow backend that is right, and fast where it is wrong.

    Gives the finished process.
    """
    folder = tmp_path_factory.mktemp("hasty")
    site = FakeSite(folder / "site")
    site.add_backend("vendor", vendor("wrong", default="slow"))
    (folder / "made.py").write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.ReLU().eval(), (torch.linspace(-1, 1, 12),)\n"
    )

    def compile_with(*more):
        return site.cli(
            "compile", f"{folder / 'made.py'}:make", "--objective", "latency", "--budget", "60",
            "-o", str(folder / "made.pt2"), *more,
            HARDPOINT_CACHE=str(folder / "cache"), HARDPOINT_ALLOW="backend:vendor",
        )  # fmt: skip

    return compile_with


def test_the_command_takes_the_fastest_of_those_within_the_error(hasty):
    done = hasty("--max-error", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    rows = {row["label"]: row for row in facts["choice"]["rows"]}
    assert facts["choice"]["winner"] == "vendor fp32"
    assert rows["vendor fp32"]["state"] == "winner"
    assert rows["vendor fp32"]["timing"]["p50"] > 0.05  # the other does not sleep
    assert rows["vendor fp32"]["errors"]["max"] <= 0.1
    assert facts["verification"]["max_error"] <= facts["verification"]["allowed"] == 0.1
    assert rows["vendor fp32 wrong"]["errors"]["max"] == pytest.approx(0.5)
    assert "at most 0.1 is allowed" in rows["vendor fp32 wrong"]["failure"]["reason"]


def test_the_command_says_how_far_off_each_is_where_nothing_is_within_the_error(hasty):
    done = hasty("--max-error", "0.1", "--option", "vendor.how=wrong")  # its only way now
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(
        "error: no target was found that runs ReLU within the error asked for\n"
        "  cause: vendor fp32: wrong in verification: error 0.5, at most 0.1 is allowed "
    )
    assert "\n  remedy: allow more with max_error= or budget=, " in done.stderr


def test_a_backend_of_this_process_alone_cannot_be_measured(program, tmp_path, monkeypatch):
    monkeypatch.setenv("HARDPOINT_CACHE", str(tmp_path))
    alone = hp.Registry(path=[])
    alone.add("backend", "eager", Provider())
    with pytest.raises(hp.CompileError) as caught:
        hp.compile(program, registry=alone)
    assert str(caught.value) == (
        "no target was found that runs Linear within the error asked for\n"
        "  cause: eager: it was added in this process, so no child process can find it\n"
        "  remedy: allow more with max_error= or budget=, or name targets: hp.plan(program, "
        "targets=[...])"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"objective": "latencies"},
            "'latencies' is no objective\n  remedy: did you mean 'latency'?",
        ),
        ({"precision": "fp23"}, "'fp23' is no precision\n  remedy: did you mean 'fp32'?"),
        ({"precision": {"cpu": "bf16"}}, "targets='auto' has yet to choose them"),
        ({"budget": 0}, "a budget's seconds is 0"),
        ({"timeout": 3.0}, "timeout= goes with isolate="),
        (
            {"options": {"egaer": {"mode": "aot"}}},
            "options name 'egaer', which is no backend here\n  remedy: did you mean 'eager'?",
        ),
        ({"targets": "eager", "budget": 3.0}, "budget= is for targets='auto'"),
    ],
)
def test_what_contradicts_itself_is_said_before_anything_runs(program, registry, arguments, says):
    with pytest.raises(hp.ConfigError) as caught:
        hp.compile(program, registry=registry, **arguments)
    assert says in str(caught.value)


def test_a_plan_has_its_targets_already(program, registry):
    plan = hp.plan(program, targets="eager", registry=registry)
    with pytest.raises(hp.ConfigError, match="a plan has its targets and its objective already"):
        hp.compile(plan, targets="auto", registry=registry)


def test_a_program_for_named_targets_is_planned_and_compiled(program, registry):
    model = hp.compile(program, targets="eager", registry=registry)
    x = torch.randn(3, 4)
    assert torch.equal(model(x), LINEAR(x))
    assert model.choice is None


def test_auto_precision_is_within_a_hundredth(program):
    auto = read_request("latency", "auto", None, None, None)
    assert set(auto.max_error.values()) == {1e-2}
    assert in_order(program, auto)[0] == "fp32"
    one = read_request("latency", "bf16", None, None, hp.Budget(seconds=5))
    assert (one.precisions, one.max_error) == (("bf16",), {"bf16": 3e-2})
    assert in_order(program, one) == ["bf16"]


def test_what_is_hardly_ever_within_the_error_is_tried_last(program):
    tight = read_request("latency", "auto", 4e-3, None, 60)
    assert tight.budget.seconds == 60
    assert in_order(program, tight) == ["fp32", "fp16", "bf16", "int8w", "int4w", "int8"]


class Tied(nn.Module):
    """Its head is its embedding, which a call reads one row of there and all of here."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)

    def forward(self, ids):
        return self.embed(ids) @ self.embed.weight.T


IDS = torch.zeros(1, 1, dtype=torch.int64)


@pytest.mark.parametrize(
    ("model", "args", "narrow_first"),
    [
        (nn.Linear(64, 64), torch.randn(1, 64), True),
        (nn.Linear(64, 64), torch.randn(64, 64), False),
        (nn.Linear(64, 64).bfloat16(), torch.randn(6, 64).bfloat16(), True),
        (nn.Linear(64, 64).bfloat16(), torch.randn(10, 64).bfloat16(), False),
        (nn.Conv2d(3, 4, 3), torch.randn(1, 3, 16, 16), False),
        (Tied(), IDS, True),
        (Tied(), IDS.expand(1, 40).clone(), False),
        (nn.ReLU(), torch.randn(4), False),
    ],
    ids=["1 row", "64 rows", "6 rows", "10 rows", "conv", "1 token", "40 tokens", "none"],
)
def test_narrow_weights_are_tried_before_int8_where_a_call_waits_for_weights(
    model, args, narrow_first
):
    found = in_order(hp.capture(model.eval(), (args,)), read_request("latency", "auto", 1, {}, 60))
    narrow = ["int8w", "int4w"]
    integers = [*narrow, "int8"] if narrow_first else ["int8", *narrow]
    assert found == ["fp32", "bf16", "fp16", *integers]


@pytest.mark.parametrize("objective", ["size", "memory"])
def test_narrow_weights_are_tried_before_int8_where_weights_are_the_objective(objective):
    program = hp.capture(nn.Linear(64, 64).eval(), (torch.randn(64, 64),))
    found = in_order(program, read_request(objective, "auto", 1, {}, 60))
    assert found[-3:] == ["int8w", "int4w", "int8"]


def test_the_best_target_so_far_comes_first_in_the_next_precision():
    candidates = [
        Candidate((hp.Target(target),), {target: precision})
        for target in ("a", "b", "c") for precision in ("fp32", "bf16", "int8")
    ]  # fmt: skip
    best = []
    found = []
    for candidate in by_promise(candidates, ["fp32", "int8", "bf16"], best.copy):
        found.append(candidate.label)
        if candidate.label == "c fp32":
            best += [row("c", "timed", 1.0), row("b", "slower", 2.0)]
        if candidate.label == "a int8":
            best.insert(0, row("a", "timed", 0.5))
    assert found == [
        "a fp32", "b fp32", "c fp32",
        "c int8", "b int8", "a int8",
        "a bf16", "c bf16", "b bf16",
    ]  # fmt: skip


def test_variants_of_the_fastest_precision_come_first_from_each_target_in_turn():
    candidates = [
        Candidate((hp.Target(target),), {target: precision}, variant)
        for target, variants in (("a", "xyz"), ("b", "uv"))
        for variant in variants for precision in ("fp32", "int8", "bf16")
    ]  # fmt: skip
    default = [("b", "int8"), ("a", "fp32"), ("a", "int8"), ("b", "fp32")]
    best = [Row(Candidate((hp.Target(t),), {t: p}), "timed") for t, p in default]
    found = [c.label for c in variants_by_promise(candidates, best)]
    assert found[:5] == ["b int8 u", "a int8 x", "b int8 v", "a int8 y", "a int8 z"]
    assert found[5:10] == ["a fp32 x", "b fp32 u", "a fp32 y", "b fp32 v", "a fp32 z"]
    assert {label.split()[1] for label in found[10:]} == {"bf16"}
    assert len(set(found)) == len(candidates)


def test_variants_of_what_fails_by_default_come_last():
    candidates = [
        Candidate((hp.Target(target),), {target: precision}, variant)
        for target in "abc" for precision in ("int8", "int8w") for variant in "xy"
    ]  # fmt: skip
    best = [
        Row(Candidate((hp.Target(t),), {t: p}), "timed") for t, p in [("a", "int8"), ("c", "int8w")]
    ]
    found = [c.label for c in variants_by_promise(candidates, best)]
    assert found[:4] == ["a int8 x", "a int8 y", "c int8w x", "c int8w y"]
    assert found[4:8] == ["b int8 x", "c int8 x", "b int8 y", "c int8 y"]


def test_mixes_put_each_partial_target_beside_the_best_whole_one(registry):
    registry.add("backend", "npu", Provider("npu", precisions=("fp16",)))
    registry.add("backend", "dsp", Provider("dsp", precisions=("int8", "fp32")))
    npu, dsp, eager = hp.Target("npu"), hp.Target("dsp"), hp.Target("eager")
    best = Candidate((eager,), {"eager": "fp32"})
    covered = {npu: 3, dsp: 0}
    made = mixes(registry, covered, best, "latency", ("fp32", "fp16"), {})
    assert [(c.target, c.precision) for c in made] == [("npu + eager", "fp16 + fp32")]
    assert made[0].partitioner == "capability"
    made = mixes(registry, {npu: 3, dsp: 1}, None, "latency", ("fp16",), {"npu": {"x": 1}})
    assert [(c.target, c.precision) for c in made] == [
        ("npu + dsp", "fp16 + fp32"), ("dsp + npu", "fp32 + fp16"),
    ]  # fmt: skip
    assert made[0].options == {"npu": {"x": 1}}
    registry.add("backend", "halves", Provider("halves", precisions=("bf16", "fp16")))
    # The order in which precisions promise is kept: bf16 would be hopeless here.
    [one] = mixes(registry, {hp.Target("halves"): 3}, best, "latency", ("fp32", "fp16", "bf16"), {})
    assert one.precision == "fp16 + fp32"


def row(target, state, p50=None, **more):
    candidate = Candidate((hp.Target(target),), {target: "fp32"})
    timing = None
    if p50 is not None:
        timing = Timing(p50, p50, p50, p50, p50, p50, 0.96, 15, 100, 1 / p50, 1, 0.01 / p50, 10**8)
    return Row(candidate, state, timing=timing, **more)


def test_the_report_is_a_table_with_reasons():
    choice = Choice(
        objective="latency",
        max_error={"fp32": 1e-4},
        rows=(
            row("fast", "winner", 0.002, errors=Errors(1e-6, 1e-7, 1.0), bytes=10**6),
            row("near", "timed", 0.002),
            row("odd", "failed", failure=Failure("crashed", "call", "killed by SIGSEGV")),
            row("coarse", "failed", failure=Failure("wrong", "verification", "error 0.5")),
            row("late", "not tried"),
        ),
        left_out=(("cuda", Failure("left out", "", "unavailable: no GPU")),),
        eager=row("eager", "timed", 0.01).timing,
        noise=1.5,
        noisy=True,
        seconds=9.0,
        budget=60.0,
        threads=2,
    )
    text = str(choice)
    head, _, names, eager, first, *_ = text.splitlines()
    assert head == "fast fp32 for latency"
    assert names.split()[:3] == ["candidate", "p50", "ms"]
    assert eager.split()[:3] == ["eager", "PyTorch", "10.000"]
    assert first.split() == ["fast", "fp32", "2.000", "2.000", "-", "2.000", "5.00", "500.0", "1e-06", "1.0", "MB", "winner"]  # fmt: skip
    assert "crashed in call: killed by SIGSEGV" in text
    assert "left out: unavailable: no GPU" in text
    assert choice.reasons == (
        "fast fp32 is 5.00x as fast as eager PyTorch.",
        "The next is near fp32: within the noise of the winner.",
        "Beyond the error asked for: coarse fp32.",
        "1 failed; the table says why.",
        "Not tried, as the budget of 60 s was spent: late fp32.",
        "The machine was busy (eager's own rounds differ by 1.50x): the order of near ones may be chance.",
    )
    assert choice_from_json(json.loads(json.dumps(choice.to_json()))).to_json() == choice.to_json()


def test_the_report_warns_of_threads_that_spin_and_of_errors_on_what_int8_was_calibrated_with():
    choice = Choice(
        objective="size", max_error={"int8": 1e-1}, rows=(row("a", "winner", bytes=10**6),),
        left_out=(), eager=None, noise=1.0, noisy=False, seconds=1.0, budget=60.0, threads=2,
    )  # fmt: skip
    assert choice.reasons == ("a fp32: the smallest package, 1.0 MB.",)
    spinning = Candidate((hp.Target("a"),), {"a": "int8"}, "busy", {"a": {"spinning": True}})
    found = Row(spinning, "winner", errors=Errors(1e-2, 1e-3, 1.0), bytes=10**6)
    choice = replace(choice, rows=(found,))
    _, threads, same = choice.reasons
    assert threads == (
        "Threads of a wait spinning, and take cores from whatever else this process runs: where that "
        "is much, fix options={'a': {'spinning': False}}."
    )
    assert same == SAME_DATA
    assert len(replace(choice, held_out=True).reasons) == 2
