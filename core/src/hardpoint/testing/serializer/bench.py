"""Where a check works: the serializer, opened, and a folder that is gone afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import Reader, Serializer, SerializerInfo
from hardpoint.testing.check import fail, skip_unless
from hardpoint.testing.serializer.samples import pattern
from hardpoint.testing.subject import Subject

P = ParamSpec("P")
T = TypeVar("T")

ONLY_READS = "it declares can_save=False: it only reads"


@dataclass(frozen=True)
class Bench:
    """A serializer and a folder to work in."""

    subject: Subject
    serializer: Serializer
    folder: Path

    @property
    def info(self) -> SerializerInfo:
        """What the serializer declares."""
        info: SerializerInfo = self.subject.info
        return info

    @property
    def suffix(self) -> str:
        """What its files usually end in; may be empty."""
        return self.info.suffixes[0] if self.info.suffixes else ""

    def path(self, stem: str = "sample") -> Path:
        """A file of this format's usual suffix."""
        return self.folder / f"{stem}{self.suffix}"

    def save(
        self,
        tensors: Mapping[str, torch.Tensor],
        stem: str = "sample",
        metadata: Mapping[str, str] | None = None,
        what: str = "save()",
    ) -> Path:
        """Save; the check fails where that is refused.

        :param what: what is saved, for the message.
        """
        path = self.path(stem)
        refusal = attempt(what, self.serializer.save, tensors, path, metadata=metadata)
        if isinstance(refusal, WeightsError):
            fail(f"{what} was refused: {refusal}")
        if not path.exists():
            fail(f"{what} returned, and there is no file {path.name}")
        return path

    def read(self, path: Path, what: str = "open()") -> Reader:
        """Open; the check fails where that is refused."""
        reader = attempt(what, self.serializer.open, path)
        if isinstance(reader, WeightsError):
            fail(f"{what} refused a good file: {reader}")
        if not isinstance(reader, Reader):
            fail(f"{what} returned {type(reader).__name__}, not a hardpoint.Reader")
        return reader

    def specimen(self) -> Path:
        """A good file of this format in the folder: its own, or the first golden one.

        Skips the check where there is neither.
        """
        if self.info.can_save:
            tensors = {"layer.weight": pattern(6, 4), "layer.bias": pattern(4, start=50)}
            return self.save(tensors, "specimen", what="save() of two float32 tensors")
        golden = self.subject.settings.folder("golden")
        skip_unless(
            golden, f"{ONLY_READS}; point `golden` in conformance.toml at files of the format"
        )
        assert golden is not None, "skip_unless ended the check"
        # What has a record beside it is a golden file; what is beside a folder belongs to it.
        found = sorted(path for path in golden.iterdir() if Path(f"{path}.json").exists())
        skip_unless(found, f"{ONLY_READS}, and no file in {golden} has its record beside it")
        for path in golden.iterdir():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, self.folder / path.name)
        return self.folder / found[0].name

    def file(self) -> Path:
        """As :meth:`specimen`, for what is done to its bytes; skips where it is a folder."""
        path = self.specimen()
        skip_unless(path.is_file(), f"{path.name} is a folder; bytes are damaged in files only")
        return path


@contextmanager
def bench(subject: Subject, *, saves: bool = False) -> Iterator[Bench]:
    """A bench for ``subject``.

    :param saves: skip the check where the serializer only reads.
    """
    skip_unless(subject.info.can_save or not saves, ONLY_READS)
    serializer = subject.open()
    if not isinstance(serializer, Serializer):
        fail(f"open returned {type(serializer).__name__}, not a hardpoint.Serializer")
    with tempfile.TemporaryDirectory(prefix="hardpoint-check-") as folder:
        yield Bench(subject, serializer, Path(folder))


def attempt(what: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | WeightsError:
    """What ``call(*args, **kwargs)`` gives, or the :class:`WeightsError` it raises.

    :param what: what was called, for the message.
    :raises CheckFailed: it raised something else.
    """
    try:
        return call(*args, **kwargs)
    except WeightsError as error:
        return error
    except Exception as error:
        fail(
            f"{what} raised {type(error).__name__}: {str(error)[:300]}; the contract knows one "
            f"error for a file or tensor that will not do: WeightsError"
        )
