"""Artifacts: what they hold, where they load, and what is refused."""

from __future__ import annotations

import io
import json
import pickletools
import re
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hardpoint.errors import ArtifactError, CompileError, HardpointError
from hardpoint.interfaces.backend import PRECISIONS, Artifact, CompileOptions
from hardpoint.interfaces.probe import Device
from hardpoint.package.load import load_package
from hardpoint.planning.data import Segment
from hardpoint.testing.backend.bench import Bench, bench_of
from hardpoint.testing.backend.judge import kind
from hardpoint.testing.backend.small import LAYERS, UNARY, floats
from hardpoint.testing.check import check, expect, fail, skip_unless
from hardpoint.testing.process import answer_of, run_python
from hardpoint.testing.subject import Subject

_ELSEWHERE = """
import sys
from hardpoint.testing.fresh import Job
job = Job(sys.argv[1])
model = job.load()
answer([job.error(model, i) for i in range(len(job.inputs))])
"""


class PackageChecks:
    """Artifacts that travel."""

    @check("packages")
    def test_works_in_a_new_process(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A package loads in a process that has only this provider, and gives the same numbers."""
        bench = bench_of(subject)
        with bench.job() as job:
            done = run_python(_ELSEWHERE, job, timeout=120)
            figures["bytes"] = Path(json.loads(job)["package"]).stat().st_size
        errors = answer_of(done, "a package is loaded and called in a new process")
        figures["max_error"] = max(errors)
        expect(
            max(errors) <= bench.limit,
            f"in a new process the package gives results that are wrong by {max(errors):.3g}, at "
            f"most {bench.limit:g} is allowed",
        )

    @check("packages")
    def test_artifacts_are_plain_data(self, subject: Subject, figures: dict[str, Any]) -> None:
        """An artifact is bytes, tensors and JSON; none of its files is or holds a pickle."""
        _, artifact = _compiled(bench_of(subject))
        figures |= {
            "format": artifact.format,
            "files": {name: len(data) for name, data in artifact.files.items()},
            "weights": len(artifact.weights),
        }
        for name, data in artifact.files.items():
            found = _pickle_in(bytes(data))
            expect(
                not found,
                f"file {name!r} of the artifact {found}: unpickling runs any code; put tensors in "
                "Artifact.weights, and facts in metadata or a format of your own",
            )
        for name, tensor in artifact.weights.items():
            plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
            expect(plain, f"weight {name!r} is a {type(tensor).__name__}, not a plain tensor")

    @check("packages")
    def test_compiles_the_same_again(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A segment compiled twice has the same files, weights and metadata by name."""
        bench = bench_of(subject)
        segment, first = _compiled(bench)
        again = _compile(bench, segment)
        expect(_interface(first) == _interface(again), lambda: _changes(first, again))
        figures["same_bytes"] = all(
            bytes(first.files[name]) == bytes(again.files[name]) for name in first.files
        )

    @check("packages")
    def test_saved_again_and_again(self, subject: Subject) -> None:
        """A model is saved twice, and once more after loading; each package is right."""
        bench = bench_of(subject)
        inputs = floats(8, 8)[:1]
        ready = bench.claimed({**LAYERS, **UNARY}, inputs)
        with tempfile.TemporaryDirectory(prefix="hardpoint-kit-") as folder:
            paths = [Path(folder, f"{i}.pt2") for i in range(3)]
            try:
                model = bench.model(bench.plan(ready.program))
                model.save(paths[0])
                model.save(paths[1])
                model.close()
                loaded = load_package(paths[0], registry=bench.registry)
                loaded.save(paths[2])
                loaded.close()
                for path, which in zip(paths, ("first", "second", "third"), strict=True):
                    opened = load_package(path, registry=bench.registry)
                    ready.judge(opened.run(inputs), inputs, f"from the {which} of three packages")
                    opened.close()
            except HardpointError as error:
                fail(f"{ready.small.name!r}, saved twice, loaded and saved again: {error}")

    @check("packages")
    def test_refuses_other_formats(self, subject: Subject, figures: dict[str, Any]) -> None:
        """An artifact of another backend, or of a version to come, is refused with a reason."""
        bench = bench_of(subject)
        _, artifact = _compiled(bench)
        later = re.sub(r"\d+(?=\D*$)", "99999", artifact.format)
        for other in dict.fromkeys(("another-vendor/7", later, artifact.format + "-next")):
            if other != artifact.format:
                reason = _refusal(
                    bench, replace(artifact, format=other), bench.device,
                    f"an artifact of format {other!r} (it makes {artifact.format!r})",
                )  # fmt: skip
                figures[other] = reason

    @check("packages")
    def test_refuses_other_devices(self, subject: Subject, figures: dict[str, Any]) -> None:
        """``load`` for a device that it does not have is refused with a reason."""
        bench = bench_of(subject)
        _, artifact = _compiled(bench)
        stranger = Device("no-such-device", "a device of the kit's", bench.device.torch_device)
        have = ", ".join(d.id for d in bench.open().devices())
        what = f"a load for the device 'no-such-device' (it has {have})"
        figures["reason"] = _refusal(bench, artifact, stranger, what)

    @check("packages")
    def test_refuses_unknown_options(self, subject: Subject, figures: dict[str, Any]) -> None:
        """An option that it does not declare is refused by name."""
        bench = bench_of(subject)
        segment, _ = _compiled(bench)
        options = {**bench.options, "no_such_option": 1}
        wanted = CompileOptions(bench.precision, tuple(floats(8, 8)[:1]), options)
        try:
            bench.open().compile(segment.program, bench.device, wanted)
        except HardpointError as error:
            figures["reason"] = str(error)
            expect("no_such_option" in str(error), f"the refusal does not name the option: {error}")
            return
        except Exception as error:
            fail(
                f"compile() with the undeclared option 'no_such_option' raised "
                f"{type(error).__name__}: {error}; raise a ConfigError that names it"
            )
        fail("compile() takes the undeclared option 'no_such_option' in silence: a typing error "
             "would change nothing, and nobody would know")  # fmt: skip

    @check("packages")
    def test_refuses_undeclared_precisions(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A precision that it does not declare is refused, not computed in another."""
        bench = bench_of(subject)
        others = [p for p in PRECISIONS if p not in bench.info.precisions]
        skip_unless(others, "it declares every precision")
        segment, _ = _compiled(bench)
        for precision in others:
            wanted = CompileOptions(precision, tuple(floats(8, 8)[:1]), bench.options)
            try:
                bench.open().compile(segment.program, bench.device, wanted)
            except CompileError as error:
                figures[precision] = str(error)
            except Exception as error:
                fail(
                    f"compile() in {precision}, which it does not declare, raised "
                    f"{type(error).__name__}: {error}; the contract asks for a CompileError"
                )
            else:
                fail(f"compile() in {precision}, which it does not declare, gives an artifact")


def _compiled(bench: Bench) -> tuple[Segment, Artifact]:
    """A small segment, and what it is compiled into."""
    ready = bench.claimed({**LAYERS, **UNARY}, floats(8, 8)[:1])
    segment = bench.plan(ready.program).segments[0]
    return segment, _compile(bench, segment)


def _compile(bench: Bench, segment: Segment) -> Artifact:
    wanted = CompileOptions(bench.precision, tuple(floats(8, 8)[:1]), bench.options)
    try:
        return bench.open().compile(segment.program, bench.device, wanted)
    except HardpointError as error:
        fail(f"support() claims all of a small program, but it cannot be compiled: {error}")


def _interface(artifact: Artifact) -> dict[str, object]:
    weights = {name: kind(tensor) for name, tensor in artifact.weights.items()}
    return {
        "format": artifact.format,
        "files": sorted(artifact.files),
        "weights": dict(sorted(weights.items())),
        "metadata": sorted(artifact.metadata),
    }


def _changes(first: Artifact, again: Artifact) -> str:
    pairs = zip(_interface(first).items(), _interface(again).values(), strict=True)
    told = [f"{name} {a} and {b}" for (name, a), b in pairs if a != b]
    return f"the same segment, compiled twice, gives {'; '.join(told)}"


def _refusal(bench: Bench, artifact: Artifact, device: Device, what: str) -> str:  # noqa: RET503
    """The reason of the ``ArtifactError``; fails the check where there is none."""
    try:
        bench.open().load(artifact, device).close()
    except ArtifactError as error:
        expect(error.what.strip(), f"{what} is refused without a reason")
        return str(error)
    except Exception as error:
        fail(
            f"{what} raised {type(error).__name__}: {error}; the contract asks for an "
            "ArtifactError with the reason"
        )
    fail(f"{what} is taken as if it were its own: load() must refuse it with an ArtifactError")


def _pickle_in(data: bytes) -> str:
    """What is pickled in a file, in words, or ``""``."""
    if _is_pickle(data):
        return "is a pickle"
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                if _is_pickle(archive.read(name)):
                    return f"holds the pickle {name!r}"
    return ""


def _is_pickle(data: bytes) -> bool:
    """Whether ``data`` reads as a pickle of protocol 2 or later, to its end; runs nothing of it."""
    if data[:1] != b"\x80" or data[1:2] not in b"\x02\x03\x04\x05":
        return False
    try:
        for _ in pickletools.genops(data):
            pass
    except Exception:
        return False  # it only begins like one
    return True
