"""PyTorch's operator database, and the only module that touches it: it is private to PyTorch.

``torch.testing._internal.common_methods_invocations.op_db`` (torch 2.13): 702 ``OpInfo``, each an
operator with a generator of sample inputs for a device and a dtype.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils import _pytree as pytree

from hardpoint.errors import HardpointError

DTYPES = ("float32", "bfloat16", "float16", "int64", "bool")
# Samples that are looked at for one which is neither empty nor a mere number.
_LOOK_AT = 40
# Elements of the first tensor that make a sample telling.
_ENOUGH = 12

# Draw random numbers in a way that the graph does not always show, or leave memory as it is.
_NOT_REPEATABLE = {
    "bernoulli", "cauchy", "empty", "empty_like", "empty_permuted", "empty_strided", "exponential",
    "geometric", "log_normal", "multinomial", "new_empty", "new_empty_strided",
    "nn.functional.alpha_dropout", "nn.functional.dropout", "nn.functional.dropout2d",
    "nn.functional.dropout3d", "nn.functional.feature_alpha_dropout",
    "nn.functional.fractional_max_pool2d", "nn.functional.fractional_max_pool3d",
    "nn.functional.rrelu", "normal", "pca_lowrank", "rand_like", "randint", "randint_like",
    "randn", "randn_like", "svd_lowrank", "uniform",
}  # fmt: skip
# More than one answer is right: signs or order of vectors, pivots.
_AMBIGUOUS = {
    "geqrf", "linalg.eig", "linalg.eigh", "linalg.ldl_factor", "linalg.ldl_factor_ex",
    "linalg.lstsq", "linalg.lu", "linalg.lu_factor", "linalg.lu_factor_ex", "linalg.qr",
    "linalg.svd", "lu", "qr", "svd",
}  # fmt: skip
# Among equals, which one's index comes out is not defined: few are equal in float32 samples only.
_TIES = {
    "argsort", "kthvalue", "masked.median", "median", "mode", "nanmedian", "nanquantile", "sort",
    "topk",
}  # fmt: skip
# Tensors of these that a model holds as weights: all but one, whose place is given. Many a backend
# takes only constant ones.
_WEIGHTED = {
    "nn.functional.batch_norm": 0, "nn.functional.bilinear": 0, "nn.functional.conv1d": 0,
    "nn.functional.conv2d": 0, "nn.functional.conv3d": 0, "nn.functional.conv_transpose1d": 0,
    "nn.functional.conv_transpose2d": 0, "nn.functional.conv_transpose3d": 0,
    "nn.functional.embedding": 1, "nn.functional.group_norm": 0, "nn.functional.instance_norm": 0,
    "nn.functional.layer_norm": 0, "nn.functional.linear": 0, "nn.functional.prelu": 0,
    "nn.functional.rms_norm": 0,
}  # fmt: skip


class DatabaseError(HardpointError):
    """PyTorch's operator database is missing, or not what this kit was written for."""


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """One operator with one dtype.

    :param op: the operator's name in PyTorch's database, e.g. ``"nn.functional.relu"``.
    :param variant: the database's name of a variant of it, often ``""``.
    :param dtype: PyTorch's name without ``torch.``.
    """

    op: str
    variant: str
    dtype: str

    @property
    def label(self) -> str:
        """``op``, or ``op.variant``."""
        return f"{self.op}.{self.variant}" if self.variant else self.op

    def __str__(self) -> str:
        return f"{self.label}/{self.dtype}"


EXAMPLE = Case("add", "", "float32")  # certainly there


@dataclass(frozen=True)
class Sample:
    """A call of an operator: ``call`` takes the tensors and gives the tensors of its result.

    :param constants: all other arguments, for a hash.
    :param held: places of those tensors that are a model's weights, not its inputs.
    """

    call: Callable[..., tuple[torch.Tensor, ...]]
    tensors: tuple[torch.Tensor, ...]
    constants: tuple[object, ...]
    held: frozenset[int] = frozenset()


