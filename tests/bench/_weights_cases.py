"""What is timed in tests/bench/weights.py: one case a process, named on the command line.

Prints JSON: seconds to the last tensor, seconds more to touch every page, CPU seconds, page faults,
MiB of memory at the peak. Imports are not counted, of anyone; nor is finding hardpoint's plugins, which stands for an
import (BENCH_DISCOVER=1 counts it).
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import _weights_device
import torch

Loaded = Mapping[str, torch.Tensor] | Iterable[torch.Tensor]


def hp_load(files: list[Path], **options: Any) -> Callable[[], Loaded]:
    import hardpoint as hp

    # What others do when they are imported: find the plugin, and import it and what it needs.
    if not os.environ.get("BENCH_DISCOVER"):
        hp.default_registry().available("serializer")
        hp.default_registry().open("serializer", "safetensors")
    import hardpoint.storage.own
    import hardpoint.storage.remote
    import hardpoint.weights.fill

    load = hp.load_weights  # imported when it is first named
    path = files[0] if len(files) == 1 else files[0].parent / "model.safetensors.index.json"
    return lambda: load(path, **options)


def load_file(files: list[Path], *, clone: bool = False) -> Callable[[], Loaded]:
    from safetensors.torch import load_file

    def run() -> Loaded:
        found = {name: tensor for file in files for name, tensor in load_file(file).items()}
        return {name: tensor.clone() for name, tensor in found.items()} if clone else found

    return run


def hp_device(files: list[Path]) -> Callable[[], Loaded]:
    import hardpoint.storage.transfer  # noqa: F401 - not counted, of anyone

    _weights_device.ready()
    return _weights_device.arrived(hp_load(files, device="cuda"))


def st_device(files: list[Path]) -> Callable[[], Loaded]:
    from safetensors.torch import load_file

    _weights_device.ready()
    return _weights_device.arrived(
        lambda: {
            name: tensor
            for file in files
            for name, tensor in load_file(file, device="cuda").items()
        }
    )


def safe_open(files: list[Path]) -> Callable[[], Loaded]:
    from safetensors import safe_open

    def run() -> Loaded:
        found = {}
        for file in files:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - it is no mapping
                    found[name] = opened.get_tensor(name)
        return found

    return run


def torch_load(files: list[Path], *, mapped: bool) -> Callable[[], Loaded]:
    archives = [file.with_suffix(".pt") for file in files]

    def run() -> Loaded:
        found = {}
        for archive in archives:
            found.update(torch.load(archive, weights_only=True, mmap=mapped))
        return found

    return run


def fastsafetensors(files: list[Path], *, direct: bool) -> Callable[[], Loaded]:
    os.environ["FASTSAFETENSORS_ODIRECT"] = "1" if direct else "0"
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    def run() -> Loaded:
        loader = SafeTensorsFileLoader(SingleGroup(), torch.device("cpu"), nogds=True)
        loader.add_filenames({0: [str(file) for file in files]})
        buffer = loader.copy_files_to_device()
        _KEPT.extend([loader, buffer])
        return {name: buffer.get_tensor(name) for name in buffer.key_to_rank_lidx}

    return run


def runai(files: list[Path]) -> Callable[[], Loaded]:
    from runai_model_streamer import SafetensorsStreamer

    def run() -> Loaded:
        streamer = SafetensorsStreamer()
        streamer.__enter__()
        _KEPT.append(streamer)
        streamer.stream_files([str(file) for file in files])
        return dict(streamer.get_tensors())

    return run


def module(shapes: Path) -> torch.nn.Module:
    """A flat module of uninitialized, touched memory with the file's tensors."""
    made = torch.nn.Module()
    for name, shape in json.loads(shapes.read_text()).items():
        owner = made
        *folders, leaf = name.split(".")
        for folder in folders:
            if not hasattr(owner, folder):
                owner.add_module(folder, torch.nn.Module())
            owner = getattr(owner, folder)
        value = torch.empty(shape, dtype=torch.bfloat16)
        value.view(torch.uint8).view(-1)[:: mmap.PAGESIZE] = 0
        owner.register_parameter(leaf, torch.nn.Parameter(value, requires_grad=False))
    return made


def hp_into(files: list[Path]) -> Callable[[], Loaded]:
    goal = module(files[0].parent / "shapes.json")
    return hp_load(files, into=goal)


def st_into(files: list[Path]) -> Callable[[], Loaded]:
    from safetensors.torch import load_model

    goal = module(files[0].parent / "shapes.json")

    def run() -> Loaded:
        for file in files:
            load_model(goal, file, strict=len(files) == 1)
        return goal.state_dict()

    return run


