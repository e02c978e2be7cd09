"""Which cases a run takes: all, a fixed minute of them, or those of operators named by hand."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from hardpoint.errors import ConfigError
from hardpoint.testing.operators.database import Case

# Spread over the families of operators, in float32; a name stands for its first variant.
_QUICK = """
    abs neg exp log sqrt rsqrt sin erf floor sigmoid tanh isnan clamp
    add sub mul div floor_divide pow maximum eq lt where to
    sum mean amax argmax prod var cumsum logsumexp topk
    mm bmm addmm matmul nn.functional.linear
    nn.functional.relu nn.functional.gelu nn.functional.silu softmax log_softmax
    nn.functional.conv1d nn.functional.conv2d nn.functional.conv_transpose2d
    nn.functional.max_pool2d nn.functional.avg_pool2d nn.functional.adaptive_avg_pool2d
    nn.functional.batch_norm nn.functional.layer_norm nn.functional.group_norm
    nn.functional.scaled_dot_product_attention nn.functional.embedding
    nn.functional.interpolate nn.functional.pad
    reshape permute expand cat split slice
    index_select gather scatter index_put masked_fill tril
"""
# ... and these in every other dtype that they have.
_QUICK_DTYPES = """
    add mul div eq where to clamp sum cumsum any mm nn.functional.linear nn.functional.relu
    softmax logical_and expand cat gather
"""
QUICK, QUICK_DTYPES = tuple(_QUICK.split()), tuple(_QUICK_DTYPES.split())


def choose(cases: Sequence[Case], samples: str, operators: Sequence[str]) -> list[Case]:
    """The cases of one run, in the database's order.

    :param samples: ``"quick"`` or ``"full"``. :param operators: names; if any, only these.
    :raises ConfigError: the database has no such operator.
    """
    if operators:
        for name in operators:
            check_known(name, cases)
        return [case for case in cases if any(is_named(case, name) for name in operators)]
    if samples == "full":
        return list(cases)
    first: dict[tuple[str, str], Case] = {}
    for case in cases:
        if case.op in (QUICK if case.dtype == "float32" else QUICK_DTYPES):
            first.setdefault((case.op, case.dtype), case)
    return list(first.values())


def is_named(case: Case, name: str) -> bool:
    """Whether it is the case, or one of those, that ``name`` stands for.

    An operator with or without ``nn.functional.``, with or without a ``.variant``, and maybe with
    a ``/dtype``: ``relu``, ``div.floor_rounding``, ``sum/bfloat16``.
    """
    label, _, dtype = name.partition("/")
    if dtype and dtype != case.dtype:
        return False
    return label in (case.op, case.label, case.op.removeprefix("nn.functional."))


def check_known(name: str, cases: Sequence[Case]) -> None:
    """Refuse a name that stands for no case.

    :raises ConfigError: with the nearest names there are.
    """
    if any(is_named(case, name) for case in cases):
        return
    known = {str(case) for case in cases} if "/" in name else {case.label for case in cases}
    near = difflib.get_close_matches(name, sorted(known), n=3)
    raise ConfigError(
        f"PyTorch's operator database has no operator {name!r} that the kit can judge",
        remedy=f"did you mean {' or '.join(near)}?"
        if near
        else "names are those of the database, e.g. add, nn.functional.relu, sum/bfloat16",
    )
