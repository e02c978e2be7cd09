"""What a checkpoint's pickles name, and whether hardpoint reads it.

The decision is the reader's own: a file is refused where opening it would be. Other scanners'
verdicts are shown where they are installed (``pip install 'hardpoint-checkpoint[scan]'``), and
decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from hardpoint import WeightsError
from hardpoint.storage.refusal import show
from hardpoint.storage.shards import ShardedReader
from hardpoint.storage.source import LocalFile, Source
from hardpoint_checkpoint.archive import read_archive
from hardpoint_checkpoint.index import open_index
from hardpoint_checkpoint.legacy import PARTS, Pickles
from hardpoint_checkpoint.machine import MAX_PICKLE, Found, Machine, Unknown, strict
from hardpoint_checkpoint.opcodes import OPCODES
from hardpoint_checkpoint.opening import open_file, sniff
from hardpoint_checkpoint.others import Others
from hardpoint_checkpoint.standins import Refused
from hardpoint_checkpoint.storages import Storages
from hardpoint_checkpoint.zipped import PICKLE, pickle_of

# Globals that are listed; a hostile pickle may name millions.
_MOST = 10_000


class _Looker:
    """Stands in for every global, and remembers it."""

    def __init__(self, pickle: str, path: str, member: str | None = None, begin: int = 0) -> None:
        self._where = {"pickle": pickle, "path": path, "member": member}
        self._begin = begin
        self.found: dict[tuple[str, str], dict[str, object]] = {}

    def find(self, found: Found) -> object:
        key = (found.module, found.name)
        if key not in self.found and len(self.found) < _MOST:
            self.found[key] = {
                **self._where,
                "module": show(found.module)[1:-1],
                "name": show(found.name)[1:-1],
                "position": found.at,
                "offset": self._begin + found.at,
                "length": found.length,
                "allowed": found.allowed,
            }
        return strict(found) if found.allowed else Unknown()


def _load(views: bool) -> Callable[[object], object]:
    storages = Storages(views=views)

    def load(given: object) -> object:
        try:
            return storages.load(given)
        except Refused:
            return Unknown()

    return load


class _Looking(Machine):
    """Goes on where arguments do not fit: what comes after may name more."""

    def apply(self, function: object, args: object) -> object:
        try:
            return super().apply(function, args)
        except Refused:
            return Unknown()


def scan(path: Path) -> Mapping[str, object]:
    """The report on one file, or on all that an index names.

    ``refused`` and ``reason`` say whether opening it is refused; ``globals`` lists what its pickles
    name, each once, with the byte where it first stands and whether it is on the allow-list;
    ``tools`` has the verdicts of other scanners. Nothing of the file is run.

    :raises WeightsError: the file cannot be read at all.
    """
    source = LocalFile(path)
    files = [source]
    reason: str | None = None
    cpu = torch.device("cpu")
    try:
        if sniff(source) == "index":
            files, reader = _shards(source)
            _ = dict(reader.metadata)  # opens and checks all
        else:
            open_file(source, cpu)
    except WeightsError as error:
        reason = str(error)
    globals_: list[dict[str, object]] = []
    tools: dict[str, list[str]] = {}
    others = Others()
    for file in files:
        for where, raw, found in _pickles(file):
            globals_ += found
            for name, verdict in others.verdicts(raw).items():
                tools.setdefault(name, []).append(f"{where}: {verdict}")
    return {
        "file": str(path),
        "refused": reason is not None,
        "reason": reason,
        "globals": globals_,
        "tools": tools,
    }


def _shards(source: LocalFile) -> tuple[list[LocalFile], ShardedReader]:

    reader = open_index(source, torch.device("cpu"), open_file)
    return [source.beside(shard) for shard in reader.shards], reader


def _pickles(source: Source) -> list[tuple[str, bytes, list[dict[str, object]]]]:
    """Each pickle of a file: where it is, its bytes, and what it names."""
    file = Path(source.name).name
    if source.read(0, min(4, source.size)) == b"PK\x03\x04":
        try:
            archive = read_archive(source)
            members = [name for name in archive.members if name.endswith(".pkl")]
            raws = {name: _member(source, archive, name) for name in members}
        except WeightsError:
            return []  # the reason says it
        found = []
        for name, raw in raws.items():
            full, begin = f"{archive.root}/{name}", archive.members[name].begin
            looker = _Looker(f"{file}/{name}", source.name, full, begin)
            found.append((f"{file}/{full}", raw, _look(looker, raw)))
        return found
    return _old_pickles(source, file)


def _member(source: Source, archive: object, name: str) -> bytes:
    from hardpoint_checkpoint.archive import Archive

    assert isinstance(archive, Archive)
    if name == PICKLE:
        return pickle_of(source, archive)
    member = archive.members[name]
    return source.read(member.begin, min(member.size, MAX_PICKLE))


def _look(looker: _Looker, raw: bytes) -> list[dict[str, object]]:
    try:
        _Looking(raw, load=_load(views=False), find=looker.find).run(OPCODES)
    except Refused as error:
        # What it named up to there is told; the reason says that it goes no further.
        del error
    return list(looker.found.values())


def _old_pickles(source: Source, file: str) -> list[tuple[str, bytes, list[dict[str, object]]]]:
    looker = _Looker(file, source.name)
    pickles = Pickles(source, find=looker.find, machine=_Looking)
    load = _load(views=True)
    try:
        for _ in PARTS:
            pickles.attempt(load)
    except Refused as error:
        del error
    raw = source.read(0, pickles.at or min(source.size, 1 << 20))
    return [(file, raw, list(looker.found.values()))]
