"""The initializers of a model: parsed by the library ``onnx``, and held to our own rules."""

from __future__ import annotations

import array
import importlib
import math
from typing import Any, NamedTuple

from hardpoint import WeightsError
from hardpoint.storage.source import Source
from hardpoint_onnx.dtypes import BY_NUMBER, FIELDS, UNSUPPORTED, Dtype
from hardpoint_onnx.external import Place, place_of, text_of, texts_of
from hardpoint_onnx.outline import problem
from hardpoint_onnx.refuse import refuse, show

MAX_FILE = (1 << 31) - 1  # protobuf's own
MAX_TENSORS = 1 << 18
MAX_RANK = 64  # PyTorch's
_MAX_SIZE = (1 << 63) - 1
_EXTERNAL = 1  # TensorProto.DataLocation


class Initializer(NamedTuple):
    """One weight.

    :param shape: in PyTorch's terms.
    :param data: its bytes, or where they are.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    nbytes: int
    data: bytes | Place


class Model(NamedTuple):
    """What we keep of a model."""

    metadata: dict[str, str]
    initializers: list[Initializer]


def read_model(source: Source) -> Model:
    """Parse the model; its external data are not looked for.

    All of the file is read: its weights lie between the nodes, and none is kept twice.

    :raises WeightsError: it is no model, it holds weights that PyTorch cannot, or a broken one.
    """
    if source.size > MAX_FILE:
        raise refuse(
            source.name,
            "the file is too large for a model",
            f"it has {source.size} bytes; protobuf allows {MAX_FILE}",
            "save the model with external data (onnx.save_model(save_as_external_data=True))",
        )
    wrong = problem(source)
    if wrong:
        raise refuse(source.name, "this is no ONNX model, or a damaged one", wrong)
    proto = _parse(source)
    if proto.graph.sparse_initializer:
        raise refuse(
            source.name,
            "the model has sparse weights",
            f"{len(proto.graph.sparse_initializer)} sparse_initializer(s) are in its graph",
            "save them as usual initializers",
        )
    return Model(
        texts_of(proto.metadata_props, source.name, "the metadata"),
        _initializers(proto.graph.initializer, source.name),
    )


def _parse(source: Source) -> Any:
    try:
        onnx = importlib.import_module("onnx")
        decode_error = importlib.import_module("google.protobuf.message").DecodeError
    except ImportError as error:
        raise refuse(
            source.name,
            "the model cannot be parsed",
            f"the library onnx is missing: {error}",
            "pip install onnx",
        ) from error
    try:
        return onnx.ModelProto.FromString(source.read(0, source.size))
    except decode_error as error:
        raise refuse(
            source.name, "this is no ONNX model, or a damaged one", f"protobuf says: {error}"
        ) from error


def _initializers(protos: Any, file: str) -> list[Initializer]:
    if len(protos) > MAX_TENSORS:
        raise refuse(
            file,
            "the model has too many weights",
            f"{len(protos)}; at most {MAX_TENSORS} are allowed",
        )
    found: dict[str, Initializer] = {}
    for proto in protos:
        each = _initializer(proto, file)
        if each.name in found:
            raise refuse(
                file, "the model is broken", f"two of its weights are called {show(each.name)}"
            )
        found[each.name] = each
    return list(found.values())


def _initializer(proto: Any, file: str) -> Initializer:
    name = text_of(proto.name, file, "the name of a tensor")
    what = f"tensor {show(name)}"
    dtype = _dtype(proto.data_type, file, what)
    if proto.HasField("segment"):
        raise _bad(
            file, what, "it is one segment of a tensor, and nobody says where the others are"
        )
    shape = _shape(list(proto.dims), dtype, file, what)
    nbytes = math.prod(shape) * dtype.itemsize
    filled = [field for field in FIELDS if len(getattr(proto, field))]
    if proto.HasField("raw_data"):
        filled.append("raw_data")
    data: bytes | Place
    if proto.data_location == _EXTERNAL:
        if filled:
            raise _bad(file, what, f"its data are external, and also in {filled[0]}")
        data = place_of(proto.external_data, file, what)
        if data.length is not None and data.length != nbytes:
            raise _bad(file, what, _takes(dtype, shape, nbytes, f"its length is {data.length}"))
    else:
        if len(proto.external_data):
            raise _bad(file, what, "it names external data, and is said not to have any")
        data = _inline(proto, dtype, shape, nbytes, filled, file, what)
    return Initializer(name, dtype, shape, nbytes, data)


def _dtype(number: int, file: str, what: str) -> Dtype:
    dtype = BY_NUMBER.get(number)
    if dtype is not None:
        return dtype
    if number in UNSUPPORTED:
        raise refuse(
            file,
            f"{what} is of type {UNSUPPORTED[number]}, which PyTorch cannot hold",
            f"PyTorch has no dtype for {UNSUPPORTED[number]}",
            "convert the weight to one of: " + ", ".join(each.name for each in BY_NUMBER.values()),
        )
    raise _bad(file, what, f"its data_type is {number}, which the format does not know")


def _shape(sizes: list[int], dtype: Dtype, file: str, what: str) -> tuple[int, ...]:
    if len(sizes) > MAX_RANK:
        raise _bad(file, what, f"it has {len(sizes)} dimensions; at most {MAX_RANK} may be")
    if any(size < 0 for size in sizes):
        raise _bad(file, what, f"its dims {show(sizes)} are no sizes")
    if dtype.packed > 1:
        if not sizes or sizes[-1] % dtype.packed:
            raise refuse(
                file,
                f"{what} of type {dtype.name} cannot be a tensor",
                f"PyTorch packs {dtype.packed} values of a row in an element, and its dims are"
                f" {show(sizes)}",
                f"make the last size a multiple of {dtype.packed}",
            )
        sizes = [*sizes[:-1], sizes[-1] // dtype.packed]
    # PyTorch multiplies sizes to strides even where one of them is 0.
    product = dtype.itemsize
    for size in sizes:
        product *= size or 1
    if product > _MAX_SIZE:
        raise _bad(file, what, f"its dims {show(sizes)} are larger than any memory")
    return tuple(sizes)


def _inline(
    proto: Any,
    dtype: Dtype,
    shape: tuple[int, ...],
    nbytes: int,
    filled: list[str],
    file: str,
    what: str,
) -> bytes:
    """The bytes of a tensor that is in the model itself, little-endian, row by row."""
    if len(filled) > 1:
        raise _bad(file, what, f"its data stand there twice: in {' and '.join(filled)}")
    if filled == ["raw_data"]:
        raw: bytes = proto.raw_data
        if len(raw) != nbytes:
            raise _bad(file, what, _takes(dtype, shape, nbytes, f"its raw_data have {len(raw)}"))
        return raw
    count = len(getattr(proto, dtype.field))
    if filled not in ([], [dtype.field]) or count * dtype.itemsize != nbytes * dtype.parts:
        where = f"its {filled[0]} have" if filled else f"its {dtype.field} have"
        held = len(getattr(proto, filled[0])) if filled else 0
        raise _bad(
            file,
            what,
            f"{dtype.name} of shape {show(shape)} takes"
            f" {nbytes // dtype.itemsize * dtype.parts} values in {dtype.field}, and"
            f" {where} {held}",
        )
    values = array.array(dtype.form, getattr(proto, dtype.field))
    if dtype.low is None:
        return values.tobytes()
    if values and not (dtype.low <= min(values) and max(values) <= dtype.high):
        raise _bad(file, what, f"its {dtype.field} hold values outside {dtype.low} to {dtype.high}")
    # Each in the low bytes of its number.
    letter = {1: "b", 2: "h", 4: "i"}[dtype.itemsize]
    return array.array(letter if dtype.low < 0 else letter.upper(), values).tobytes()


def _takes(dtype: Dtype, shape: tuple[int, ...], nbytes: int, but: str) -> str:
    return f"{dtype.name} of shape {show(shape)} takes {nbytes} bytes, and {but}"


def _bad(file: str, what: str, cause: str) -> WeightsError:
    return refuse(file, f"{what} is broken", cause)
