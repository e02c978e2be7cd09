"""Serializers with one flaw each: what a save leaves on the disk."""

import time
from types import SimpleNamespace

import torch
from mutants_serializer import Provider, saving

from hardpoint import WeightsError
from hardpoint.storage import atomic
from hardpoint_safetensors import write
from hardpoint_safetensors.serializer import SafetensorsSerializer


def replacing(replace):
    """A provider that brings a file to its name by `replace(path, size, fill)`."""

    class Serializer(SafetensorsSerializer):
        def save(self, tensors, path, *, metadata=None):
            write.atomic = SimpleNamespace(replace=replace, NotSyncedError=atomic.NotSyncedError)
            super().save(tensors, path, metadata=metadata)

    return Provider(Serializer)


def _in_place(path, size, fill):
    with path.open("wb") as file:
        fill(file.write)


def _renames_early(path, size, fill):
    temporary = path.with_name("new")
    with temporary.open("wb") as file:
        temporary.replace(path)
        fill(file.write)


def _never_sweeps(path, size, fill):
    atomic._sweep = lambda directory: None
    atomic.replace(path, size, fill)


def _unlinks_first(path, size, fill):
    path.unlink(missing_ok=True)
    atomic.replace(path, size, fill)


def _forgets_to_tidy(path, size, fill):
    lock = path.with_name("lock")
    lock.touch()
    atomic.replace(path, size, fill)
    lock.unlink()


def _private(path, size, fill):
    atomic.replace(path, size, fill)
    path.chmod(0o600)


in_place = replacing(_in_place)
renames_early = replacing(_renames_early)
never_sweeps = replacing(_never_sweeps)
unlinks_first = replacing(_unlinks_first)
forgets_to_tidy = replacing(_forgets_to_tidy)
private = replacing(_private)

stamps_time = saving(lambda tensors, metadata: (tensors, {"saved": str(time.time_ns())}))
lists_a_set = saving(lambda tensors, metadata: (tensors, {"names": ",".join({*tensors})}))
saves_meta_as_zeros = saving(
    lambda tensors, metadata: (
        {
            n: torch.zeros_like(t, device="cpu") if getattr(t, "is_meta", False) else t
            for n, t in tensors.items()
        },
        metadata,
    )
)


class RawErrors(SafetensorsSerializer):
    """Lets the system's errors through."""

    def save(self, tensors, path, *, metadata=None):
        try:
            super().save(tensors, path, metadata=metadata)
        except WeightsError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise


class Nameless(SafetensorsSerializer):
    def save(self, tensors, path, *, metadata=None):
        try:
            super().save(tensors, path, metadata=metadata)
        except WeightsError as error:
            raise WeightsError(f"{path} cannot be saved") from error


raw_errors = Provider(RawErrors)
nameless = Provider(Nameless)
says_it_only_reads = Provider(SafetensorsSerializer, can_save=False)


class ReadsOnly(SafetensorsSerializer):
    """No mutant: it declares that it only reads, and that is so."""

    def save(self, tensors, path, *, metadata=None):
        raise WeightsError(f"{path} cannot be saved", cause="this serializer only reads")


reads_only = Provider(ReadsOnly, can_save=False)
