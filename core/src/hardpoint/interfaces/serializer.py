"""Serializers read and write files of weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from hardpoint.storage.source import Source

Index = tuple["int | slice", ...] | int | slice


@dataclass(frozen=True, slots=True, kw_only=True)
class SerializerInfo:
    """What a serializer is.

    :param requires_api: (major, minor) of the contract it was written for; no default on purpose.
    :param suffixes: file suffixes it usually has, e.g. ``(".safetensors",)``.
    :param can_save: whether it writes as well as reads.
    """

    requires_api: tuple[int, int]
    summary: str
    suffixes: tuple[str, ...]
    can_save: bool = True


@dataclass(frozen=True, slots=True, init=False)
class TensorInfo:
    """One tensor of a file, known without reading its data.

    :param dtype: PyTorch's name without ``torch.``, e.g. ``"bfloat16"``.
    :param shape: sizes, outermost first.
    :param nbytes: bytes in the file.
    :param file: the file that holds it (a shard, or the file itself).
    :param offset: byte of that file (of :meth:`Reader.source`) at which its elements begin, if they
        lie there as they are in memory: row by row, without gaps, little-endian. hardpoint then
        moves them itself, in the fastest way for the purpose. ``None``: only the reader can tell.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: str
    offset: int | None = None

    def __init__(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        nbytes: int,
        file: str,
        offset: int | None = None,
    ) -> None:
        # Files have thousands: the way that dataclasses fill a frozen object takes twice the time.
        _set_name(self, name)
        _set_dtype(self, dtype)
        _set_shape(self, shape)
        _set_nbytes(self, nbytes)
        _set_file(self, file)
        _set_offset(self, offset)


_set_name, _set_dtype, _set_shape, _set_nbytes, _set_file, _set_offset = (
    TensorInfo.__dict__[field.name].__set__ for field in fields(TensorInfo)
)


class Reader(Mapping[str, TensorInfo], ABC):
    """An open file of weights: a mapping from tensor name to :class:`TensorInfo`, plus the data.

    Close it, or use it as a context manager; tensors already handed out stay valid.
    """

    @property
    @abstractmethod
    def metadata(self) -> Mapping[str, str]:
        """The file's own free-form metadata."""

    @abstractmethod
    def tensor(self, name: str) -> torch.Tensor:
        """The whole tensor; zero-copy where the format allows it.

        :raises WeightsError: no such tensor.
        """

    @abstractmethod
    def slice(self, name: str, index: Index) -> torch.Tensor:
        """``tensor(name)[index]``, reading no more bytes than that needs.

        :raises WeightsError: no such tensor, or an index outside it.
        """

    def source(self, name: str) -> Source | None:
        """The open file that ``self[name].offset`` counts in; ``None`` where there is no offset.

        The same object for all tensors of one file. It stays usable after :meth:`close`.
        """
        return None

    def files(self) -> tuple[str, ...]:
        """Every file that tensors or metadata come from, as :attr:`TensorInfo.file` names them.

        One whose tensors lie in several files each has to say so here.
        """
        return tuple(dict.fromkeys(info.file for info in self.values()))

    @abstractmethod
    def close(self) -> None:
        """Let go of the file. Safe to call twice."""

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def __iter__(self) -> Iterator[str]:
        """Tensor names, in the file's order."""


class Serializer(ABC):
    """Reads and writes one format."""

    @abstractmethod
    def recognizes(self, path: Path) -> bool:
        """Whether ``path`` (a file, an index, a directory) is of this format, by its content."""

    @abstractmethod
    def open(self, path: Path, *, device: str = "cpu") -> Reader:
        """Open ``path`` for reading. The reader raises ``KeyError`` for a name it does not have.

        :param device: where tensors are to be, in PyTorch's terms.
        :raises WeightsError: damaged or hostile file.
        :raises HardpointError: a device that it cannot put tensors on.
        """

    def recognizes_source(self, source: Source) -> bool:
        """As :meth:`recognizes`, of a file that may be behind a URL. It reads no more than it must.

        One that does not say otherwise reads files of this machine only.
        """
        return False

    def open_source(self, source: Source, *, device: str = "cpu") -> Reader:
        """As :meth:`open`, of a file that may be behind a URL: headers first, data when asked for.

        :raises WeightsError: as :meth:`open`; or it reads files of this machine only.
        """
        from hardpoint.errors import WeightsError

        raise WeightsError(
            f"{source.name} cannot be opened where it is",
            cause=f"{type(self).__name__} reads files of this machine only",
            remedy="download the file first",
        )

    def scan(self, path: Path) -> Mapping[str, object] | None:
        """What code a file asks for, found without running any; ``None``: the format holds none.

        :returns: ``file``; ``refused`` (whether opening it is) and ``reason``; ``globals``: of each
            thing that the file names, ``module``, ``name``, ``allowed``, ``pickle`` (where in the
            file) and ``position`` (byte of that), and where that is known ``path`` (the very file),
            ``member`` (of an archive), ``offset`` and ``length`` (bytes of the file); ``tools``:
            what other scanners say, by name.
        :raises WeightsError: the file cannot be read at all.
        """
        return None

    def holds_metadata(self, path: Path) -> bool:
        """Whether :meth:`save` to ``path`` has a place for metadata."""
        return True

    @abstractmethod
    def save(
        self,
        tensors: Mapping[str, torch.Tensor],
        path: Path,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write ``tensors`` to ``path`` atomically: the old file, or the whole new one, is there.

        :raises WeightsError: a tensor that the format cannot hold, or the file cannot be written
            (a full disk, a missing folder); the old file stays.
        """
