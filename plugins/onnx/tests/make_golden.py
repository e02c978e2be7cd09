"""Make the golden and hostile files that conformance.toml names: ``python make_golden.py``.

The golden ones are written by the format's reference library and by ``torch.onnx.export``, and
recorded from the arrays in memory: our own code has no part in them. They are committed and not
made again, so that files of today stay readable.
"""

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from hardpoint.testing.serializer import record_golden
from hardpoint_onnx.dtypes import BY_NUMBER

HERE = Path(__file__).parent


def model(initializers, **more):
    graph = helper.make_graph([], "weights", [], [], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], **more)


def every_type():
    """(name, what a tensor of all bit patterns is in PyTorch, the same as raw_data)."""
    raw = torch.arange(256, dtype=torch.uint8)
    for dtype in BY_NUMBER.values():
        bits = raw % 2 if dtype.name == "BOOL" else raw
        tensor = (
            bits.bool() if dtype.name == "BOOL" else bits.view(getattr(torch, dtype.torch_name))
        )
        proto = TensorProto()
        proto.name, proto.data_type, proto.raw_data = dtype.name, dtype.number, bytes(bits.tolist())
        proto.dims.append(len(tensor) * dtype.packed)
        yield proto, tensor


def typed():
    """(name, tensor, the same in fields of values)."""
    values = [0.0, 1.0, -2.5, 0.25]
    for name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2"):
        number = TensorProto.DataType.Value(name)
        tensor = torch.tensor(values).to(getattr(torch, BY_NUMBER[number].torch_name))
        yield helper.make_tensor(name, number, (2, 2), values), tensor.reshape(2, 2)
    for name in ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL"):
        number = TensorProto.DataType.Value(name)
        low = -1 if name.startswith("I") else 1
        dtype = getattr(torch, BY_NUMBER[number].torch_name)
        yield (
            helper.make_tensor(name, number, (3,), [0, low, 1]),
            torch.tensor([0, low, 1]).to(dtype),
        )
    for name in ("COMPLEX64", "COMPLEX128"):
        number = TensorProto.DataType.Value(name)
        dtype = getattr(torch, BY_NUMBER[number].torch_name)
        made = helper.make_tensor(name, number, (2,), [1 + 2j, -1j])
        yield made, torch.tensor([1 + 2j, -1j], dtype=dtype)
    # 0.5, 1, -2, 6: the bits 1, 2, 12, 7; two values a byte, the first in the low half.
    packed = helper.make_tensor("FLOAT4E2M1", TensorProto.FLOAT4E2M1, (4,), [0.5, 1, -2, 6])
    yield packed, torch.tensor([0x21, 0x7C], dtype=torch.uint8).view(torch.float4_e2m1fn_x2)


def golden(folder):
    cube = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    arrays = {
        "cube": cube,
        "scalar": np.array(2.5),
        "empty": np.empty((0, 3), np.float32),
        "layer.weight": np.arange(12, dtype=np.int64).reshape(3, 4),
        "größe/\U0001f600": np.ones(3, np.float16),
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    protos = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    protos.append(helper.make_tensor("fields", TensorProto.FLOAT, (3,), [1.0, 2.0, 3.0]))
    tensors["fields"] = torch.tensor([1.0, 2.0, 3.0])
    save(folder / "a-plain.onnx", model(protos), tensors)

    made = [(proto, tensor) for proto, tensor in every_type()]
    save(folder / "types.onnx", model([p for p, _ in made]), {p.name: t for p, t in made})
    made = list(typed())
    named = model([p for p, _ in made], producer_name="hand", doc_string="words")
    helper.set_model_props(named, {"k": "größe", "empty": ""})
    tensors = {p.name: t for p, t in made}
    save(folder / "typed.onnx", named, tensors, {"k": "größe", "empty": ""})

    big = {"w": np.arange(64, dtype=np.float32).reshape(8, 8), "b": np.ones(5, np.int8)}
    protos = [numpy_helper.from_array(array, name) for name, array in big.items()]
    path = folder / "external.onnx"
    onnx.save_model(
        model(protos), path, save_as_external_data=True, location="external.bin", size_threshold=0
    )
    record_golden(path, {name: torch.from_numpy(array) for name, array in big.items()})

    torch.manual_seed(3)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = folder / "exported.onnx"
        torch.onnx.export(module, (torch.ones(1, 4),), path, dynamo=False)
    record_golden(path, {name: value.detach() for name, value in module.state_dict().items()})


def save(path, made, tensors, metadata=None):
    onnx.save(made, path)
    record_golden(path, tensors, metadata)


def external(location="data.bin", **numbers):
    proto = TensorProto()
    proto.name, proto.data_type, proto.data_location = "w", TensorProto.FLOAT, TensorProto.EXTERNAL
    proto.dims.append(2)
    for key, value in {"location": location, **numbers}.items():
        proto.external_data.add(key=key, value=str(value))
    return proto


def hostile(folder):
    """The rest is in tests/test_onnx_hostile.py. Each names data that are not there."""
    good = model([numpy_helper.from_array(np.ones(2, np.float32), "w")]).SerializeToString()
    short = TensorProto(name="w", data_type=1, dims=[1 << 40], raw_data=bytes(8))
    files = {
        "outside": model([external("../../../../etc/passwd")]).SerializeToString(),
        "absolute": model([external("/etc/passwd")]).SerializeToString(),
        "inner-parent": model([external("a/../../b")]).SerializeToString(),
        "missing": model([external("missing.bin")]).SerializeToString(),
        "short-length": model([external("types.bin", length=4)]).SerializeToString(),
        "giant-dims": model([short]).SerializeToString(),
        "strings": model([helper.make_tensor("s", 8, (1,), [b"x"])]).SerializeToString(),
        "int4": model([helper.make_tensor("i", 22, (2,), [1, 2])]).SerializeToString(),
        "twice": good + good,
        "trailing": good + b"\0",
    }
    for name, data in files.items():
        (folder / f"{name}.onnx").write_bytes(data)


if __name__ == "__main__":
    for name, make in {"golden": golden, "hostile": hostile}.items():
        (HERE / name).mkdir(exist_ok=True)
        make(HERE / name)
