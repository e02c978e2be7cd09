"""Checkpoints as ``torch.save`` wrote them before 1.6: pickles, and then the data of storages."""

from __future__ import annotations

from collections.abc import Callable

from hardpoint import WeightsError
from hardpoint.storage.refusal import show
from hardpoint.storage.source import Source
from hardpoint_checkpoint.checkpoint import Checkpoint, refuse_pickle
from hardpoint_checkpoint.machine import MAX_PICKLE, Found, Machine, strict
from hardpoint_checkpoint.opcodes import OPCODES
from hardpoint_checkpoint.refuse import refuse
from hardpoint_checkpoint.standins import CutShort, Pairs, Refused
from hardpoint_checkpoint.storages import Storages
from hardpoint_checkpoint.tree import flatten

MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_WINDOW = 1 << 16
_COUNT = 8  # bytes before the data of each storage: how many elements
MAGIC_BYTES = b"\x8a\x0a" + MAGIC.to_bytes(10, "little")
PARTS = ("magic number", "protocol", "system", "object", "storage keys")


def read_legacy(source: Source) -> Checkpoint:
    """What the file holds; of its data nothing is read.

    :raises WeightsError: it is damaged, or asks for more than tensors and plain data.
    """
    storages = Storages(views=True)
    pickles = Pickles(source)
    magic, protocol, system, root, keys = (pickles.next(part, storages) for part in PARTS)
    if magic != MAGIC or protocol != _PROTOCOL:
        raise _broken(source, f"its magic number or protocol, {show(protocol)}, is another")
    order = _order(system)
    if order is not True:
        raise refuse(
            source.name,
            "the checkpoint is not little-endian",
            f"it says little_endian: {show(order)}",
            "torch.load it, and torch.save it on a little-endian machine",
        )
    content = flatten(root, source.name)
    return Checkpoint(content, _places(source, storages, keys, pickles.at))


class Pickles:
    """The pickles at the start of a file, one after the other; read as far as they go.

    :param find: what stands for a global.
    :ivar at: byte of the file after the last one that was read.
    """

    def __init__(
        self,
        source: Source,
        find: Callable[[Found], object] = strict,
        machine: type[Machine] = Machine,
    ) -> None:
        self._source = source
        self._find = find
        self._machine = machine
        self._data = b""
        self.at = 0

    def next(self, part: str, storages: Storages) -> object:
        """The object of the next pickle.

        :raises WeightsError: it is broken, or asks for more than it may.
        """
        try:
            return self.attempt(storages.load)
        except Refused as error:
            raise refuse_pickle(self._source.name, part, error) from error

    def attempt(self, load: Callable[[object], object]) -> object:
        """As :meth:`next`; the error counts from the start of the file.

        :raises Refused: it is broken, or asks for more than it may.
        """
        limit = min(self._source.size, MAX_PICKLE)
        while True:
            machine = self._machine(self._data, self.at, load=load, find=self._find)
            try:
                found = machine.run(OPCODES)
            except CutShort:
                # Its length is nowhere written: look at more of the file, and begin anew.
                if len(self._data) >= limit:
                    raise
                self._data = self._source.read(0, min(limit, max(_WINDOW, 4 * len(self._data))))
                continue
            self.at = machine.at
            return found


def _order(system: object) -> object:
    """What the facts about the machine that wrote it say of ``little_endian``."""
    pairs = system.items if isinstance(system, Pairs) else []
    return next((value for key, value in pairs if key == "little_endian"), None)


def _places(source: Source, storages: Storages, keys: object, at: int) -> dict[str, int]:
    """Where each storage begins, if they fill the file to its end."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _broken(source, "its list of storages is none")
    if len(keys) != len(set(keys)) or set(keys) != set(storages.totals):
        raise _broken(source, "its list of storages names others than its tensors need")
    places = {}
    for key in keys:
        if at + _COUNT > source.size:
            raise _broken(source, f"it ends before storage {show(key)}")
        count = int.from_bytes(source.read(at, _COUNT), "little")
        kind, total = storages.types[key], storages.totals[key]
        if count * kind.itemsize != total:
            raise _broken(
                source,
                f"storage {show(key)} has {total} bytes by the pickle, and {count} elements of"
                f" {kind.dtype} by the data",
            )
        places[key] = at + _COUNT
        at += _COUNT + total
        if at > source.size:
            raise _broken(source, f"it ends within storage {show(key)}")
    if at != source.size:
        raise _broken(source, f"{source.size - at} bytes follow its last storage")
    return places


def _broken(source: Source, cause: str) -> WeightsError:
    return refuse(source.name, "the checkpoint is broken", cause)
