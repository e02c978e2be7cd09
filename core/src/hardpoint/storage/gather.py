"""Filling memory from files, in several threads."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from hardpoint.storage.direct import BLOCK
from hardpoint.storage.memory import address_of
from hardpoint.storage.source import MOST_ROWS, Source

if TYPE_CHECKING:
    import torch

# Bytes a thread takes at a time: long enough that threads seldom meet, short enough to share.
_PIECE = 8 << 20

# Called with the bytes that were read just now; by any thread, one at a time.
Tick = Callable[[int], None]


class Piece(NamedTuple):
    """``nbytes`` at ``offset`` of ``source`` go to the memory at ``address``.

    :param owner: what keeps that memory alive, if nobody else surely does.
    :param rows: equal parts that the bytes are in; they follow each other in memory.
    :param pitch: bytes of the file from the begin of one such part to the begin of the next.
    """

    source: Source
    offset: int
    address: int
    nbytes: int
    owner: object = None
    rows: int = 1
    pitch: int = 0


def piece(source: Source, offset: int, tensor: torch.Tensor) -> Piece:
    """What fills all of ``tensor``, which is contiguous and on the CPU."""
    memory = address_of(tensor)
    return Piece(source, offset, memory, tensor.numel() * tensor.element_size(), tensor)


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
        while not errors:
            try:
                part = work.popleft()
            except IndexError:  # all is given out
                return
            try:
                memory = (ctypes.c_char * part.nbytes).from_address(part.address)
                buffer = memoryview(memory).cast("B")
                if part.rows == 1:
                    part.source.read_into(part.offset, buffer)
                else:
                    part.source.read_rows(part.offset, buffer, part.rows, part.pitch)
                if tick is not None:
                    with turn:
                        tick(part.nbytes)
            except BaseException as error:  # raised below, in the caller's thread
                errors.append(error)

    def help_out(end: threading.Event) -> None:
        try:
            run()
        finally:
            end.set()

    ends: list[threading.Event] = []
    try:
        for _ in range(count - 1):
            end = threading.Event()
            helper = threading.Thread(target=help_out, args=(end,), name="hardpoint-read")
            try:
                helper.start()
            except RuntimeError:  # the system has no more of them: fewer do the work
                break
            ends.append(end)
        run()
    except BaseException as error:
        errors.append(error)
    _await(ends, work, errors)
    if errors:
        raise errors[0]
    for source in sources:
        source.check_unchanged()


def _await(ends: list[threading.Event], work: deque[Piece], errors: list[BaseException]) -> None:
    """Wait for all, whatever happens: the memory is the caller's again when nobody writes to it.

    Not by ``Thread.join()``: where Ctrl-C interrupts it, Python 3.11 takes a thread that runs for
    one that has ended.
    """
    while not all(end.is_set() for end in ends):
        try:
            for end in ends:
                end.wait()
        except BaseException as error:  # Ctrl-C: hand out no more, and wait for what is being read
            errors.append(error)
            work.clear()


def _merged(pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces that follow each other both in the file and in memory are one."""
    found: list[Piece] = []
    for each in sorted((p for p in pieces if p.nbytes), key=lambda p: (id(p.source), p.offset)):
        if found:
            last = found[-1]
            if (
                last.source is each.source
                and last.rows == each.rows == 1
                and last.offset + last.nbytes == each.offset
                and last.address + last.nbytes == each.address
                and last.owner is each.owner
            ):
                found[-1] = last._replace(nbytes=last.nbytes + each.nbytes)
                continue
        found.append(each)
    return found


def _cut(pieces: Iterable[Piece]) -> Iterable[Piece]:
    """Parts for one thread each, that end where blocks of the file end, or rows."""
    for each in pieces:
        if each.rows == 1:
            yield from _cut_bytes(each)
            continue
        length = each.nbytes // each.rows
        most = max(1, min(MOST_ROWS, _PIECE // each.pitch))
        for row in range(0, each.rows, most):
            count = min(most, each.rows - row)
            part = each._replace(
                offset=each.offset + row * each.pitch,
                address=each.address + row * length,
                nbytes=count * length,
                rows=count,
            )
            yield from _cut_bytes(part) if count == 1 else (part,)


def _cut_bytes(piece: Piece) -> Iterable[Piece]:
    source, offset, address, nbytes, owner, *_ = piece
    at = 0
    while at < nbytes:
        count = min(_PIECE - (offset + at) % BLOCK, nbytes - at)
        yield Piece(source, offset + at, address + at, count, owner)
        at += count
