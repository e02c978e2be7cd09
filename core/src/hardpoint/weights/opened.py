"""An open file of weights and who reads it. No serializer is trusted: what it gives is checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardpoint.errors import ContractViolation
from hardpoint.interfaces.serializer import Reader
from hardpoint.weights.content import printable

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Opened:
    """A reader, and the name and origin of the serializer it came from."""

    name: str
    origin: str
    reader: Reader

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor, if it is what the reader announced.

        :raises ContractViolation: it is not.
        :raises WeightsError: the file is damaged there.
        """
        info, tensor = self.reader[name], self.reader.tensor(name)
        if described(tensor) != (info.dtype, info.shape):
            raise ContractViolation(
                f"tensor {printable(name)} of {info.file} is not what its reader announced",
                provider=f"serializer:{self.name}",
                origin=self.origin,
                cause=f"announced {words(info.dtype, info.shape)}, got {words(*described(tensor))}",
                remedy="report it to the plugin's authors",
            )
        return tensor


def described(tensor: torch.Tensor) -> tuple[str, tuple[int, ...]]:
    """Dtype and shape, as :class:`hardpoint.TensorInfo` has them."""
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)


def words(dtype: str, shape: tuple[int, ...]) -> str:
    """``float32[3, 4]``."""
    return f"{dtype}{list(shape)}"
