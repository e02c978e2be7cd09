"""Checkpoints as ``torch.save`` has written them since 1.6: a zip archive."""

from __future__ import annotations

from hardpoint import WeightsError
from hardpoint.storage.source import Source
from hardpoint_checkpoint.archive import Archive, read_archive
from hardpoint_checkpoint.checkpoint import Checkpoint, refuse_pickle
from hardpoint_checkpoint.machine import MAX_PICKLE, Machine
from hardpoint_checkpoint.opcodes import OPCODES
from hardpoint_checkpoint.refuse import refuse, show
from hardpoint_checkpoint.standins import Refused
from hardpoint_checkpoint.storages import Storages
from hardpoint_checkpoint.tree import flatten

PICKLE = "data.pkl"
_SMALL = 64
# torch.jit.save writes these: code, to be run.
_SCRIPT = ("constants.pkl", "code/")
_NEWEST = 10  # version of the archive that PyTorch 2.13 still reads


def read_zip(source: Source) -> Checkpoint:
    """What the file holds; of its data nothing is read.

    :raises WeightsError: it is damaged, or asks for more than tensors and plain data.
    """
    archive = checked_archive(source)
    storages = Storages(views=False)
    raw = pickle_of(source, archive)
    machine = Machine(raw, load=storages.load)
    where = f"{archive.root}/{PICKLE}"
    try:
        root = machine.run(OPCODES)
        if machine.at != len(raw):
            raise Refused(f"{len(raw) - machine.at} bytes follow its end", machine.at)
    except Refused as error:
        raise refuse_pickle(source.name, where, error) from error
    content = flatten(root, source.name)
    places = {}
    for key, total in storages.totals.items():
        member = archive.members.get(f"data/{key}")
        if member is None:
            raise _broken(source, f"there is no member {show(f'data/{key}')}, which tensors need")
        if member.size != total:
            raise _broken(
                source,
                f"storage {show(key)} has {total} bytes by the pickle, and its member has"
                f" {member.size}",
            )
        places[key] = member.begin
    return Checkpoint(content, places)


def checked_archive(source: Source) -> Archive:
    """The archive, if it is one of tensors, little-endian, of a version that is known.

    :raises WeightsError: it is not.
    """
    archive = read_archive(source)
    if PICKLE not in archive.members:
        raise refuse(
            source.name,
            "the zip archive is no checkpoint",
            f"it has no member {PICKLE}",
            "name a file that torch.save wrote",
        )
    if any(name.startswith(_SCRIPT) for name in archive.members):
        raise refuse(
            source.name,
            "this is a TorchScript program, not a checkpoint",
            "torch.jit.save wrote it: it holds code",
            "only if you trust whoever made it: torch.jit.load it, and torch.save its state_dict()",
        )
    version = _small(source, archive, "version", b"").strip()
    if not version.isdigit() or not 1 <= int(version) <= _NEWEST:
        raise _broken(source, f"its version is {show(version)}")
    order = _small(source, archive, "byteorder", b"little")
    if order != b"little":
        raise refuse(
            source.name,
            "the checkpoint is not little-endian",
            f"its byteorder is {show(order)}",
            "torch.load it, and torch.save it on a little-endian machine",
        )
    return archive


def pickle_of(source: Source, archive: Archive) -> bytes:
    """The pickle that says what there is.

    :raises WeightsError: it is too long.
    """
    member = archive.members[PICKLE]
    if member.size > MAX_PICKLE:
        raise _broken(source, f"its pickle has {member.size} bytes; at most {MAX_PICKLE} may be")
    return source.read(member.begin, member.size)


def _small(source: Source, archive: Archive, name: str, missing: bytes) -> bytes:
    member = archive.members.get(name)
    if member is None:
        return missing
    if member.size > _SMALL:
        raise _broken(source, f"its member {name} has {member.size} bytes")
    return source.read(member.begin, member.size)


def _broken(source: Source, cause: str) -> WeightsError:
    return refuse(source.name, "the checkpoint is broken", cause)
