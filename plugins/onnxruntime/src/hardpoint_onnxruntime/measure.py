"""The verdict of a trial: whether ONNX Runtime opens the node, and gives what eager gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from hardpoint_onnxruntime import exporter, values
from hardpoint_onnxruntime.origin import in_words
from hardpoint_onnxruntime.trial import Trial

# Greatest accepted error, relative to the reference's greatest magnitude.
_LIMITS = {torch.float64: 1e-9, torch.float16: 5e-3, torch.bfloat16: 2e-2}
_LIMIT = 5e-5
# PyTorch's own answer is no better: its attention gives 0 for a row whose scores are NaN, its gelu
# of an infinity is NaN by the formula. For an LSTM's NaN see repairs.py: maybe a step early.
_MAY_MAKE_NAN = frozenset(
    {
        torch.ops.aten.scaled_dot_product_attention,
        torch.ops.aten.lstm,
        torch.ops.aten.gru,
        torch.ops.aten.rnn_tanh,
        torch.ops.aten.rnn_relu,
    }
)
_INFINITY_IS_NAN = frozenset({torch.ops.aten.gelu, torch.ops.aten.scaled_dot_product_attention})
# Beside those that work element by element: their integers are data, never places or counts.
_aten = torch.ops.aten
_OF_NUMBERS = frozenset(
    {
        _aten.sum, _aten.prod, _aten.cumsum, _aten.cumprod, _aten.amax, _aten.amin, _aten.aminmax,
        _aten.max, _aten.min, _aten.argmax, _aten.argmin, _aten.sort, _aten.argsort, _aten.topk,
        _aten.mm, _aten.bmm, _aten.matmul, _aten.addmm, _aten.dot, _aten.mv, _aten.cummax,
        _aten.cummin, _aten.any, _aten.all, _aten.mean, _aten.clamp, _aten.floor_divide,
    }
)  # fmt: skip
_SMALL = 1e-2  # results below this are as good as zero

Open = Callable[[bytes], Any]
Held = Mapping[Node, torch.Tensor]


def verdict(trial: Trial, held: Held, open_model: Open) -> str | None:
    """Why the node cannot run, in words; ``None`` where it can.

    :param held: weights of the program, where they are known: they are used as they are.
    :param open_model: bytes of a model -> a session on the device.
    """
    try:
        model = exporter.serialized(exporter.translate(trial.program))
    except Exception as error:
        return f"PyTorch's ONNX exporter cannot translate it ({_first(error)})"
    try:
        session = open_model(model)
    except Exception as error:
        return f"ONNX Runtime does not take it ({_first(error)})"
    piece = trial.piece
    wrong = _other_types(session, piece.results)
    if wrong:
        return f"PyTorch's ONNX exporter makes {wrong}"
    if values.too_large(piece.sources, piece.results):
        return None
    module = GraphModule(torch.nn.Module(), piece.graph)
    found = _eager(module, piece.sources, held)
    if found is None:
        return "PyTorch itself takes none of the numbers that it was tried with"
    inputs, expected = found
    wrong = _differs(session, trial, inputs, expected)
    if wrong:
        return f"ONNX Runtime gives other results than PyTorch: {wrong}"
    target = getattr(piece.node.target, "overloadpacket", None)
    free = _free(piece.sources, held, inputs)
    for what, changed in (
        ("with NaN", values.special(free, values.NAN)),
        ("with infinities", values.special(free, values.INFINITIES)),
        ("of large or negative integers", _large(trial, free, values.LARGE, values.SMALL)),
        ("of large integers", _large(trial, free, values.LARGE, values.TURNED)),
        (
            "of an integer that float64 cannot hold",
            _large(trial, free, values.LONELY, values.SMALL),
        ),
    ):
        if changed is None or (what == "with infinities" and target in _INFINITY_IS_NAN):
            continue
        again = _merged(piece.sources, held, inputs, changed)
        right = _run(module, again)
        if right is None:
            continue
        wrong = _differs(session, trial, again, right, target in _MAY_MAKE_NAN)
        if wrong:
            return f"ONNX Runtime gives other results than PyTorch {what}: {wrong}"
    return None


def _other_types(session: Any, results: Sequence[Node]) -> str:
    """How the model's results are of other types than the node's, or ``""``."""
    from hardpoint_onnxruntime.executable import ELEMENTS, ONNX_TYPES

    for port, node in zip(session.get_outputs(), results, strict=True):
        dtype = node.meta["val"].dtype
        if ONNX_TYPES.get(port.type) != ELEMENTS[dtype]:
            return f"a {port.type} of it, not a {str(dtype).removeprefix('torch.')}"
    return ""


def _first(error: Exception) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return in_words(error, 160)


def _eager(
    module: GraphModule, sources: Sequence[Node], held: Held
) -> tuple[list[torch.Tensor], list[torch.Tensor]] | None:
    """Inputs that PyTorch takes, and its results."""
    fakes = [node.meta["val"] for node in sources]
    for kind in range(values.INTEGER_KINDS):
        made = list(values.ordinary(fakes, kind))
        inputs = [held.get(node, value) for node, value in zip(sources, made, strict=True)]
        results = _run(module, inputs)
        if results is not None:
            return inputs, results
        if kind and all(f.dtype.is_floating_point or f.dtype is torch.bool for f in fakes):
            break
    return None


def _run(module: GraphModule, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
    try:
        with torch.no_grad():
            return list(Interpreter(module).run(*[t.clone() for t in inputs]))
    except Exception:  # values that it does not take, e.g. an index out of range: no trial
        return None


def _free(
    sources: Sequence[Node], held: Held, inputs: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    return [t for node, t in zip(sources, inputs, strict=True) if node not in held]


def _large(
    trial: Trial, free: Sequence[torch.Tensor], numbers: Sequence[int], others: Sequence[int]
) -> list[torch.Tensor] | None:
    """Only where integers are computed with: as a count they would be a count of gigabytes."""
    target = trial.piece.node.target
    assert isinstance(target, torch._ops.OpOverload)
    if torch.Tag.pointwise not in target.tags and target.overloadpacket not in _OF_NUMBERS:
        return None
    return values.large(free, numbers, others)


def _merged(
    sources: Sequence[Node],
    held: Held,
    inputs: Sequence[torch.Tensor],
    changed: Sequence[torch.Tensor],
) -> list[torch.Tensor]:
    new = iter(changed)
    return [t if node in held else next(new) for node, t in zip(sources, inputs, strict=True)]


def _differs(
    session: Any,
    trial: Trial,
    inputs: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
    may_make_nan: bool = False,
) -> str:
    """How the runtime's results differ, or ``""``.

    :param may_make_nan: it may give NaN where PyTorch has a number; never the other way.
    """
    given = [inputs[feed] if isinstance(feed, int) else feed for feed in trial.feeds]
    feeds = dict(zip([port.name for port in session.get_inputs()], given, strict=True))
    try:
        got = run_with_copies(session, feeds)
    except Exception as error:
        return in_words(error, 160)
    for value, want in zip(got, expected, strict=True):
        if may_make_nan and value.shape == want.shape and value.is_floating_point():
            want = torch.where(torch.isnan(value), value, want)
        wrong = _apart(value, want)
        if wrong:
            return wrong
    return ""


def run_with_copies(session: Any, feeds: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """One call by ``OrtValue``, which every dtype has; results are copied."""
    from hardpoint_onnxruntime.executable import from_ort, to_ort

    given = {name: to_ort(tensor.contiguous()) for name, tensor in feeds.items()}
    names = [port.name for port in session.get_outputs()]
    return [from_ort(value._ortvalue) for value in session.run_with_ort_values(names, given)]


def _apart(got: torch.Tensor, want: torch.Tensor) -> str:
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{_kind(got)} instead of {_kind(want)}"
    if not want.numel():
        return ""
    if not want.is_floating_point():
        off = int((got != want).sum())
        return f"{off} of {want.numel()} {_name(want)} values differ" if off else ""
    a, b = got.double(), want.double()
    finite = torch.isfinite(b)
    if not torch.equal(torch.isnan(a), torch.isnan(b)):
        return "NaN is lost or made"
    if not torch.equal(a[~finite & ~torch.isnan(b)], b[~finite & ~torch.isnan(b)]):
        return "an infinity is lost, or has the other sign"
    if not torch.equal(torch.isfinite(a), finite):
        return "an infinity is made"
    a, b = a[finite], b[finite]
    if not a.numel():
        return ""
    error = float((a - b).abs().max()) / max(_SMALL, float(b.abs().max()))
    limit = _LIMITS.get(want.dtype, _LIMIT)
    if error <= limit:
        return ""
    return f"error {error:.3g} where {limit:g} is allowed for {_name(want)}"


def _kind(tensor: torch.Tensor) -> str:
    return f"{_name(tensor)}{list(tensor.shape)}"


def _name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
