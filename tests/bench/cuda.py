"""A CUDA (or ROCm) device: each way to run a model, against eager PyTorch on the same device.

Time is the device's own, by events; a round is many calls, and the ways take turns. Without a
device the script says why, and ends well: `make bench` goes on.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping

from _report import Page, Timing, arguments, interleaved, ratio, table

from hardpoint import HardpointError, OutOfMemory, ProbeRequest, Registry

CALLS = 30
# Way -> (precision, options). Ways that the device does not have are rows with the reason.
WAYS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "eager fp32": ("fp32", {}),
    "eager tf32": ("fp32", {"tf32": True}),
    "eager bf16": ("bf16", {}),
    "eager fp16": ("fp16", {}),
    "graphs fp32": ("fp32", {"graphs": True}),
    "graphs fp16": ("fp16", {"graphs": True}),
    "inductor fp32": ("fp32", {"mode": "inductor"}),
    "inductor tf32": ("fp32", {"mode": "inductor", "tf32": True}),
    "inductor bf16": ("bf16", {"mode": "inductor"}),
    "inductor fp16": ("fp16", {"mode": "inductor"}),
    "inductor fp16, graphs": ("fp16", {"mode": "inductor", "graphs": True}),
    "aot fp32": ("fp32", {"mode": "aot"}),
    "aot bf16": ("bf16", {"mode": "aot"}),
    "aot fp16": ("fp16", {"mode": "aot"}),
    "int8 weights, inductor": ("int8w", {"mode": "inductor"}),
    "fp8 weights, inductor": ("int8w", {"mode": "inductor", "weights": "fp8"}),
    "tensorrt fp32": ("fp32", {"mode": "tensorrt"}),
    "tensorrt fp16": ("fp16", {"mode": "tensorrt"}),
}


def models() -> dict[str, tuple[object, tuple[object, ...]]]:
    """Two models with fixed seeds and random weights, as large as the ones that they are like."""
    import torch
    from transformers import BertConfig, BertModel, ResNetConfig, ResNetForImageClassification

    class Plain(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module, name: str) -> None:
            super().__init__()
            self.inner, self.name = inner, name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """The result as one tensor."""
            return self.inner(x)[self.name]

    torch.manual_seed(0)
    vision = Plain(ResNetForImageClassification(ResNetConfig(num_labels=1000)), "logits").eval()
    small = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)  # fmt: skip
    text = Plain(BertModel(small), "last_hidden_state").eval()
    return {
        "ResNet-50, batch 8": (vision, (torch.randn(8, 3, 224, 224),)),
        "MiniLM-L6, batch 8 x 128": (text, (torch.randint(0, 30000, (8, 128)),)),
    }


def per_call(call: Callable[[], object]) -> Callable[[], float]:
    """Seconds of one call by the device's clock, averaged over ``CALLS``."""
    import torch

    def once() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(CALLS):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / CALLS

    return once


def measure(page: Page, target: str, name: str, model: object, inputs: tuple, rounds: int) -> None:
    """One model's table: every way compiled, compared with eager on the CPU, timed."""
    import torch

    import hardpoint as hp

    backend = target.split(":")[0]
    program = hp.capture(model, inputs)
    plan = hp.plan(program, targets=[target])
    with torch.no_grad():
        expected = model(*inputs).double()
    device = torch.device("cuda", int(target.split(":")[1]))
    there = [x.to(device) for x in inputs]
    compiled, errors, refused = {}, {}, []
    for way, (precision, options) in WAYS.items():
        try:
            made = hp.compile(
                plan, precision=precision, options={backend: dict(options)}, max_error=1.0
            )
            result = made(*inputs)
        except (hp.HardpointError, OutOfMemory) as error:
            refused.append([way, (error.cause or error.what).splitlines()[0][:160]])
            continue
        difference = (result.double() - expected).abs().max().item()
        cosine = torch.cosine_similarity(result.double().flatten(), expected.flatten(), dim=0)
        errors[way] = (difference, cosine.item(), made.segments[0].executable.facts())
        compiled[way] = made
    moved = _moved(model, device)
    cases: dict[str, Callable[[], float]] = {
        "PyTorch eager, as it comes": per_call(lambda: moved(*there))
    }
    for way, made in compiled.items():
        executable = made.segments[0].executable
        cases[way] = per_call(lambda e=executable: e(*there))  # type: ignore[misc]
    with torch.no_grad():
        times = interleaved(cases, rounds, warmup=3)
    base = times["PyTorch eager, as it comes"]
    page.add(f"## {name}")
    page.add(table(["way", "ms", "best", "spread", "speed", "max error", "cosine", "tf32"], [_row(way, time, base, errors) for way, time in times.items()]))  # fmt: skip
    if refused:
        page.add("Refused, and why:\n\n" + table(["way", "because"], refused))


