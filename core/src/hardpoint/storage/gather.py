"""Filling memory from files, in several threads."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from hardpoint.storage.source import Source

if TYPE_CHECKING:
    import torch

# Bytes a thread takes at a time: long enough that threads seldom meet, short enough to share.
_PIECE = 8 << 20

# Called with the bytes that were read just now; by any thread, one at a time.
Tick = Callable[[int], None]


class Piece(NamedTuple):
    """``nbytes`` at ``offset`` of ``source`` go to the memory at ``address``.

    :param owner: what keeps that memory alive, if nobody else surely does.
    """

    source: Source
    offset: int
    address: int
    nbytes: int
    owner: object = None


def piece(source: Source, offset: int, tensor: torch.Tensor) -> Piece:
    """What fills all of ``tensor``, which is contiguous and on the CPU."""
    nbytes = tensor.numel() * tensor.element_size()
    return Piece(source, offset, tensor.data_ptr(), nbytes, tensor)


def gather(
    pieces: Iterable[Piece], *, threads: int | None = None, tick: Tick | None = None
) -> None:
    """Read all pieces. Nobody may use the memory they name meanwhile.

    :param threads: readers at a time; by default what the sources ask for.
    :param tick: told of each part that was read.
    :raises WeightsError: a file ends early, cannot be read, or changed meanwhile. The memory then
        holds a part of the bytes.
    """
    work = deque(_cut(_merged(pieces)))
    if not work:
        return
    sources = {id(each.source): each.source for each in work}.values()
    count = min(threads or max(source.parallel for source in sources), len(work))
    errors: list[BaseException] = []
    turn = threading.Lock()

    def run() -> None:
        try:
            while not errors:
                source, offset, address, nbytes, _ = work.popleft()
                memory = (ctypes.c_char * nbytes).from_address(address)
                source.read_into(offset, memoryview(memory).cast("B"))
                if tick is not None:
                    with turn:
                        tick(nbytes)
        except IndexError:  # all is given out
            return
        except BaseException as error:  # raised below, in the caller's thread
            errors.append(error)

    helpers = [threading.Thread(target=run, name="hardpoint-read") for _ in range(count - 1)]
    for helper in helpers:
        helper.start()
    try:
        run()
    finally:
        # The memory is the caller's again only when nobody writes to it any more.
        work.clear()
        for helper in helpers:
            helper.join()
    if errors:
        raise errors[0]
    for source in sources:
        source.check_unchanged()


def _merged(pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces that follow each other both in the file and in memory are one."""
    found: list[Piece] = []
    for each in sorted((p for p in pieces if p.nbytes), key=lambda p: (id(p.source), p.offset)):
        if found:
            last = found[-1]
            if (
                last.source is each.source
                and last.offset + last.nbytes == each.offset
                and last.address + last.nbytes == each.address
                and last.owner is each.owner
            ):
                found[-1] = last._replace(nbytes=last.nbytes + each.nbytes)
                continue
        found.append(each)
    return found


def _cut(pieces: Iterable[Piece]) -> Iterable[Piece]:
    for source, offset, address, nbytes, owner in pieces:
        for at in range(0, nbytes, _PIECE):
            yield Piece(source, offset + at, address + at, min(_PIECE, nbytes - at), owner)
