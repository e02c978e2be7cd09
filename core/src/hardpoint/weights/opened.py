"""An open file of weights and who reads it. No serializer is trusted: what it gives is checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardpoint.errors import ContractViolation
from hardpoint.interfaces.serializer import Index, Reader, TensorInfo
from hardpoint.weights.content import printable

if TYPE_CHECKING:
    import torch

    from hardpoint.storage.source import Source


@dataclass(frozen=True, slots=True)
class Opened:
    """A reader, and the name and origin of the serializer it came from."""

    name: str
    origin: str
    reader: Reader

    def placed(self, name: str) -> tuple[TensorInfo, Source] | None:
        """A tensor that we can move ourselves, with the file it is in; else ``None``.

        :raises ContractViolation: its place is none.
        """
        info = self._info(name)
        source = None if info.offset is None else self.reader.source(name)
        if source is None:
            return None
        from hardpoint.storage.typed import fits

        if not fits(info, source.size):
            raise ContractViolation(
                f"the place of tensor {printable(name)} in {info.file} is none",
                provider=f"serializer:{self.name}",
                origin=self.origin,
                cause=f"announced {words(info.dtype, info.shape)} in {info.nbytes} bytes at byte"
                f" {info.offset} of {source.size}",
                remedy="report it to the plugin's authors",
            )
        return info, source

    def part(self, name: str, index: Index) -> torch.Tensor:
        """``tensor(name)[index]``, if it is of the dtype and shape that were announced.

        :raises ContractViolation: it is not.
        :raises WeightsError: the file is damaged there, or the index is outside the tensor.
        """
        from hardpoint.storage.slices import result_shape

        info, tensor = self.reader[name], self.reader.slice(name, index)
        parts = index if isinstance(index, tuple) else (index,)
        if described(tensor) != (info.dtype, result_shape(info.shape, parts)):
            raise self._broken_promise(info, tensor)
        return tensor

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor, if it is what the reader announced.

        :raises ContractViolation: it is not.
        :raises WeightsError: the file is damaged there.
        """
        info, tensor = self._info(name), self.reader.tensor(name)
        if described(tensor) != (info.dtype, info.shape):
            raise self._broken_promise(info, tensor)
        return tensor

    def _info(self, name: str) -> TensorInfo:
        info = self.reader[name]
        if info.name != name:
            raise ContractViolation(
                f"tensor {printable(name)} is announced as {printable(info.name)}",
                provider=f"serializer:{self.name}",
                origin=self.origin,
                cause="TensorInfo.name is another than the key it stands under",
                remedy="report it to the plugin's authors",
            )
        return info

    def _broken_promise(self, info: TensorInfo, tensor: torch.Tensor) -> ContractViolation:
        return ContractViolation(
            f"tensor {printable(info.name)} of {info.file} is not what its reader announced",
            provider=f"serializer:{self.name}",
            origin=self.origin,
            cause=f"announced {words(info.dtype, info.shape)}, got {words(*described(tensor))}",
            remedy="report it to the plugin's authors",
        )


def described(tensor: torch.Tensor) -> tuple[str, tuple[int, ...]]:
    """Dtype and shape, as :class:`hardpoint.TensorInfo` has them."""
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)


def words(dtype: str, shape: tuple[int, ...]) -> str:
    """``float32[3, 4]``."""
    return f"{dtype}{list(shape)}"


def bytes_in_memory(info: TensorInfo) -> int:
    """Bytes of the tensor as it is given; in its file a quantized one has fewer."""
    from hardpoint.storage.typed import dtype_of

    return math.prod(info.shape) * dtype_of(info).itemsize
