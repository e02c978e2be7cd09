"""Mode ``tensorrt``: the segment as one TensorRT engine, made by Torch-TensorRT.

The engine is the artifact: bytes that TensorRT itself opens, no pickle, no part left to PyTorch.
A segment that TensorRT cannot take whole is refused; the partitioner can cut it smaller.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping
from typing import Any

import torch

from hardpoint import Artifact, Executable
from hardpoint_cpu import eager, elsewhere, executed
from hardpoint_cpu.origin import artifact_error, compile_error, in_words
from hardpoint_cpu.segment import Segment
from hardpoint_cuda.vendor import Hardware, Vendor

FILE = "engine.trt"
_UNBOUNDED = 2**31 - 1  # what hardpoint_cpu.shapes writes for a size without a limit
_DTYPES = {
    "FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT8": torch.int8,
    "UINT8": torch.uint8, "INT32": torch.int32, "INT64": torch.int64, "BOOL": torch.bool,
}  # fmt: skip


def missing() -> str:
    """Why the mode cannot be used here; ``""`` where it can."""
    lacking = [n for n in ("tensorrt", "torch_tensorrt") if importlib.util.find_spec(n) is None]
    return f"{' and '.join(lacking)} cannot be imported" if lacking else ""


def ranges(described: Mapping[str, Any]) -> list[tuple[torch.dtype, list[tuple[int, int, int]]]]:
    """Dtype of each input, and (least, example, greatest) of each of its sizes.

    :raises CompileError: a size without a limit, or one that is made of others.
    """
    found = []
    for i, facts in enumerate(described["inputs"]):
        sizes = []
        for size in facts["shape"]:
            if isinstance(size, list):
                raise compile_error(
                    f"TensorRT cannot be told the sizes of input {i}",
                    cause=f"one is computed from others: {size}",
                    remedy="use another mode for this segment, or make the size static",
                )
            if isinstance(size, int):
                sizes.append((size, size, size))
                continue
            symbol = described["symbols"][size]
            if symbol["max"] >= _UNBOUNDED:
                raise compile_error(
                    f"size {size!r} of input {i} has no limit, and TensorRT needs one",
                    remedy="bound it when capturing: dynamic={'x': {0: torch.export.Dim('batch', "
                    "max=64)}}",
                )
            sizes.append((symbol["min"], symbol["example"], symbol["max"]))
        found.append((getattr(torch, facts["dtype"]), sizes))
    return found


def compile_segment(
    segment: Segment,
    described: Mapping[str, Any],
    hardware: Hardware,
    vendor: Vendor,
    *,
    tf32: bool,
) -> Artifact:
    """Build the engine on this device.

    :raises CompileError: TensorRT is not installed, or does not take the segment whole.
    """
    reason = missing()
    if reason:
        raise compile_error(
            "mode 'tensorrt' is not installed", cause=reason, remedy="pip install torch-tensorrt"
        )
    sizes = ranges(described)
    import tensorrt
    import torch_tensorrt

    device = torch.device("cuda", hardware.index)
    module = elsewhere.on(segment, device).module()
    examples = tuple(
        torch.zeros([size[1] for size in shape], dtype=dtype, device=device)
        for dtype, shape in sizes
    )
    try:
        exported = torch.export.export(
            module, examples, dynamic_shapes=dynamic(described), strict=False
        )
        engine = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            exported,
            arg_inputs=[_input(torch_tensorrt, dtype, shape) for dtype, shape in sizes],
            device=torch_tensorrt.Device(gpu_id=hardware.index),
            disable_tf32=not tf32,  # its own default rounds float32 to TF32
            require_full_compilation=True,
            truncate_double=False,
            immutable_weights=True,
        )
    except Exception as error:
        raise compile_error(
            "TensorRT does not take this segment whole",
            cause=in_words(error),
            remedy="use another mode for it, or let more of it run elsewhere",
        ) from error
    return Artifact(
        vendor.format("tensorrt"),
        {FILE: bytes(engine)},
        {},
        {"tensorrt": tensorrt.__version__, executed.KEY: segment.executed.to_json()},
    )


def dynamic(described: Mapping[str, Any]) -> tuple[dict[int, Any], ...]:
    """The same for ``torch.export``."""
    dims = {
        name: torch.export.Dim(name, min=facts["min"], max=facts["max"])
        for name, facts in described["symbols"].items()
    }
    inputs = [
        {i: dims[size] for i, size in enumerate(facts["shape"]) if isinstance(size, str)}
        for facts in described["inputs"]
    ]
    return tuple(inputs)


def _input(library: Any, dtype: torch.dtype, sizes: list[tuple[int, int, int]]) -> Any:
    least, example, greatest = (tuple(size[i] for size in sizes) for i in range(3))
    if least == greatest:
        return library.Input(example, dtype=dtype)
    return library.Input(min_shape=least, opt_shape=example, max_shape=greatest, dtype=dtype)


def load(artifact: Artifact, hardware: Hardware) -> EngineExecutable:
    """Open the engine.

    :raises ArtifactError: TensorRT is not here, or is another version, or does not open it.
    """
    data = eager.file(artifact, FILE)
    if importlib.util.find_spec("tensorrt") is None:
        raise artifact_error(
            "the artifact needs TensorRT, which is not installed", remedy="pip install tensorrt"
        )
    import tensorrt

    built = artifact.metadata.get("tensorrt")
    if built != tensorrt.__version__:
        raise artifact_error(
            "the artifact was compiled by another version of TensorRT",
            cause=f"it was compiled by {built}, this is {tensorrt.__version__}",
            remedy="compile the segment again on this machine",
        )
    with torch.cuda.device(hardware.index):
        runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        engine = runtime.deserialize_cuda_engine(bytes(data))
        if engine is None:
            raise artifact_error(
                "TensorRT cannot open the engine", remedy="compile the segment again"
            )
        return EngineExecutable(tensorrt, engine, torch.device("cuda", hardware.index))


class EngineExecutable(Executable):
    """An engine with one context. Calls take turns, in whatever streams they come."""

    def __init__(self, library: Any, engine: Any, device: torch.device) -> None:
        self._engine = engine
        self._context: Any = engine.create_execution_context()
        self._device = device
        self._lock = threading.Lock()
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        entering = library.TensorIOMode.INPUT
        self._inputs = [n for n in names if engine.get_tensor_mode(n) == entering]
        self._outputs = [
            (n, _DTYPES[engine.get_tensor_dtype(n).name]) for n in names if n not in self._inputs
        ]

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Enqueue on the caller's stream; outputs are new tensors."""
        with self._lock:
            context = self._context
            if context is None:
                raise RuntimeError("the executable was closed")
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(self._done)
            held = [tensor.contiguous() for tensor in inputs]
            for name, tensor in zip(self._inputs, held, strict=True):
                if not context.set_input_shape(name, tuple(tensor.shape)):
                    raise RuntimeError(f"TensorRT does not take {list(tensor.shape)} for {name}")
                context.set_tensor_address(name, tensor.data_ptr())
            results = []
            for name, dtype in self._outputs:
                shape = tuple(context.get_tensor_shape(name))
                result = torch.empty(shape, dtype=dtype, device=self._device)
                context.set_tensor_address(name, result.data_ptr())
                results.append(result)
            if not context.execute_async_v3(stream.cuda_stream):
                raise RuntimeError("TensorRT could not start the engine; its log says why")
            self._done.record(stream)
        return tuple(results)

    def close(self) -> None:
        """Let go of the context and the engine."""
        with self._lock:
            if self._context is not None:
                self._done.synchronize()
            self._context = self._engine = None