def to_the_cpu(page: Page, target: str, rounds: int) -> None:
    """A large result of a small input, until it lies on the CPU; by the host's clock."""
    import torch

    import hardpoint as hp

    class Outer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """``[n]`` to ``[n, n]``."""
            return torch.outer(x, x)

    model, x = Outer().eval(), torch.randn(4096)
    plan = hp.plan(hp.capture(model, (x,)), targets=[target])
    backend, _, index = target.partition(":")
    device = torch.device("cuda", int(index))
    pageable = hp.compile(plan)
    pinned = hp.compile(plan, options={backend: {"pinned": True}})
    assert pinned(x).is_pinned()
    times = interleaved(
        {
            "PyTorch eager, Tensor.to": lambda: discard(torch.outer(*[x.to(device)] * 2).to("cpu")),
            "hardpoint": lambda: discard(pageable(x)),
            "hardpoint, pinned": lambda: discard(pinned(x)),
        },
        rounds, warmup=3,
    )  # fmt: skip
    base = times["PyTorch eager, Tensor.to"].median
    page.add(
        f"## {pageable(x).nbytes / 2**20:.0f} MiB to the CPU\n\n"
        f"By the host's clock, from an input of {x.nbytes / 2**10:.0f} KiB on the CPU until the "
        "result lies there."
    )
    rows = [[way, *t.cells("ms"), ratio(base, t.median)] for way, t in times.items()]
    page.add(table(["way", "ms", "best", "spread", "speed"], rows))


def discard(result: object) -> None:
    """A case that returns a number has timed itself; this one is timed."""


def _moved(model: object, device: object) -> Callable[..., object]:
    import copy

    return copy.deepcopy(model).to(device)  # type: ignore[attr-defined,no-any-return]


def _row(way: str, time: Timing, base: Timing, errors: Mapping[str, tuple]) -> list[object]:
    found = errors.get(way)
    figures = ["", "", "PyTorch's default: conv, rnn"] if found is None else [
        f"{found[0]:.1e}", f"{found[1]:.6f}", ", ".join(found[2]["tf32"]) or "no",
    ]  # fmt: skip
    return [way, *time.cells("ms"), ratio(base.median, time.median), *figures]


def hardware(target: str) -> str:
    """The device, its driver and clocks, as the vendor's tool tells them."""
    import torch

    facts = torch.cuda.get_device_properties(int(target.split(":")[1]))
    tool = "rocm-smi" if torch.version.hip else "nvidia-smi"
    try:
        said = subprocess.run(
            [tool], capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    line = next((row.strip("| ") for row in said.splitlines() if "Driver" in row), "")
    runtime = torch.version.hip or torch.version.cuda
    return f"- {facts.name}, {facts.total_memory / 2**30:.0f} GiB; runtime {runtime}; {line}"


def main() -> int:
    """Measure, print, and write the page; or say why not."""
    options = arguments(__doc__, rounds=15)
    registry = Registry()
    reasons = {}
    for backend in ("cuda", "rocm"):
        try:
            found = registry.probe("backend", backend, ProbeRequest())
        except HardpointError as error:  # its plugin is not installed, or broken
            reasons[backend] = error.what
            continue
        if found.available:
            break
        reasons[backend] = found.reason
    else:
        print("nothing is measured: " + "; ".join(f"{b}: {r}" for b, r in reasons.items()))
        return 0
    target = f"{backend}:{found.devices[0].id}"
    page = Page(f"Ways to run a model on {found.devices[0].name}")
    page.add(
        f"{CALLS} calls a round by the device's own events, {options.rounds} interleaved rounds, "
        "inputs on the device already. *Speed* is against PyTorch as it comes, which computes "
        "convolutions in TF32. Errors are against eager float32 on the CPU."
    )
    for name, (model, inputs) in models().items():
        measure(page, target, name, model, inputs, options.rounds)
    to_the_cpu(page, target, options.rounds)
    page.add(f"## The device\n\n{hardware(target)}")
    page.finish(options.output, __file__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
