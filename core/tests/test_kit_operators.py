"""The kit's operator checks: what counts as right, what is taken, what the numbers come to."""

import math

import pytest
import torch

from hardpoint.errors import ConfigError
from hardpoint.testing.operators import judge
from hardpoint.testing.operators.attempt import STATES, Result, from_json
from hardpoint.testing.operators.choose import QUICK, QUICK_DTYPES, choose, is_named
from hardpoint.testing.operators.database import Case, Sample
from hardpoint.testing.operators.tally import Tally, expected_operators, listing

RELU = Case("nn.functional.relu", "", "float32")
DIV = Case("div", "floor_rounding", "int64")


def result(state, op="abs", dtype="float32", variant="", reason="words"):
    return Result(op, variant, dtype, state, reason, "hash")


class TestTolerance:
    def test_is_that_of_the_precision(self):
        floats = [torch.zeros(1)]
        assert judge.tolerance("fp32", floats) == 1e-4
        assert judge.tolerance("int8", floats) == 1e-1

    def test_or_of_the_narrowest_dtype_that_takes_part(self):
        mixed = [torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)]
        assert judge.tolerance("fp32", mixed) == 3e-2


class TestJudging:
    def wrong(self, got, want, limit=1e-4, others=()):
        return judge.wrong([got], [[want], *[[o] for o in others]], limit)

    def test_accepts_rounding_and_says_how_far_off_anything_else_is(self):
        want = torch.tensor([1.0, 2.0])
        assert self.wrong(want + 1e-5, want) == ""
        assert (
            self.wrong(want + 1e-2, want)
            == "result 0: error 0.005, at most 0.0001 is allowed for float32"
        )

    def test_is_relative_to_the_result_also_where_that_is_small(self):
        want = torch.full((2,), 0.02)
        assert (
            self.wrong(want * 1.01, want)
            == "result 0: error 0.01, at most 0.0001 is allowed for float32"
        )
        assert self.wrong(torch.full((2,), 1e-7), torch.zeros(2)) == ""

    def test_is_exact_for_integers(self):
        got, want = torch.tensor([1, 2, 4]), torch.tensor([1, 2, 3])
        assert self.wrong(got, want) == "result 0: 1 of 3 int64 values differ, and they are exact"

    def test_keeps_nan_where_it_is(self):
        want = torch.tensor([math.nan, 1.0])
        assert self.wrong(want.clone(), want) == ""
        assert (
            self.wrong(torch.tensor([0.0, 1.0]), want)
            == "result 0: a number where eager PyTorch has NaN or infinity"
        )
        assert (
            self.wrong(want, torch.tensor([0.0, 1.0]))
            == "result 0: NaN or infinity where eager PyTorch has none"
        )
        assert "NaN or infinity differ" in self.wrong(torch.tensor([math.inf, 1.0]), want)

    def test_a_step_may_fall_either_way_where_inputs_are_rounded(self):
        exact, after_rounding = torch.tensor([1, 7]), torch.tensor([2, 7])
        assert self.wrong(after_rounding, exact, 3e-2)
        assert self.wrong(after_rounding, exact, 3e-2, others=[after_rounding]) == ""

    def test_what_a_quantized_backend_makes_of_rounded_inputs_is_judged_only_where_one_can_tell(
        self,
    ):
        real, whole = torch.zeros(1), torch.zeros(1, dtype=torch.int64)
        assert judge.untold("int8", [real], [real]) == ""
        assert judge.untold("int8", [whole], [whole]) == ""
        assert judge.untold("fp16", [real], [whole]) == ""
        said = "integers made of numbers that int8 rounds may fall either way"
        assert judge.untold("int8", [real, whole], [real, whole]) == said
        assert judge.untold("int4w", [real], [real / 0]) == "int4w holds neither NaN nor infinity"

    def test_the_worst_of_several_results_is_named(self):
        one, off = torch.ones(2), torch.tensor([1.0, 1.5])
        assert judge.wrong([one, off], [[one, one]], 1e-4).startswith("result 1: error 0.5")

    def test_rounds_what_is_wider_than_the_precision(self):
        wide, exact = torch.tensor([1.001]), torch.tensor([3])
        rounded = judge.rounded([wide, exact], "bf16")
        assert rounded[0].dtype is torch.float32
        assert rounded[0].item() == 1.0
        assert rounded[1] is exact
        assert judge.rounded([wide], "fp32") is None


