"""Constants of an AOTInductor library: as weights of an artifact, and as the library takes them.

Frozen, most of them have a layout of oneDNN's own, which no plain tensor has. Such a one is kept as
its bytes, beside oneDNN's description of it; PyTorch's C interface, which the library itself would
use (``aoti_torch_create_tensor_from_blob_v2``), makes the tensor again around the bytes where they
lie. The description is that of one version of oneDNN: the artifact says which PyTorch made it.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hardpoint_cpu.origin import artifact_error, compile_error
from hardpoint_cpu.segment import Segment

# The library's name of a constant -> the program's, and the tensor that Inductor made of it.
Made = Mapping[str, tuple[str, torch.Tensor]]
# The library's name of a constant -> the artifact's name of the weight.
Names = dict[str, str]
# The library's name of a constant -> what its weight does not say: of bytes that oneDNN reads, or
# of one whose elements do not lie in order.
Layouts = dict[str, dict[str, Any]]
_AGAIN = "compile the segment again"
# Of PyTorch's own folder.
_FILES = {"linux": "libtorch_cpu.so", "darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}
_DTYPES = ("float32", "bfloat16", "float16", "int8", "uint8")


def keep(wanted: set[str], segment: Segment, made: Made) -> tuple[Names, Layouts]:
    """Make every constant a weight of ``segment``, which most are already.

    :param wanted: the constants, by the library's names. :param made: all that Inductor knows of;
        what differs from the segment's weight of its name becomes another.
    :raises CompileError: there is no such constant.
    """
    names, layouts = Names(), Layouts()
    for constant in sorted(wanted):
        origin, tensor = made.get(constant, (constant, None))
        if origin in segment.weights:
            name, weight = segment.weights[origin]
            if tensor is None or _same(weight, tensor):
                names[constant] = name
                continue
        if tensor is None:
            raise compile_error(
                "AOTInductor made a constant that the artifact cannot hold",
                cause=f"the library asks for {constant!r}, which is no weight of the segment",
                remedy="use mode 'inductor' or 'eager' for this segment",
            )
        if tensor.is_mkldnn and _dtype(tensor) not in _DTYPES:
            raise compile_error(
                "oneDNN repacked a constant that the artifact cannot hold",
                cause=f"{constant!r} is of dtype {_dtype(tensor)}, it holds {', '.join(_DTYPES)}",
                remedy="leave the option freezing out, or use mode 'inductor' for this segment",
            )
        data, layout = _plain(tensor.detach())
        if layout:
            layouts[constant] = layout
        # Named by what it is: artifacts of one package share weights by their names.
        content = hashlib.sha256(f"{data.dtype} {list(data.shape)}\n".encode())
        content.update(_bytes(data).numpy().data)
        names[constant] = f"@constant-{content.hexdigest()[:16]}"
        segment.weights[f"@{constant}"] = (names[constant], data)
    return names, layouts


def restore(constant: str, data: torch.Tensor, layout: object) -> torch.Tensor:
    """The constant as the library takes it, in the memory of ``data``.

    :param layout: as :func:`keep` said of it, or ``None``.
    :raises ArtifactError: they do not belong together.
    """
    if layout is None:
        return data.contiguous()
    try:
        if not isinstance(layout, Mapping):
            raise TypeError(f"its layout is {layout!r:.80}")
        shape = [int(size) for size in layout["shape"]]
        if "onednn" not in layout:
            strides = [int(stride) for stride in layout["strides"]]
            return data.contiguous().as_strided(shape, strides, int(layout["offset"]))
        made = _opaque(data, shape, str(layout["dtype"]), bytes.fromhex(str(layout["onednn"])))
        needed = torch.ops.mkldnn._nbytes(made)
        if needed != data.nbytes:
            raise ValueError(f"oneDNN needs {needed} bytes for it, and it has {data.nbytes}")
        if list(made.shape) != shape:
            raise ValueError(f"oneDNN describes one of {list(made.shape)}, not of {shape}")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise artifact_error(
            f"the constant {constant!r} does not fit its layout", cause=str(error), remedy=_AGAIN
        ) from error
    return made


def _plain(tensor: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
    """A contiguous copy that holds all of it, on the CPU, and what the copy does not say."""
    if tensor.is_mkldnn:
        size = torch.ops.mkldnn._nbytes(tensor)
        data = torch.empty(size, dtype=torch.uint8)
        ctypes.memmove(data.data_ptr(), torch.ops.mkldnn.data_ptr(tensor), size)
        return data, {
            "shape": list(tensor.shape),
            "dtype": _dtype(tensor),
            "onednn": _described(tensor).hex(),
        }
    if tensor.is_contiguous():
        return tensor.cpu().clone(), {}
    flat = (
        torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        .set_(tensor.untyped_storage())
        .cpu()
        .clone()
    )
    place = {"strides": list(tensor.stride()), "offset": tensor.storage_offset()}
    return flat, {"shape": list(tensor.shape), **place}


def _opaque(data: torch.Tensor, shape: list[int], dtype: str, described: bytes) -> torch.Tensor:
    """A tensor in oneDNN's layout around ``data``, which must outlive it.

    :raises ValueError, RuntimeError: it is none.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r:.40} has no layout of oneDNN's")
    if len(described) != _length():
        raise ValueError(f"{len(described)} bytes are no description of this oneDNN's")
    shim, handle = _shim(), ctypes.c_void_p()
    strides = torch.empty(shape, device="meta").stride()
    numbers = ctypes.c_int64 * len(shape)
    failed = shim.aoti_torch_create_tensor_from_blob_v2(
        ctypes.c_void_p(data.data_ptr()),
        ctypes.c_int64(len(shape)), numbers(*shape), numbers(*strides), ctypes.c_int64(0),
        getattr(shim, f"aoti_torch_dtype_{dtype}")(), shim.aoti_torch_device_type_cpu(), 0,
        ctypes.byref(handle),
        shim.aoti_torch_layout__mkldnn(), described, ctypes.c_int64(len(described)),
    )  # fmt: skip
    if failed:
        raise RuntimeError("PyTorch makes no tensor of it")
    capsule = _capsule()(handle, None, None)
    made: torch.Tensor = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr(capsule)
    return made


@cache
def _shim() -> ctypes.CDLL:
    return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / _FILES[sys.platform]))


@cache
def _capsule() -> Callable[..., Any]:
    new = ctypes.PyDLL(None).PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
    return new


def _described(tensor: torch.Tensor) -> bytes:
    return bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(tensor).tolist())


@cache
def _length() -> int:
    """Bytes of any description: they are of one size in one version."""
    return len(_described(torch.zeros(1).to_mkldnn()))


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _same(weight: torch.Tensor, made: torch.Tensor) -> bool:
    if made.is_mkldnn or (weight.dtype, weight.shape) != (made.dtype, made.shape):
        return False
    if not (weight.is_contiguous() and made.is_contiguous()):
        return False
    # That of most, of which nothing is copied from a device then.
    there = weight.data_ptr() == made.data_ptr() and weight.device == made.device
    return there or torch.equal(_bytes(weight.cpu()), _bytes(made.cpu()))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)
