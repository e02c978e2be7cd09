"""What a call costs above the runtime's own, and what a boundary between two backends costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from _backend_cold import flat_export
from _report import interleaved
from runtime import CHAIN, Alternate, Chain, boundary_times, per_call

import hardpoint as hp


def measure(targets: list[str], rounds: int) -> dict[str, Any]:
    """Seconds a call: by hand, the backend's executable, hardpoint; seconds a boundary with cpu."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"calls": {}, "boundaries": {}, "notes": {}}
    for target in targets:
        try:
            found["calls"][target] = _calls(target, rounds)
            if target != "cpu":
                found["boundaries"][target] = _boundaries(target, rounds)
        except Exception as error:
            found["notes"][target] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    torch.set_num_threads(threads)  # what is measured next is not a single thread's
    return found


def _calls(target: str, rounds: int) -> dict[str, float]:
    x = torch.randn(4, 8)
    program = hp.capture(Chain(1).eval(), (x,), name="chain")
    compiled = hp.compile(hp.plan(program, targets=target))
    executable = compiled.segments[0].executable
    with torch.no_grad():
        times = interleaved(
            {
                "by hand": per_call(_by_hand(target, program, x)),
                "executable": per_call(lambda: executable(x)),
                "hardpoint": per_call(lambda: compiled(x)),
            },
            rounds,
        )
    return {name: t.median for name, t in times.items()}


def _by_hand(target: str, program: hp.Program, x: torch.Tensor) -> Callable[[], object]:
    """The fastest safe call that the runtime's own interface has: its result stays valid."""
    exported = flat_export(program)
    if target == "openvino":
        import openvino as ov

        converted = ov.convert_model(exported)
        converted.reshape({converted.inputs[0]: list(x.shape)})
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        request = ov.Core().compile_model(converted, "CPU", options).create_infer_request()

        def call() -> torch.Tensor:
            request.set_input_tensor(0, ov.Tensor(x.numpy(), shared_memory=True))
            request.infer()
            return torch.from_numpy(request.get_output_tensor(0).data).clone()

        return call
    if target == "onnxruntime":
        import onnxruntime as ort

        made = torch.onnx.export(exported, dynamo=True, verbose=False)
        assert made is not None
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(
            made.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        return lambda: torch.from_numpy(session.run(None, {name: x.numpy()})[0])
    if target != "cpu":
        raise ValueError("this script has no call by hand for it")
    module = Chain(1).eval()
    return lambda: module(x)


def _boundaries(target: str, rounds: int) -> float:
    """Seconds a boundary, beside calling the same executables in a loop by hand."""
    x = torch.randn(3, 8)
    program = hp.capture(Chain(CHAIN).eval(), (x,), name="chain")
    plan = hp.plan(program, targets=["cpu", target], partitioner=Alternate())
    _, _, each = boundary_times(hp.compile(plan), x, rounds)
    return each
