"""From a fresh process, PyTorch imported, to the first result: packages, the runtime by hand, and
``torch.compile``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _backend_models import Model, made
from _page_cache import warm

import hardpoint as hp

HEAD = """
import json, sys, time, torch
torch.set_num_threads(int(sys.argv[3]))
inputs = torch.load(sys.argv[2], weights_only=True)
start = time.perf_counter()
with torch.no_grad():
"""
TAIL = '\nprint(json.dumps({"seconds": time.perf_counter() - start}))'
OURS = "import hardpoint as hp; hp.load(sys.argv[1]).run(inputs)"
# Its clock starts when the module is there: reading PyTorch's archive is not its doing.
COMPILE = (
    "module = torch.export.load(sys.argv[1]).module(check_guards=False); "
    "start = time.perf_counter(); torch.compile(module)(*inputs)"
)
# One that takes longer has hung.
TIMEOUT = 900.0
# The runtimes as their own documentation opens a saved model, with the precision that was asked.
BY_HAND = {
    "openvino": """import openvino as ov
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": int(sys.argv[3])}
    request = ov.Core().compile_model(sys.argv[1], "CPU", options).create_infer_request()
    request.infer([t.numpy() for t in inputs])""",
    "onnxruntime": """import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(sys.argv[3])
    session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    session.run(None, {i.name: t.numpy() for i, t in zip(session.get_inputs(), inputs)})""",
    "cpu": "torch._C._aoti.AOTIModelPackageLoader(sys.argv[1], 'model', False, 1, -1).run(inputs)",
}
TORCH = "torch.compile"
# AOTInductor with constants folded and repacked.
FROZEN = "cpu, frozen"
ROUNDS = 9


def measure(model: Model, targets: list[str], threads: int, folder: Path) -> dict[str, Any]:
    """Median seconds by case; what cannot be made says why.

    :param targets: backends installed here; ``cpu`` stands for its AOTInductor artifacts, with
        the compiler's own settings and frozen.
    """
    module, args, kwargs = made(model)
    program = hp.capture(module, args, kwargs, name=model.name)
    inputs = folder / "inputs.pt"
    torch.save(list(program.example_inputs), inputs)
    plain = folder / "exported.pt2"
    exported = flat_export(program)
    torch.export.save(exported, plain)
    cases: dict[str, Callable[[], float]] = {TORCH: fresh(COMPILE, plain, inputs, threads)}
    notes: dict[str, str] = {}
    for case in [*targets, *([FROZEN] if "cpu" in targets else [])]:
        target = case.partition(",")[0]
        try:
            aot = {"mode": "aot", "freezing": case == FROZEN}
            package = folder / f"{case}.pt2"
            hp.compile(
                hp.plan(program, targets=target), options={"cpu": aot} if target == "cpu" else {}
            ).save(package)
            cases[f"hardpoint, {case}"] = fresh(OURS, package, inputs, threads)
            if target not in BY_HAND:
                notes[case] = "this script has no call by hand for it"
                continue
            path = by_hand(case, exported, folder)
            cases[f"by hand, {case}"] = fresh(BY_HAND[target], path, inputs, threads)
        except Exception as error:
            notes[case] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    seconds = in_turn(cases, ROUNDS, notes)
    return {"seconds": {name: median(times) for name, times in seconds.items()}, "notes": notes}


def in_turn(
    cases: dict[str, Callable[[], float]], rounds: int, notes: dict[str, str]
) -> dict[str, list[float]]:
    """Every case once a round, every other round in the opposite order; ``notes`` say who failed."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in list(seconds)[:: -1 if number % 2 else 1]:
            try:
                seconds[name].append(cases[name]())
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                notes[name] = f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
                del seconds[name]
    return seconds


def flat_export(program: hp.Program) -> torch.export.ExportedProgram:
    """The program as every exporter takes it: flat tensors in, PyTorch's own archive."""
    module = program.exported.module(check_guards=False)
    return torch.export.export(module, program.example_inputs, strict=False)


def by_hand(target: str, exported: torch.export.ExportedProgram, folder: Path) -> Path:
    """The file that the runtime's own tools make."""
    if target == "openvino":
        import openvino as ov

        path = folder / "model.xml"
        converted = ov.convert_model(exported)
        shapes = [list(t.shape) for t in exported.example_inputs[0]]
        converted.reshape(dict(zip(converted.inputs, shapes, strict=True)))
        ov.save_model(converted, path, compress_to_fp16=False)
    elif target == "onnxruntime":
        path = folder / "model.onnx"
        made_onnx = torch.onnx.export(exported, dynamo=True, verbose=False)
        assert made_onnx is not None
        made_onnx.save(str(path), external_data=False)
    else:
        path = folder / f"aoti, {target}.pt2"
        settings = {"freezing": True} if target == FROZEN else {}
        torch._inductor.aoti_compile_and_package(
            exported, package_path=str(path), inductor_configs=settings
        )
    return path


def fresh(code: str, path: Path, inputs: Path, threads: int) -> Callable[[], float]:
    """Seconds that ``code`` takes in a new process, as it measures itself; no compiler's cache."""
    script = f"{HEAD}    {code}{TAIL}"

    def once() -> float:
        # A cold process, not a cold disk: a busy host may have had the guest give it back.
        weights = path.with_suffix(".bin")  # OpenVINO's
        warm([path, weights] if weights.exists() else [path])
        environment = {
            **os.environ, "OMP_NUM_THREADS": str(threads),
            "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
        }  # fmt: skip
        # What pip installs is there as bytecode; a source tree's is written by the first process.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, str(path), str(inputs), str(threads)],
            env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.strip().splitlines() or [""]
            raise RuntimeError(f"exit status {done.returncode}: {said[-1]}")
        seconds: float = json.loads(done.stdout.splitlines()[-1])["seconds"]
        return seconds

    return once
