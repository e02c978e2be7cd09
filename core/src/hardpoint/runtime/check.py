"""Check a call's tensors against the signature, once for each set of sizes.

The runtimes underneath do not: AOTInductor reads out of bounds on a wrong size and reinterprets the
bits of a wrong dtype, OpenVINO casts in silence (research/backends.md, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from hardpoint.errors import InputError, PackageError
from hardpoint.program import dims
from hardpoint.program.signature import Signature, TensorSpec

# So many different sets of sizes are remembered as good; then the memory starts afresh.
REMEMBERED = 4096


def _dtype(spec: TensorSpec) -> torch.dtype:
    found = getattr(torch, spec.dtype, None)
    if not isinstance(found, torch.dtype):
        raise PackageError(
            f"input {spec.name} has the dtype {spec.dtype!r}, which PyTorch {torch.__version__} "
            "does not have",
            remedy="get the file again from its source, or update PyTorch",
        )
    return found


Key = tuple[object, ...]


class InputCheck:
    """Callable on the flat inputs of a call; remembers the sizes that were good."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._dtypes = tuple(map(_dtype, signature.inputs))
        self._good: set[Key] = set()

    def __call__(self, inputs: Sequence[object]) -> Key | None:
        """Check the inputs of a call.

        :returns: ``None`` where such a call went well before; else what to :meth:`remember` once
            this one has.
        :raises InputError: a tensor of another dtype, rank, size, device or layout.
        """
        try:
            key = tuple([(t.shape, t.dtype, t.device, t.layout) for t in inputs])  # type: ignore[attr-defined]
        except AttributeError:  # no tensor: the check says so
            key = ()
        if key in self._good:
            return None
        self._check(inputs)
        return key

    def remember(self, key: Key) -> None:
        """A call with these inputs went well, its results included."""
        if len(self._good) >= REMEMBERED:
            self._good.clear()
        self._good.add(key)

    def forget(self) -> None:
        """What runs underneath has changed: the next results are looked at again."""
        self._good.clear()

    def _check(self, inputs: Sequence[object]) -> None:
        found: dict[str, tuple[int, str]] = {}
        later: list[tuple[TensorSpec, int, int]] = []
        for spec, dtype, tensor in zip(self._signature.inputs, self._dtypes, inputs, strict=True):
            self._check_kind(spec, dtype, tensor)
            for dim, (want, size) in enumerate(zip(spec.shape, tensor.shape, strict=True)):  # type: ignore[attr-defined]
                if isinstance(want, int):
                    if size != want:
                        raise self._wrong(
                            spec, f"dimension {dim} is {size}, it must be {want}", tensor
                        )
                elif isinstance(want, str):
                    self._bind(spec, dim, want, size, found, tensor)
                else:
                    later.append((spec, dim, size))
        sizes = {name: size for name, (size, _) in found.items()}
        self._check_guards(sizes)
        for spec, dim, size in later:
            want = spec.shape[dim]
            expected = dims.evaluate(want, sizes)
            if size != expected:
                raise InputError(
                    f"input {spec.name}: dimension {dim} is {size}, it must be "
                    f"{dims.render(want)} = {expected}",
                    remedy=f"the program takes {self._signature.describe_arguments()}",
                )

    def _check_guards(self, sizes: Mapping[str, int]) -> None:
        for guard in self._signature.guards:
            try:
                holds = dims.evaluate(guard, sizes)
            except dims.DimError:  # a division by zero: certainly not the sizes of the capture
                holds = 0
            if not holds:
                given = ", ".join(f"{name} = {size}" for name, size in sizes.items())
                raise InputError(
                    f"the program was captured for sizes where {dims.render(guard)}, got {given}",
                    cause="the model's code decides by these sizes, and took another way with the "
                    "examples",
                    remedy="pass other sizes, or capture again with examples of these sizes",
                )

    def _check_kind(self, spec: TensorSpec, dtype: torch.dtype, tensor: object) -> None:
        if not isinstance(tensor, torch.Tensor):
            takes = f"the program takes {self._signature.describe_arguments()}"
            if hasattr(tensor, "__dlpack__"):
                argument = spec.name.rpartition(".")[2]
                takes = f"share its memory: torch.from_dlpack({argument}); {takes}"
            raise InputError(
                f"input {spec.name} is {type(tensor).__name__}, it must be a tensor", remedy=takes
            )
        if tensor.layout is not torch.strided:
            raise self._wrong(spec, f"its layout is {tensor.layout}, it must be dense", tensor)
        if tensor.dtype is not dtype:
            name = str(tensor.dtype).removeprefix("torch.")
            raise self._wrong(
                spec, f"its dtype is {name}, it must be {spec.dtype}", tensor,
                f"convert it yourself: {spec.name.rpartition('.')[2]}.to(torch.{spec.dtype})",
            )  # fmt: skip
        if tensor.dim() != len(spec.shape):
            raise self._wrong(
                spec, f"it has {tensor.dim()} dimensions, it must have {len(spec.shape)}", tensor
            )
        if tensor.device.type != torch.device(spec.device).type:
            raise self._wrong(
                spec, f"it is on {tensor.device}, it must be on {spec.device}", tensor,
                f"move it yourself: .to({spec.device!r})",
            )  # fmt: skip

    def _bind(
        self, spec: TensorSpec, dim: int, name: str, size: int,
        found: dict[str, tuple[int, str]], tensor: object,
    ) -> None:  # fmt: skip
        if name in found:
            before, where = found[name]
            if before != size:
                raise self._wrong(
                    spec, f"dimension {dim} ({name}) is {size}, but {where} has {before}", tensor
                )
            return
        least, greatest = self._signature.symbols.get(name, (0, None))
        if size < least or (greatest is not None and size > greatest):
            range_ = f"at least {least}" if greatest is None else f"{least} to {greatest}"
            raise self._wrong(
                spec, f"dimension {dim} ({name}) is {size}, it must be {range_}", tensor
            )
        found[name] = (size, f"{spec.name} (dimension {dim})")

    def _wrong(self, spec: TensorSpec, cause: str, tensor: object, remedy: str = "") -> InputError:
        shape = list(getattr(tensor, "shape", ()))
        return InputError(
            f"input {spec.name}: {cause}",
            cause=f"got a tensor of shape {shape}, the program takes {spec}",
            remedy=remedy or "pass another tensor, or capture again with that size dynamic",
        )
