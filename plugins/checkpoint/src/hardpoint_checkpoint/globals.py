"""The allow-list: what a pickle may name, and what stands for it. All else is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hardpoint.storage.refusal import show
from hardpoint_checkpoint.standins import (
    DTYPES,
    MAX_RANK,
    DtypeWord,
    Items,
    Pairs,
    Refused,
    Storage,
    StorageType,
    TensorRef,
    Word,
    span_of,
)

_LARGEST = (1 << 63) - 1
_COMPLEX = frozenset({"complex128", "complex64"})
# What PyTorch negates lazily: the imaginary parts of conjugates.
_NEGATED = _COMPLEX | {"float64", "float32"}


@dataclass(frozen=True, slots=True)
class Function:
    """What a pickle may call: our own few lines of the same meaning."""

    name: str
    call: Callable[..., object]


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _counts(value: object, what: str) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(map(_is_count, value)):
        raise Refused(f"a tensor's {what} is {show(value)}, not whole numbers from 0 on")
    if len(value) > MAX_RANK:
        raise Refused(f"a tensor has {len(value)} dimensions; at most {MAX_RANK} may be")
    return value


def _tensor(
    storage: object, offset: object, size: object, stride: object, dtype: str, itemsize: int
) -> TensorRef:
    assert isinstance(storage, Storage)
    shape, steps = _counts(size, "size"), _counts(stride, "stride")
    if type(offset) is not int or not 0 <= offset <= _LARGEST:
        raise Refused(f"a tensor begins at element {show(offset)} of its storage")
    if len(shape) != len(steps):
        raise Refused(f"a tensor has {len(shape)} sizes and {len(steps)} strides")
    made = TensorRef(storage, dtype, itemsize, offset, shape, steps)
    # Of an empty tensor, too, the other sizes must be ones that PyTorch can count.
    count = 1
    for each in shape:
        count *= each or 1
        if count * itemsize > _LARGEST:
            raise Refused(f"a tensor of shape {show(list(shape))} is larger than any memory")
    last = offset + span_of(shape, steps)
    if last * itemsize > storage.nbytes:
        raise Refused(
            f"a tensor of shape {show(list(shape))} and strides {show(list(steps))} at element"
            f" {offset} needs {last} elements of {dtype}, and its storage has"
            f" {storage.nbytes // itemsize}"
        )
    return made


def _storage(value: object) -> Storage:
    if not isinstance(value, Storage):
        raise Refused(f"a tensor is made of {show(type(value).__name__)}, not of a storage")
    return value


def _flagged(made: TensorRef, metadata: object) -> TensorRef:
    """The tensor with the bits that say: read me conjugated, or negated."""
    if metadata is None:
        return made
    if not isinstance(metadata, Pairs):
        raise Refused("a tensor's metadata is no dict")
    flags = {"conj": False, "neg": False}
    for key, value in metadata.items:
        if not isinstance(key, str) or key not in flags or not isinstance(value, bool):
            raise Refused(f"a tensor's metadata says {show(key)}, which is unknown")
        flags[key] = value
    if flags["conj"] and made.dtype not in _COMPLEX:
        raise Refused(f"a tensor of {made.dtype} is said to be conjugated")
    if flags["neg"] and made.dtype not in _NEGATED:
        raise Refused(f"a tensor of {made.dtype} is said to be negated")
    return TensorRef(made.storage, made.dtype, made.itemsize, made.offset, made.shape,
                     made.stride, flags["conj"], flags["neg"])  # fmt: skip


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object) -> TensorRef:
    kind = _storage(storage).type
    return _tensor(storage, offset, size, stride, kind.dtype, kind.itemsize)


def _rebuild_tensor_v2(
    storage: object, offset: object, size: object, stride: object,
    requires_grad: object, hooks: object, metadata: object = None,
) -> TensorRef:  # fmt: skip
    return _flagged(_rebuild_tensor(storage, offset, size, stride), metadata)


def _rebuild_tensor_v3(
    storage: object, offset: object, size: object, stride: object,
    requires_grad: object, hooks: object, dtype: object, metadata: object = None,
) -> TensorRef:  # fmt: skip
    if not isinstance(dtype, DtypeWord):
        raise Refused(f"a tensor's dtype is {show(dtype)}")
    made = _tensor(_storage(storage), offset, size, stride, dtype.name, dtype.itemsize)
    return _flagged(made, metadata)


def _rebuild_parameter(data: object, requires_grad: object, hooks: object) -> TensorRef:
    if not isinstance(data, TensorRef):
        raise Refused("a parameter is made of something that is no tensor")
    return data


def _rebuild_parameter_with_state(
    data: object, requires_grad: object, hooks: object, state: object
) -> TensorRef:
    return _rebuild_parameter(data, requires_grad, hooks)


def _rebuild_from_type_v2(function: object, kind: object, args: object, state: object) -> TensorRef:
    """A tensor that had attributes: they are left out, as ``state_dict`` would."""
    if not isinstance(function, Function) or not isinstance(args, tuple):
        raise Refused("a tensor is made by something that makes no tensors")
    if kind not in (_TENSOR, _PARAMETER):
        raise Refused(f"a tensor is to become {show(getattr(kind, 'text', kind))}")
    made = call(function, args)
    if not isinstance(made, TensorRef):
        raise Refused(f"a tensor is made by {function.name}, which makes no tensors")
    return made


def call(function: Function, args: tuple[object, ...]) -> object:
    """What it gives.

    :raises Refused: the arguments do not fit.
    """
    try:
        return function.call(*args)
    except TypeError as error:
        raise Refused(f"{function.name} is called with {len(args)} arguments") from error


def _dict(given: object = None) -> Pairs:
    if given is None:
        return Pairs(ordered=True)
    if isinstance(given, Pairs):
        return Pairs(list(given.items), ordered=True)
    if not isinstance(given, list):
        raise Refused("a dict is made of something that is no list of pairs")
    made = Pairs(ordered=True)
    for pair in given:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise Refused("a dict is made of something that is no list of pairs")
        made.items.append((pair[0], pair[1]))
    return made


def _defaultdict(factory: object = None) -> Pairs:
    if factory is not None and not isinstance(factory, Word | Function):
        raise Refused("a defaultdict's default is no type")
    return Pairs(ordered=True)


def _set(given: object = None) -> Items:
    if given is None:
        return Items()
    if not isinstance(given, list | tuple):
        raise Refused("a set is made of something that is no list")
    return Items(list(given))


def _bytes(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused(f"text is to be encoded by {show(encoding)}")
    try:
        return text.encode("latin1")
    except UnicodeEncodeError as error:
        raise Refused("bytes are spelt by characters that are none") from error


def _bytearray(*args: object) -> bytes:
    if not args:
        return b""
    if len(args) == 1 and isinstance(args[0], bytes):
        return args[0]
    return _bytes(*args)


def _complex(real: object, imaginary: object) -> complex:
    if not isinstance(real, float) or not isinstance(imaginary, float):
        raise Refused("a complex number is made of something that is no float")
    return complex(real, imaginary)


def _size(sizes: object) -> tuple[int, ...]:
    return _counts(tuple(sizes) if isinstance(sizes, list) else sizes, "size")


def _device(kind: object, index: object = None) -> Word:
    if not isinstance(kind, str) or len(kind) > 32 or not (index is None or _is_count(index)):
        raise Refused(f"a device is called {show(kind)}")
    return Word(kind if index is None else f"{kind}:{index}")


_TENSOR, _PARAMETER = Word("torch.Tensor"), Word("torch.nn.Parameter")

_FUNCTIONS: dict[tuple[str, str], Callable[..., object]] = {
    ("collections", "OrderedDict"): _dict,
    ("collections", "Counter"): _dict,
    ("collections", "defaultdict"): _defaultdict,
    ("_codecs", "encode"): _bytes,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter_with_state,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type_v2,
}
_BUILTINS: dict[str, Callable[..., object]] = {
    "set": _set,
    "frozenset": _set,
    "bytearray": _bytearray,
    "complex": _complex,
}
_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
}  # fmt: skip
# Types that defaultdict's default, or a hyper-parameter, is: names, never called.
_TYPES = ("bool", "int", "float", "str", "bytes", "list", "tuple", "dict")


def _table() -> Mapping[tuple[str, str], object]:
    found: dict[tuple[str, str], object] = {
        (module, name): Function(f"{module}.{name}", function)
        for (module, name), function in _FUNCTIONS.items()
    }
    for module in ("builtins", "__builtin__"):
        for name, builtin in _BUILTINS.items():
            found[module, name] = Function(f"{module}.{name}", builtin)
        for name in _TYPES:
            found[module, name] = Word(name)
    for name, itemsize in DTYPES.items():
        found["torch", name] = DtypeWord(f"torch.{name}", name, itemsize)
    for name, dtype in _STORAGES.items():
        found["torch", name] = StorageType(name, dtype, DTYPES[dtype])
    for module in ("torch", "torch.storage"):
        found[module, "UntypedStorage"] = StorageType("UntypedStorage", "uint8", 1)
    found["torch", "Tensor"] = _TENSOR
    found["torch.nn.parameter", "Parameter"] = _PARAMETER
    return found


ALLOWED = _table()