class Database:
    """The operators and their samples. Importing the database takes seconds.

    :raises DatabaseError: it is not there, or PyTorch changed it.
    """

    def __init__(self) -> None:
        entries = _entries()
        try:
            self._infos = {(str(i.name), str(i.variant_test_name)): i for i in entries}
            # By name: a set of dtypes has no order that lasts.
            self._dtypes = {
                key: {str(d).removeprefix("torch.") for d in info.supported_dtypes("cpu")}
                for key, info in self._infos.items()
            }
            self.sample(EXAMPLE)
        except Exception as error:
            raise _changed(error) from error

    def cases(self) -> list[Case]:
        """Every case that can be judged, in the database's order."""
        return [
            Case(op, variant, dtype)
            for (op, variant), dtypes in self._dtypes.items()
            for dtype in DTYPES
            if dtype in dtypes and _judgeable(op, variant, dtype)
        ]

    def sample(self, case: Case) -> Sample | None:
        """The first telling sample of a case, the same at any time; ``None``: it has none."""
        info = self._infos[case.op, case.variant]
        _seed(zlib.crc32(str(case).encode()))
        samples = info.sample_inputs("cpu", getattr(torch, case.dtype), requires_grad=False)
        looked_at = list(islice(samples, _LOOK_AT))
        # Backends infer; what updates running statistics is not theirs.
        inference = [sample for sample in looked_at if not _trains(sample.kwargs)]
        found = [_flat(sample) for sample in inference or looked_at]
        if not found:
            return None
        function = info.op
        tensors, leaves, spec = _most_telling(found)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

        def call(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
            filled = list(leaves)
            for place, tensor in zip(places, given, strict=True):
                filled[place] = tensor
            first, args, kwargs = pytree.tree_unflatten(filled, spec)
            results = pytree.tree_leaves(function(first, *args, **kwargs))
            return tuple(r for r in results if isinstance(r, torch.Tensor))

        constants = tuple(leaf for leaf in leaves if not isinstance(leaf, torch.Tensor))
        kept = _WEIGHTED.get(case.op)
        held = frozenset() if kept is None else frozenset(range(len(tensors))) - {kept}
        return Sample(call, tuple(map(_own, tensors)), (str(spec), *constants), held)


def _entries() -> list[Any]:
    try:
        from torch.testing._internal.common_methods_invocations import op_db
    except ImportError as error:
        raise DatabaseError(
            "PyTorch's operator database cannot be imported",
            cause=f"{type(error).__name__}: {error}",
            remedy='pip install "hardpoint[testing]", which brings what it needs',
        ) from error
    if torch.backends.flags_frozen():  # type: ignore[no-untyped-call]
        # The database forbids its own tests to set backends' flags; a provider may set them.
        namespace = torch.backends.flags_frozen.__globals__
        namespace["__allow_nonbracketed_mutation_flag"] = True
    if not isinstance(op_db, list) or not op_db:
        raise _changed(TypeError(f"op_db is {type(op_db).__name__}"))
    return op_db


def _changed(error: Exception) -> DatabaseError:
    return DatabaseError(
        f"the operator database of PyTorch {torch.__version__} is not what the kit expects",
        cause=f"{type(error).__name__}: {error}",
        remedy="use the PyTorch that this hardpoint was released for, or a newer hardpoint",
    )


def _judgeable(op: str, variant: str, dtype: str) -> bool:
    if op in _NOT_REPEATABLE or op in _AMBIGUOUS or "sparse" in f"{op}{variant}":
        return False
    if op.startswith("jiterator"):  # compiled for CUDA only
        return False
    return op not in _TIES or dtype == "float32"


def _seed(seed: int) -> None:
    """Samples are drawn from all three generators."""
    import numpy as np

    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


# The tensors of a sample, all its arguments, and how these are nested.
_Flat = tuple[list[torch.Tensor], list[object], pytree.TreeSpec]


def _flat(sample: Any) -> _Flat:
    leaves, spec = pytree.tree_flatten((sample.input, tuple(sample.args), dict(sample.kwargs)))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)], leaves, spec


def _trains(kwargs: Mapping[str, object]) -> bool:
    if kwargs.get("running_mean") is not None and kwargs.get("use_input_stats", True) is True:
        return True  # instance_norm
    return kwargs.get("training") is True


def _most_telling(found: Sequence[_Flat]) -> _Flat:
    """The first in which enough can go wrong; else the largest, else the first of all.

    The database begins with plain arguments, and often with empty tensors or mere numbers.
    """
    for whole in (True, False):
        telling = [f for f in found if _is_telling(f[0], whole=whole)]
        if telling:
            enough = (f for f in telling if f[0][0].numel() >= _ENOUGH)
            return next(enough, max(telling, key=lambda f: f[0][0].numel()))
    return found[0]


def _is_telling(tensors: Sequence[torch.Tensor], *, whole: bool) -> bool:
    """Whether no tensor is empty, and the first one (or, if ``whole``, none) a mere number."""
    if not tensors or not all(t.numel() for t in tensors):
        return False
    return all(t.dim() > 0 for t in (tensors if whole else tensors[:1]))


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with strides that copies of it keep."""
    if tensor.layout is not torch.strided:
        return tensor
    return tensor.detach().resolve_neg().resolve_conj().clone()