class TestNames:
    @pytest.mark.parametrize("name", ["relu", "nn.functional.relu", "relu/float32"])
    def test_an_operator_goes_by_its_name_with_or_without_prefix_and_dtype(self, name):
        assert is_named(RELU, name)
        assert not is_named(DIV, name)

    def test_a_variant_can_be_named(self):
        assert is_named(DIV, "div")
        assert is_named(DIV, "div.floor_rounding/int64")
        assert not is_named(DIV, "div.trunc_rounding")
        assert not is_named(DIV, "div/float32")

    def test_an_unknown_name_is_an_error_with_the_nearest(self):
        with pytest.raises(ConfigError) as caught:
            choose([RELU, DIV], "quick", ["dib"])
        assert str(caught.value) == (
            "PyTorch's operator database has no operator 'dib' that the kit can judge\n"
            "  remedy: names are those of the database, e.g. add, nn.functional.relu, sum/bfloat16"
        )
        with pytest.raises(ConfigError, match=r"did you mean nn.functional.relu\?"):
            choose([RELU, DIV], "quick", ["nn.functional.rellu"])

    def test_named_operators_are_taken_alone(self):
        assert choose([RELU, DIV], "full", ["div"]) == [DIV]

    def test_full_takes_all_and_quick_the_fixed_ones(self):
        rare = Case("special.airy_ai", "", "float32")
        other = Case("div", "trunc_rounding", "int64")
        assert choose([RELU, DIV, other, rare], "full", ()) == [RELU, DIV, other, rare]
        assert choose([RELU, DIV, other, rare], "quick", ()) == [RELU, DIV]

    def test_the_quick_list_names_each_operator_once(self):
        assert len(set(QUICK)) == len(QUICK)
        assert len(set(QUICK_DTYPES)) == len(QUICK_DTYPES)


class TestTally:
    RESULTS = (
        result("right"),
        result("wrong", "exp", "int64"),
        result("refused", "exp", "float32"),
        result("unclaimed", "log"),
        result("not_exportable", "nonzero"),
        result("left_out", "resize_"),
    )

    def test_counts_what_the_backend_was_asked(self):
        figures = Tally(self.RESULTS, seconds=1.25).figures()
        cases = figures.pop("cases")
        assert figures == {
            "samples": 6, "run": 4, "claimed": 3, "right": 1, "wrong": 1, "refused": 1,
            "crashed": 0, "hung": 0, "raised": 0, "unclaimed": 1, "not_exportable": 1,
            "left_out": 1, "untried": 0, "operators_claimed": 2, "operators_right": 1, "seconds": 1.2,
            "notes": [],
        }  # fmt: skip
        assert cases[1] == {
            "op": "exp",
            "variant": "",
            "dtype": "int64",
            "state": "wrong",
            "reason": "words",
        }

    def test_says_it_in_a_line(self):
        assert Tally(self.RESULTS).summary() == "3 of 4 samples claimed, 1 right"

    def test_an_expected_failure_is_none(self):
        tally = Tally(self.RESULTS, {"exp/int64": "bug 1"})
        assert tally.failures({"wrong", "refused"}) == [self.RESULTS[2]]
        assert tally.figures()["cases"][1]["known"] == "bug 1"
        assert list(tally.outdated()) == []

    def test_an_expected_failure_that_does_not_fail_any_more_is_outdated(self):
        tally = Tally(
            self.RESULTS,
            {"abs": "bug 1", "log/float32": "bug 2", "resize_": "bug 3", "cosh": "bug 4"},
        )
        assert list(tally.outdated()) == [
            "operator:abs (right)",
            "operator:log/float32 (unclaimed)",
        ]

    def test_the_settings_mix_checks_and_operators(self):
        given = {"nan_and_infinity": "bug 1", "operator:exp": "bug 2"}
        assert expected_operators(given) == {"exp": "bug 2"}

    def test_a_message_lists_the_first_few(self):
        text = listing([result("wrong", f"op{i}") for i in range(10)])
        assert text.splitlines()[0] == "  op0 float32: wrong: words"
        assert text.splitlines()[-1] == "  and 2 more; the report lists them all"

    def test_a_result_survives_json_and_anything_else_is_refused(self):
        for state in STATES:
            assert from_json(result(state).to_json()) == result(state)
        for bad in (
            {},
            [],
            None,
            {**result("right").to_json(), "state": "fine"},
            {**result("right").to_json(), "op": 1},
        ):
            with pytest.raises(ValueError, match="result"):
                from_json(bad)


