"""What cannot be saved is refused by name, and what was there before stays."""

from __future__ import annotations

import os
import resource
import signal
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import Serializer
from hardpoint.testing.check import check, expect, fail, skip_unless
from hardpoint.testing.serializer.apart import apart
from hardpoint.testing.serializer.bench import attempt, bench
from hardpoint.testing.serializer.samples import pattern
from hardpoint.testing.subject import Subject

_NAME = "layer.7.weight"
_SMALL = 4096  # bytes that a file may have where the disk is "full"


class Refusing:
    """Saving what cannot be saved, and where it cannot be."""

    @check("refuses")
    def test_what_is_no_plain_tensor_is_refused_by_name(
        self, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """Meta, sparse, quantized and nested tensors, and what is no tensor at all, are refused.

        The WeightsError names the tensor, and the file that was there is left alone.
        """
        with bench(subject, saves=True) as at:
            path = at.save({"old": pattern(3)})
            before = path.read_bytes() if path.is_file() else b""
            refused = []
            for what, value in _unfit():
                given = attempt(
                    f"save() of {what}",
                    at.serializer.save,
                    {"good": pattern(2), _NAME: value},
                    path,
                )
                if not isinstance(given, WeightsError):
                    fail(f"save() took {what}; no value of it can be read again from the file")
                expect(
                    _NAME in str(given),
                    f"save() refused {what} without its name {_NAME!r}: {given}",
                )
                now = path.read_bytes() if path.is_file() else b""
                expect(now == before, f"save() refused {what}, and the old file is not what it was")
                refused.append(what)
            left = sorted(p.name for p in at.folder.iterdir() if p != path)
            expect(not left, f"save() refused, and left {left} behind")
            figures["refused"] = refused

    @check("refuses")
    def test_one_that_only_reads_says_so(self, subject: Subject) -> None:
        """A serializer that declares can_save=False refuses to save, and writes nothing."""
        skip_unless(not subject.info.can_save, "it declares can_save=True")
        with bench(subject) as at:
            path = at.path()
            given = attempt("save()", at.serializer.save, {"t": pattern(2)}, path)
            expect(
                isinstance(given, WeightsError),
                "it declares can_save=False, and save() returned: raise WeightsError",
            )
            left = sorted(p.name for p in at.folder.iterdir())
            expect(not left, f"it declares can_save=False, and save() wrote {left}")

    @check("robust")
    def test_a_failed_save_leaves_the_old_file(self, subject: Subject) -> None:
        """Where the disk is full, or the tensors end early, the old file stays, and nothing else.

        A full disk, a missing folder and a path that is a folder are a WeightsError.
        """
        with bench(subject, saves=True) as at:
            apart(_fail_to_save, at, "saving where it must fail")


def _unfit() -> Iterator[tuple[str, Any]]:
    yield "a tensor on the meta device", torch.empty(2, device="meta")
    yield "a sparse tensor", torch.eye(2).to_sparse()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, that these kinds are not final
        yield "a sparse tensor in rows", torch.eye(2).to_sparse_csr()
        yield "a quantized tensor", torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)
        parts = [torch.ones(2), torch.ones(3)]
        yield "a nested tensor", torch.nested.nested_tensor(parts)
    yield "None", None
    yield "a list of numbers", [1.0, 2.0]
    yield "a number", 1.0


class _EndsEarly(Mapping[str, torch.Tensor]):
    """Tensors made on demand, the last of which cannot be."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> torch.Tensor:
        if name == "z":
            raise LookupError("this tensor cannot be made")
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _fail_to_save(
    serializer: Serializer, folder: Path, facts: Mapping[str, Any]
) -> dict[str, object]:
    path = folder / f"sample{facts['suffix']}"
    serializer.save({"old": pattern(3)}, path)
    before = _content(folder)
    large = {"a": torch.ones(50_000), "z": torch.ones(50_000)}

    try:
        serializer.save(_EndsEarly(large), path)
    except (LookupError, WeightsError):
        _expect_same(folder, before, "the tensors ended early (the mapping raised LookupError)")
    else:
        fail("save() returned although a tensor of the mapping raised LookupError")

    missing = folder / "missing" / path.name
    _must_refuse(serializer, {"t": pattern(2)}, missing, "save() into a folder that is not there")
    _expect_same(folder, before, "save() into a folder that is not there was refused")

    occupied = folder / f"occupied{facts['suffix']}"
    occupied.mkdir()
    (occupied / "inside").write_text("precious")
    before = _content(folder)
    _must_refuse(serializer, {"t": pattern(2)}, occupied, "save() to a path that is a full folder")
    _expect_same(folder, before, "save() to a path that is a full folder was refused")

    # The limit on file sizes stands in for a full disk: the same calls meet it.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_SMALL, _SMALL))
        try:
            serializer.save(large, path)
        except WeightsError:
            os._exit(3)
        except OSError:
            os._exit(4)
        finally:
            os._exit(5)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ending = {
        3: "", 4: "raised a bare OSError; say it in a WeightsError",
        5: "returned, or raised neither WeightsError nor OSError",
    }.get(code, f"ended the process with {code}")  # fmt: skip
    _expect_same(folder, before, "save() met a full disk")
    expect(not ending, f"save() to a full disk {ending}")
    return {}


def _must_refuse(
    serializer: Serializer, tensors: Mapping[str, torch.Tensor], path: Path, what: str
) -> None:
    given = attempt(what, serializer.save, tensors, path)
    expect(isinstance(given, WeightsError), f"{what} returned; that is a WeightsError")


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"(folder)"
        for path in folder.rglob("*")
    }


def _expect_same(folder: Path, before: Mapping[str, bytes], when: str) -> None:
    now = _content(folder)
    changed = sorted(name for name in before if now.get(name) != before[name])
    left = sorted(now.keys() - before.keys())
    expect(not changed, f"{when}, and {', '.join(changed)} is not what it was: save atomically")
    expect(not left, f"{when}, and {', '.join(left)} is left behind")
