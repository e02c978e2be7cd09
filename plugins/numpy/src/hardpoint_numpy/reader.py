"""Readers: of one array, and of an archive of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from hardpoint import Index, TensorInfo
from hardpoint.storage.refusal import show
from hardpoint.storage.slices import checked
from hardpoint.storage.source import Source
from hardpoint.storage.table import TableReader
from hardpoint.storage.typed import check_bools
from hardpoint_numpy.comment import metadata_of
from hardpoint_numpy.directory import Member, read_members
from hardpoint_numpy.header import PREFIX_BYTES, Array, header_end, parse_header
from hardpoint_numpy.inflate import check_ratio, unpack, unpack_start
from hardpoint_numpy.records import STORED
from hardpoint_numpy.refuse import refuse

ALONE = "array"  # what the one array of a .npy file is called: the file itself names nothing
SUFFIX = ".npy"
# Most headers are within this, so that one read finds all of one.
_USUAL_HEADER = 256


class Stored(NamedTuple):
    """An array of which the file's bytes are not what the tensor's are in memory.

    :param info: of its bytes, taken row by row: its sizes are in the order of the file.
    :param packed: the member that must be unpacked first, if it is.
    """

    array: Array
    info: TensorInfo
    packed: Member | None


class ArrayReader(TableReader):
    """The arrays of a file. Most are views of the map; :class:`Stored` ones are not.

    An array in Fortran's order is mapped, and shown transposed. One of the other byte order is
    copied, one that is packed is unpacked, each time it is asked for.
    """

    def __init__(
        self,
        source: Source,
        table: Mapping[str, TensorInfo],
        stored: Mapping[str, Stored],
        metadata: Mapping[str, str],
        device: torch.device,
    ) -> None:
        super().__init__(source, table, refuse=refuse, metadata=metadata, device=device)
        self._stored = stored
        as_it_lies = {name: each.info for name, each in stored.items() if each.packed is None}
        self._lying = TableReader(source, as_it_lies, refuse=refuse)

    def slice(self, name: str, index: Index) -> torch.Tensor:
        """As :meth:`TableReader.slice`; of a packed array all is unpacked.

        :raises WeightsError: as there, or the packed content is damaged.
        """
        source = self._opened()
        stored = self._stored.get(name)
        if stored is None:
            return super().slice(name, index)
        array = stored.array
        try:
            parts = checked(index, len(array.shape))
            full = parts + (slice(None),) * (len(array.shape) - len(parts))
            if array.fortran:
                full = full[::-1]
            if stored.packed is None:
                found = self._lying.slice(name, full)
            else:
                found = _unpack(source, stored, full)
        except (IndexError, ValueError) as error:
            raise refuse(
                self._name,
                f"tensor {show(name)} of shape {array.shape} has no slice {show(index)}",
                str(error),
                "use whole numbers within the shape, and slices with positive steps",
            ) from error
        if array.big_endian:
            found = _swap(found, array.dtype.swapped)
        if array.fortran:
            found = found.permute(tuple(range(found.dim()))[::-1])
        return found.to(self._device)

    def close(self) -> None:
        """Let go of the file; the map itself goes with the last tensor of it."""
        super().close()
        self._lying.close()


def open_array(source: Source, device: torch.device) -> ArrayReader:
    """The one array of a ``.npy`` file, called ``"array"``.

    :raises WeightsError: its header is refused, or does not describe exactly the file.
    """
    array = _header(source, 0, source.size, "the array")
    table, stored = {}, {}
    table[ALONE], lying = _infos(ALONE, source.name, array, 0)
    if lying is not None:
        stored[ALONE] = Stored(array, lying, None)
    return ArrayReader(source, table, stored, {}, device)


def open_archive(source: Source, device: torch.device) -> ArrayReader:
    """The arrays of a ``.npz`` archive: its directory and all headers are read, and checked.

    :raises WeightsError: the archive, or the header of one of its arrays, is refused.
    """
    members, comment = read_members(source)
    table: dict[str, TensorInfo] = {}
    stored: dict[str, Stored] = {}
    for member in members:
        if not member.name.endswith(SUFFIX):
            raise refuse(
                source.name,
                f"{show(member.name)} is no array",
                f"members of a .npz archive are called NAME{SUFFIX}",
                "if this is another kind of zip archive, install the serializer of its format",
            )
        name = member.name.removesuffix(SUFFIX)
        if member.method == STORED:
            array = _header(source, member.begin, member.size, f"tensor {show(name)}")
            info, lying = _infos(name, source.name, array, member.begin)
            if lying is not None:
                stored[name] = Stored(array, lying, None)
        else:
            array = _packed_header(source, member, f"tensor {show(name)}")
            _, lying = _infos(name, source.name, array, 0, plain=False)
            assert lying is not None
            packed = member.packed if array.nbytes else 0
            info = TensorInfo(name, array.dtype.torch_name, array.shape, packed, source.name)
            stored[name] = Stored(array, lying, member)
        table[name] = info
    return ArrayReader(source, table, stored, metadata_of(comment, source.name), device)


def _infos(
    name: str, file: str, array: Array, begin: int, *, plain: bool = True
) -> tuple[TensorInfo, TensorInfo | None]:
    """What the tensor is, and, where its bytes lie otherwise, what they are as they lie."""
    dtype, at = array.dtype.torch_name, begin + array.begin
    turned = array.fortran and len(array.shape) > 1
    if plain and not turned and not array.big_endian:
        return TensorInfo(name, dtype, array.shape, array.nbytes, file, at), None
    shape = array.shape[::-1] if array.fortran else array.shape
    return (
        TensorInfo(name, dtype, array.shape, array.nbytes, file),
        TensorInfo(name, dtype, shape, array.nbytes, file, at),
    )


def _header(source: Source, begin: int, size: int, what: str) -> Array:
    return _parse(lambda count: source.read(begin, min(count, size)), size, source.name, what)


def _packed_header(source: Source, member: Member, what: str) -> Array:
    check_ratio(member, source.name)
    return _parse(
        lambda count: unpack_start(source, member, min(count, member.size)),
        member.size,
        source.name,
        what,
    )


def _parse(start: Callable[[int], bytes], size: int, file: str, what: str) -> Array:
    raw = start(_USUAL_HEADER)
    end = header_end(raw[:PREFIX_BYTES], size, file, what)
    if end > len(raw):
        raw = start(end)
    if end > len(raw):
        raise refuse(file, f"{what} is cut short", "its packed content ends within its header")
    return parse_header(raw[:end], size, file, what)


def _unpack(source: Source, stored: Stored, index: tuple[int | slice, ...]) -> torch.Tensor:
    assert stored.packed is not None
    raw = unpack(source, stored.packed, stored.array.begin)
    dtype: torch.dtype = getattr(torch, stored.info.dtype)
    whole = raw.view(dtype).view(stored.info.shape)
    found = whole[index]
    check_bools(found, stored.info)
    # A part must not keep all of it alive.
    return found if found.numel() == whole.numel() else found.clone()


def _swap(tensor: torch.Tensor, width: int) -> torch.Tensor:
    """A copy whose numbers of ``width`` bytes are turned round."""
    # A tensor of one element is contiguous with any stride; its bytes are looked at with none.
    raw = tensor.contiguous().view(-1).unsqueeze(-1).view(torch.uint8).reshape(-1, width)
    return raw.flip(1).view(-1).view(tensor.dtype).view(tensor.shape)