class TestCases:
    def prepare(self, call, *tensors):
        from hardpoint.testing.operators.case import prepare

        return prepare(Sample(call, tensors, ()), "a case")

    def test_becomes_a_program_with_eagers_values(self):
        prepared = self.prepare(lambda x: (x.relu(),), torch.tensor([-1.0, 2.0]))
        (name,) = prepared.results
        assert prepared.values[name].tolist() == [0.0, 2.0]
        assert prepared.describe() == "float32[2]"

    def test_weights_are_held_by_the_program_as_a_model_holds_them(self):
        from hardpoint.testing.operators.case import prepare

        x, weight, bias = torch.ones(1, 2), torch.eye(2), torch.tensor([1.0, 2.0])
        call = lambda x, w, b: (torch.nn.functional.linear(x, w, b),)  # noqa: E731
        prepared = prepare(Sample(call, (x, weight, bias), (), frozenset({1, 2})), "linear")
        assert prepared.describe() == "float32[1, 2]"
        assert set(prepared.program.exported.state_dict) == {"weight1", "weight2"}
        assert prepared.values[prepared.results[0]].tolist() == [[2.0, 3.0]]

    @pytest.mark.parametrize(
        ("call", "state", "reason"),
        [
            (lambda x: (torch.rand_like(x),), "left_out", "it draws random numbers"),
            (lambda x: (x.add_(1),), "left_out", "it writes into its inputs"),
            (lambda x: (torch.instance_norm(x[None], None, None, x[0], x[1], True, 0.1, 1e-5, False),), "left_out", "though its schema denies it"),
            (lambda x: (x,), "left_out", "nothing is computed"),
            (lambda x: (), "left_out", "it gives no dense tensor"),
            (lambda x: (x.to_sparse(),), "left_out", "it gives no dense tensor"),
            (lambda x: (x @ torch.ones(5),), "left_out", "eager PyTorch: RuntimeError"),
            (lambda x: (x + 1 if x.sum() > 0 else x - 1,), "not_exportable", "data"),
            (lambda x: (x + (1 if torch.compiler.is_exporting() else 2),), "not_exportable", "another result than eager's"),
        ],
    )  # fmt: skip
    def test_what_says_nothing_about_a_backend_is_left_out_with_the_reason(
        self, call, state, reason
    ):
        from hardpoint.testing.operators.case import NotTestable

        with pytest.raises(NotTestable, match=reason) as caught:
            self.prepare(call, torch.rand(3, 3))
        assert caught.value.state == state

    def test_the_hash_of_a_sample_is_of_its_values_and_constants(self):
        from hardpoint.testing.operators.case import digest

        def of(tensor, *constants):
            return digest(Sample(lambda x: (x,), (tensor,), constants))

        one = torch.tensor([1.0, 2.0])
        assert of(one, 3) == of(one.clone(), 3)
        assert (
            len({of(one, 3), of(one, 4), of(one + 1, 3), of(one.double(), 3), of(one[None], 3)})
            == 5
        )
        assert of(one, object()) == of(one, object())
