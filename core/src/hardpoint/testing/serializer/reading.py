"""What a reader is: a mapping of names to facts, with errors that help, and an end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from hardpoint.errors import HardpointError, WeightsError
from hardpoint.interfaces.serializer import Reader, TensorInfo
from hardpoint.testing.check import check, expect, fail
from hardpoint.testing.serializer.bench import Bench, attempt, bench
from hardpoint.testing.serializer.samples import random, same, word, words
from hardpoint.testing.subject import Subject

_ABSENT = "no.such.tensor"


class Reading:
    """Opening a good file."""

    @check("round-trips")
    def test_a_reader_is_a_mapping_of_facts(self, subject: Subject) -> None:
        """An open file is a Mapping from name to TensorInfo, which says what tensor() gives."""
        with bench(subject) as at:
            path = _rich(at)
            with at.read(path) as reader:
                _check_mapping(reader)
                total = 0
                for name, info in reader.items():
                    _check_info(name, info, reader.tensor(name))
                    total += info.nbytes
                size = sum(p.stat().st_size for p in at.folder.rglob("*") if p.is_file())
                expect(
                    total <= size,
                    f"the infos' nbytes add up to {total}, and the files have {size} bytes",
                )
                _check_metadata(reader.metadata)
                twice = [same(reader.tensor(n), reader.tensor(n)) for n in reader]
                expect(all(twice), "asked twice, tensor() gave two answers")

    @check("round-trips")
    def test_recognizes_its_own_files(self, subject: Subject) -> None:
        """recognizes() goes by the content: it knows its files whatever they are called."""
        with bench(subject) as at:
            path = at.specimen()
            _must_know(at, path, "a file of its own")
            if path.is_file():
                for name in ("no-suffix", "other.bin"):
                    renamed = path.with_name(name)
                    renamed.write_bytes(path.read_bytes())
                    _must_know(at, renamed, f"a file of its own that is called {name!r}")
                link = path.with_name("link")
                link.symlink_to(path)
                _must_know(at, link, "a link to a file of its own")

    @check("round-trips")
    def test_tensors_come_on_the_device_asked_for(self, subject: Subject) -> None:
        """open(device=) decides where tensors are; what is no device is refused."""
        devices = ["cpu"]
        if torch.accelerator.is_available():
            devices.append(str(torch.accelerator.current_accelerator()))
        with bench(subject) as at:
            path = at.specimen()
            for device in devices:
                with at.serializer.open(path, device=device) as reader:
                    for name in reader:
                        found = reader.tensor(name).device
                        expect(
                            found.type == torch.device(device).type,
                            f"opened with device={device!r}, tensor({name!r}) is on {found}",
                        )
            _refuses_device(at, path, "nonsense")

    @check("round-trips")
    def test_a_missing_tensor_is_an_error_that_helps(self, subject: Subject) -> None:
        """tensor() and slice() of an unknown name raise a WeightsError with the nearest name."""
        with bench(subject) as at, at.read(at.specimen()) as reader:
            known = max(reader, key=len)
            wrong = f"{known}x"
            for method, arguments in {"tensor": (wrong,), "slice": (wrong, 0)}.items():
                error = attempt(f"{method}({wrong!r})", getattr(reader, method), *arguments)
                if not isinstance(error, WeightsError):
                    fail(f"{method}({wrong!r}) gave {error!r}; the file has no such tensor")
                expect(
                    wrong in str(error),
                    f"{method}({wrong!r}) does not say which tensor is missing: {error}",
                )
                expect(
                    known in str(error).replace(wrong, ""),
                    f"{method}({wrong!r}) does not offer the nearest name, {known!r}: {error}",
                )

    @check("round-trips")
    def test_a_reader_can_be_closed_twice(self, subject: Subject) -> None:
        """close() is safe to call twice; a closed reader answers, or says that it is closed."""
        with bench(subject) as at:
            reader = at.read(at.specimen())
            (name, *_) = reader
            before = reader.tensor(name).clone()
            for _ in range(2):
                closed = attempt("close()", reader.close)
                expect(not isinstance(closed, WeightsError), f"close() raised {closed}")
            after = attempt("tensor() of a closed reader", reader.tensor, name)
            if not isinstance(after, WeightsError):
                expect(same(after, before), "a closed reader gives another tensor than before")


def _rich(at: Bench) -> Path:
    """A file of all that the format holds of these; the specimen, where it only reads."""
    if not at.info.can_save:
        return at.specimen()
    wanted = {
        "matrix": random((5, 3)),
        "scalar": random(()),
        "empty": random((0, 3)),
        "half": random((7,), torch.bfloat16),
        "bytes": random((2, 2, 2), torch.uint8),
        "flags": random((9,), torch.bool),
        "ids": random((4,), torch.int64),
    }
    held = {}
    for name, tensor in wanted.items():
        refusal = attempt(
            f"save() of {words(tensor)}",
            at.serializer.save,
            {name: tensor},
            at.path(),
        )
        if not isinstance(refusal, WeightsError):
            held[name] = tensor
    return at.save(held, what="save() of several tensors")


def _check_mapping(reader: Reader) -> None:
    names = list(reader)
    expect(names, "the file has tensors, and iterating the reader gives no name")
    expect(len(set(names)) == len(names), f"iterating the reader gives a name twice: {names}")
    expect(len(reader) == len(names), f"len() is {len(reader)}, and iterating gives {len(names)}")
    expect(
        set(reader.keys()) == set(names) and all(name in reader for name in names),
        "iterating the reader and `in` disagree",
    )
    expect(_ABSENT not in reader, f"{_ABSENT!r} in reader is true")
    expect(7 not in reader, "7 in reader is true; names are text")  # type: ignore[comparison-overlap]
    try:
        found = reader[_ABSENT]
    except KeyError:
        expect(reader.get(_ABSENT) is None, "reader.get() of an unknown name is not None")
    except Exception as error:
        fail(
            f"reader[unknown name] raised {type(error).__name__}; a Mapping raises KeyError, or "
            f"get() and `in` break"
        )
    else:
        fail(f"reader[unknown name] gave {found!r}; a Mapping raises KeyError")


def _check_info(name: str, info: object, tensor: torch.Tensor) -> None:
    if not isinstance(info, TensorInfo):
        fail(f"reader[{name!r}] is a {type(info).__name__}, not a TensorInfo")
    facts = {
        "name": (info.name, name),
        "dtype": (info.dtype, word(tensor.dtype)),
        "shape": (info.shape, tuple(tensor.shape)),
    }
    for key, (said, real) in facts.items():
        expect(
            type(said) is type(real) and said == real,
            f"reader[{name!r}].{key} is {said!r}, and tensor() gives {real!r}",
        )
    expect(
        type(info.nbytes) is int and (info.nbytes > 0) == (math.prod(info.shape) > 0),
        f"reader[{name!r}].nbytes is {info.nbytes!r} for {words(tensor)}",
    )
    expect(
        isinstance(info.file, str) and Path(info.file).is_file(),
        f"reader[{name!r}].file is {info.file!r}, which is no file",
    )


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, Mapping):
        fail(f"reader.metadata is a {type(metadata).__name__}, not a mapping")
    bad = [key for key, value in metadata.items() if not isinstance(value, str)]
    expect(not bad, f"reader.metadata holds values that are not text, under {bad[:3]}")


def _must_know(at: Bench, path: Path, what: str) -> None:
    try:
        known = at.serializer.recognizes(path)
    except Exception as error:
        fail(f"recognizes() of {what} raised {type(error).__name__}: {error}; it never raises")
    expect(known is True, f"recognizes() of {what} is {known!r}, not True")


def _refuses_device(at: Bench, path: Path, device: str) -> None:
    try:
        with at.serializer.open(path, device=device) as reader:
            (name, *_) = reader
            given = reader.tensor(name).device
    except HardpointError:
        return
    except Exception as error:
        fail(
            f"open(device={device!r}) raised {type(error).__name__}; say it in a WeightsError that "
            f"there is no such device"
        )
    fail(f"open(device={device!r}) gave tensors on {given}; there is no such device")