def _part(name: str, shape: Iterable[int]) -> tuple[slice, ...] | None:
    """Rank 1 of 2: rows of what comes first in a pair, columns of what comes second."""
    size = list(shape)
    if len(size) < 2:
        return None
    columns = name.endswith(("o_proj.weight", "down_proj.weight"))
    half = size[1 if columns else 0] // 2
    return (slice(None), slice(half, 2 * half)) if columns else (slice(half, 2 * half),)


def hp_slice(files: list[Path], mode: str) -> Callable[[], Loaded]:
    return hp_load(files, mode=mode, slices=lambda info: _part(info.name, info.shape))


def st_slice(files: list[Path], *, clone: bool) -> Callable[[], Loaded]:
    from safetensors import safe_open

    def run() -> Loaded:
        found = {}
        for file in files:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    stored = opened.get_slice(name)
                    part = stored[_part(name, stored.get_shape()) or slice(None)]
                    found[name] = (
                        part.clone(memory_format=torch.contiguous_format) if clone else part
                    )
        return found

    return run


def hp_directory(files: list[Path]) -> Callable[[], Loaded]:
    import transformers.models.llama.modeling_llama  # noqa: F401 - as for the other

    import hardpoint as hp
    import hardpoint.weights.pretrained

    hp_load(files)
    return lambda: hp.from_pretrained(files[0].parent).state_dict()


def hf_directory(files: list[Path]) -> Callable[[], Loaded]:
    import transformers
    import transformers.models.llama.modeling_llama

    make = transformers.AutoModelForCausalLM.from_pretrained
    return lambda: make(files[0].parent, dtype=torch.bfloat16).state_dict()


CASES: dict[str, Callable[[list[Path]], Callable[[], Loaded]]] = {
    "map: hardpoint": lambda f: hp_load(f),
    "map: load_file": lambda f: load_file(f),
    "map: safe_open": lambda f: safe_open(f),
    "map: torch.load(mmap)": lambda f: torch_load(f, mapped=True),
    "own: hardpoint": lambda f: hp_load(f, mode="own"),
    "own: load_file + clone": lambda f: load_file(f, clone=True),
    "own: torch.load": lambda f: torch_load(f, mapped=False),
    "own: runai-model-streamer": runai,
    "own: fastsafetensors": lambda f: fastsafetensors(f, direct=False),
    "own: fastsafetensors, O_DIRECT": lambda f: fastsafetensors(f, direct=True),
    "into: hardpoint": hp_into,
    "into: load_model": st_into,
    "slice, own: hardpoint": lambda f: hp_slice(f, "own"),
    "slice, own: get_slice + clone": lambda f: st_slice(f, clone=True),
    "slice, views: hardpoint": lambda f: hp_slice(f, "map"),
    "slice, views: get_slice": lambda f: st_slice(f, clone=False),
    "directory: hardpoint": hp_directory,
    "directory: from_pretrained": hf_directory,
    "device: hardpoint": hp_device,
    "device: load_file": st_device,
}
_KEPT: list[object] = []


@contextlib.contextmanager
def measured(result: dict[str, float], key: str) -> Iterator[None]:
    started, cpu = time.perf_counter(), time.process_time()
    yield
    result[key] = time.perf_counter() - started
    result["cpu"] = result.get("cpu", 0.0) + time.process_time() - cpu


def back(nbytes: int) -> None:
    """Make the host hand over memory: what is timed after this is no longer the host zeroing it."""
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    view = torch.frombuffer(memory, dtype=torch.uint8)
    view[:: mmap.PAGESIZE] = 1
    del view
    memory.close()


def touch(loaded: Loaded) -> None:
    tensors = loaded.values() if isinstance(loaded, Mapping) else loaded
    for tensor in tensors:
        if tensor.is_contiguous():
            tensor.view(-1).view(torch.uint8)[:: mmap.PAGESIZE].sum()
        else:
            step = max(1, mmap.PAGESIZE // tensor.element_size())
            tensor[:, ::step].sum()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _status(field: str) -> float:
    """MiB that the kernel states for this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    name, backed, *files = sys.argv[1:]
    run = CASES[name]([Path(file) for file in files])
    if int(backed):
        back(int(backed))
    # Linux counts the peak of memory from here.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    result: dict[str, float] = {}
    with measured(result, "handles"):
        loaded = run()
    with measured(result, "touch"):
        touch(loaded)
    used = resource.getrusage(resource.RUSAGE_SELF)
    result["faults"] = used.ru_minflt - faults
    result["peak"] = _status("VmHWM") - before
    tensors = loaded.values() if isinstance(loaded, Mapping) else loaded
    result["bytes"] = sum(tensor.nbytes for tensor in tensors)
    print(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # tearing down is nobody's point


if __name__ == "__main__":
    main()
