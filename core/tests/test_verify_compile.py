"""Verification: what is compared, what the figures say, and what random numbers change."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import hardpoint as hp
from eager_backend import Provider
from hardpoint import Executable
from hardpoint.compiler.examples import make_examples
from hardpoint.numerics import compare
from hardpoint.planning import compute_nodes
from splitting import Scatter, program, registry

pytestmark = pytest.mark.filterwarnings("ignore:.*is in training mode")


def changing(change):
    """Executables that change their results."""

    class Changed(Executable):
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, *inputs):
            return change(self.inner(*inputs))

    return Changed


def mounted(change):
    """One backend that changes its results, and offers two precisions."""
    made = hp.Registry(path=[])
    made.add("backend", "a", Provider("a", spoil=changing(change), precisions=("fp32", "bf16")))
    return made


def compiled(name, registry, **options):
    captured = program(name) if isinstance(name, str) else name
    plan = hp.plan(captured, targets="a", partitioner=Scatter(0, 1, 1), registry=registry)
    return hp.compile(plan, registry=registry, **options)


def same(outputs):
    return outputs


def test_the_figures_name_results_segments_and_what_they_are_compared_with():
    model = compiled("counter", mounted(same))
    figures = model.verification
    assert figures["max_error"] == 0
    assert figures["allowed"] == 1e-4
    assert figures["precision"] == "fp32"
    assert figures["inputs"] == [[3, 4]]
    assert set(figures["results"]) == {"state count", "result0"}
    assert set(figures["segments"]) == {"s0"}
    assert figures["reference"] == f"eager PyTorch {torch.__version__} on the captured program"


def test_changed_inputs_are_compared_too():
    model = compiled("two_inputs_swapped", mounted(same))
    assert set(model.verification["results"]) == {
        "changed input flat_0", "changed input flat_1", "result0",
    }  # fmt: skip


def test_programs_that_draw_random_numbers_are_not_compared_and_say_so():
    model = compiled("random_numbers", mounted(same))
    assert model.verification["not_compared"] == "s0 draw random numbers"
    assert model.facts.expected == ()
    assert model.verify() == {}


def test_random_numbers_inside_of_a_branch_count_too():
    class Branch(nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda x: x + torch.rand_like(x), torch.clone, (x,))

    model = compiled(hp.capture(Branch().eval(), (torch.ones(3),), registry=registry()), mounted(same))  # fmt: skip
    assert "not_compared" in model.verification


class InTurn(hp.Partitioner):
    """One node on the first target, the next on the second, and so on."""

    def partition(self, program, targets, objective, costs):
        nodes = compute_nodes(program)
        return hp.Assignment({n.name: targets[i % 2].target for i, n in enumerate(nodes)})


def test_errors_of_segments_that_add_up_are_refused_as_a_whole():
    class Chain(nn.Module):
        def forward(self, x):
            for _ in range(6):
                x = torch.relu(x)
            return x

    made = hp.Registry(path=[])
    for name in "ab":
        made.add("backend", name, Provider(name, spoil=changing(lambda out: (out[0] + 8e-5,))))
    captured = hp.capture(Chain().eval(), (torch.zeros(3),), registry=made)
    plan = hp.plan(captured, targets=["a", "b"], partitioner=InTurn(), registry=made)
    assert len(plan.segments) == 6
    with pytest.raises(hp.VerificationError) as error:
        hp.compile(plan, registry=made)
    assert str(error.value) == (
        "the compiled model gives wrong numbers: error 0.00048 in result0, at most 0.0001 is "
        "allowed\n"
        "  cause: each segment alone is within the limit; their errors add up\n"
        "  remedy: ask for another precision=, or allow more with max_error="
    )


def tiny(scale):
    """A program whose results are ``scale`` at most, as those of a softmax over many classes."""

    class Tiny(nn.Module):
        def forward(self, x):
            return torch.sin(x) * scale

    return hp.capture(Tiny().eval(), (torch.linspace(-2, 2, 64),), registry=registry())


def test_results_that_pass_only_because_they_are_small_are_told_of():
    lost = mounted(lambda out: tuple(torch.zeros_like(o) for o in out))
    with pytest.warns(hp.HardpointWarning) as told:
        model = compiled(tiny(2e-5), lost)
    assert [str(w.message) for w in told] == [
        "Tiny: result0 is within max_error=0.0001, but its error is 100% of its greatest value "
        "(cosine 0.000000): below 1 the limit is absolute, and these values are smaller than what "
        "it lets pass. Remedy: give a max_error= that suits their size, or scale the result"
    ]
    assert told[0].filename == __file__
    assert model.verification["results"]["result0"]["relative"] == 1.0


@pytest.mark.parametrize(
    ("scale", "change"),
    [(2e-5, lambda o: o * 1.1), (1e-7, torch.zeros_like), (1.0, lambda o: o + 5e-5)],
    ids=["small and nearly right", "what rounding leaves", "as large as most"],
)
def test_small_results_that_are_near_enough_are_not(scale, change):
    # A warning would be an error here.
    model = compiled(tiny(scale), mounted(lambda out: tuple(change(o) for o in out)))
    figures = model.verification["results"]["result0"]
    assert figures["error"] <= model.verification["allowed"] == 1e-4
    assert figures["relative"] < 0.5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_precision_has_its_own_limit(precision):
    worse = mounted(lambda out: tuple(o + 1e-3 for o in out))
    if precision == "fp32":
        with pytest.raises(hp.VerificationError, match=r"at most 0\.0001 is allowed"):
            compiled("grouped_attention", worse, precision=precision)
    else:
        assert compiled("grouped_attention", worse, precision=precision).verification["allowed"] == 0.03  # fmt: skip


def test_auto_takes_what_verifies_and_says_what_did_not():
    worse = mounted(lambda out: tuple(o + 1e-3 for o in out))
    model = compiled("grouped_attention", worse, precision="auto")
    assert model.verification["precision"] == "bf16"
    assert len(model.verification["refused"]) == 1
    assert model.verification["refused"][0].startswith("fp32: segment s0 gives wrong numbers on a")


def test_auto_without_any_good_precision_shows_every_refusal():
    wrong = mounted(lambda out: tuple(o + 1 for o in out))
    with pytest.raises(hp.CompileError) as error:
        compiled("grouped_attention", wrong, precision="auto")
    assert str(error.value).startswith("no precision compiles and verifies\n  cause: fp32: segment")
    assert "; bf16: segment s0 gives wrong numbers" in str(error.value)
    assert error.value.remedy == "allow more with max_error=, or choose other targets"


def test_a_program_that_fails_on_its_own_examples_is_not_the_backends_fault():
    model = nn.Linear(4, 4).bfloat16().eval()
    captured = hp.capture(model, (torch.ones(2, 4),), registry=registry())
    with pytest.raises(hp.CompileError) as error:
        compiled(captured, mounted(same))
    assert str(error.value) == (
        "Linear fails on its own examples in eager PyTorch\n"
        "  cause: RuntimeError: mat1 and mat2 must have the same dtype, but got Float and BFloat16\n"
        "  remedy: call the model itself with these examples first"
    )


def test_progress_is_told_segment_by_segment():
    told = []
    made = registry()
    plan = hp.plan(program("grouped_attention"), targets=["a", "b"], partitioner=Scatter(0, 2, 5), registry=made)  # fmt: skip
    hp.compile(plan, registry=made, progress=lambda *step: told.append(step))
    assert told == [
        *(
            (s, len(plan.segments), f"{doing} s{s} for {plan.segments[s].target}")
            for s in range(len(plan.segments))
            for doing in ("compiling", "verifying")
        ),
        (len(plan.segments), len(plan.segments), "verified"),
    ]  # fmt: skip


def test_what_was_opened_is_closed_where_compiling_fails():
    closed = []

    class Closes(Executable):
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, *inputs):
            raise RuntimeError("broken")

        def close(self):
            closed.append(self)

    made = hp.Registry(path=[])
    made.add("backend", "a", Provider("a", spoil=Closes))
    with pytest.raises(hp.ProviderFailed):
        compiled("grouped_attention", made)
    assert len(closed) == 1


def test_examples_are_made_where_a_program_has_none():
    signature = program("grouped_attention").signature
    (x,) = make_examples(signature)
    assert x.shape == (3, 5, 8)
    (again,) = make_examples(signature)
    assert torch.equal(x, again)
    ids, mask = make_examples(program("bert").signature)
    assert ids.dtype is torch.int64
    assert ids.shape == mask.shape
    assert not ids.any()


def test_examples_keep_to_the_ranges_of_their_sizes():
    class Short(nn.Module):
        def forward(self, x):
            torch._check(x.shape[0] <= 2)
            return x * 2

    captured = hp.capture(Short().eval(), (torch.ones(2, 4),), dynamic={"x": {0: "n"}}, registry=registry())  # fmt: skip
    assert captured.signature.symbols == {"n": (0, 2)}
    assert make_examples(captured.signature)[0].shape == (2, 4)


@pytest.mark.parametrize(
    ("value", "reference", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([0.1], [0.2], 0.1),
        ([math.nan], [math.nan], 0.0),
        ([math.nan], [1.0], math.inf),
        ([1.0], [math.nan], math.inf),
        ([math.inf], [math.inf], 0.0),
        ([math.inf], [-math.inf], math.inf),
        ([math.inf], [math.nan], math.inf),
        ([math.inf, 1.0], [math.inf, 2.0], 0.5),
        ([], [], 0.0),
        ([1, 2], [1, 2], 0.0),
        ([1, 2], [1, 3], math.inf),
        ([True], [False], math.inf),
        ([1.0, 2.0], [1.0], math.inf),
        ([1.0], [1], math.inf),
        ([1 + 2j], [1 + 2j], 0.0),
        ([1e300], [1e300], 0.0),
    ],
)
def test_a_difference_is_absolute_below_one_and_relative_above(value, reference, error):
    make = torch.tensor
    got = compare(
        make(value, dtype=torch.float64) if value and isinstance(value[0], float) else make(value),
        make(reference, dtype=torch.float64) if reference and isinstance(reference[0], float) else make(reference),
    )  # fmt: skip
    assert got.error == pytest.approx(error)
    assert got.to_json()["error"] == ("inf" if math.isinf(error) else pytest.approx(error))


# --- what the runtime says that it computes in


def telling(**facts):
    """A backend whose executables say these facts."""

    class Telling(Executable):
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, *inputs):
            return self.inner(*inputs)

        def facts(self):
            return facts

    made = hp.Registry(path=[])
    provider = Provider("a", spoil=Telling, precisions=("fp32", "bf16", "int8w"))
    made.add("backend", "a", provider)
    return made


def test_the_figures_say_what_the_runtime_says_that_it_does():
    model = compiled("counter", telling(precision="fp32", threads=2))
    assert model.verification["executed"] == {"s0": {"precision": "fp32", "threads": 2}}
    assert compiled("counter", mounted(same)).verification["executed"] == {}


@pytest.mark.parametrize(("asked", "ran"), [("bf16", "fp32"), ("bf16", "bf16"), ("int8w", "bf16")])
def test_wider_arithmetic_than_asked_for_is_accepted(asked, ran):
    assert compiled("counter", telling(precision=ran), precision=asked).verification["executed"]


def test_a_narrower_arithmetic_than_asked_for_is_refused():
    with pytest.raises(hp.VerificationError) as caught:
        compiled("counter", telling(precision="bf16"))
    assert caught.value.what == "segment s0 computes in bf16 on a, not in fp32"
    assert caught.value.cause == "the runtime chose it by itself"
    assert "precision='bf16'" in caught.value.remedy


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"precision": "float7"}, "precision 'float7' is none of fp32, bf16, fp16"),
        ({"threads": {1}}, "TypeError: Object of type set is not JSON serializable"),
        ({"load": math.nan}, "ValueError: Out of range float values"),
    ],
)
def test_facts_that_json_cannot_hold_break_the_contract(facts, cause):
    with pytest.raises(hp.ContractViolation, match=r"facts\(\) broke the contract") as caught:
        compiled("counter", telling(**facts))
    assert caught.value.cause.startswith(cause)
