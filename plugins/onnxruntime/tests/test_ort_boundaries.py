"""What a caller gets back: ONNX Runtime gives a flat list of tensors, a model gives what it likes."""

import ort_programs as shared
import torch

import hardpoint as hp


def test_none_and_numbers_among_the_results_are_where_the_model_put_them(registry):
    def nested(x):
        doubled = x * 2
        pair = (x.neg(), [3, doubled + 1, None])
        return {"first": doubled, "none": None, "pair": pair, "rows": x.shape[0], "count": 7}

    program = hp.capture(
        shared.Calls(nested).eval(), (torch.randn(2, 3),), dynamic={"inputs_0": {0: "rows"}},
        registry=registry,
    )  # fmt: skip
    plan = hp.plan(program, targets=["onnxruntime"], registry=registry)
    model = hp.compile(plan, registry=registry)
    assert [str(segment.target) for segment in model.segments] == ["onnxruntime"]
    for rows in (2, 5):
        x = torch.randn(rows, 3)
        found = model(x)
        assert list(found) == ["first", "none", "pair", "rows", "count"]
        assert (found["none"], found["rows"], found["count"]) == (None, rows, 7)
        assert torch.equal(found["first"], x * 2)
        assert isinstance(found["pair"], tuple)
        negative, [three, larger, nothing] = found["pair"]
        assert (three, nothing) == (3, None)
        assert torch.equal(negative, -x)
        torch.testing.assert_close(larger, x * 2 + 1)
