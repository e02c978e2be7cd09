"""Damaged and hostile files: each is refused by one kind of error, in bounded time and memory."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hardpoint.testing.check import check, expect, skip_unless
from hardpoint.testing.serializer import damage
from hardpoint.testing.serializer.bench import Bench, bench
from hardpoint.testing.serializer.damage import Case
from hardpoint.testing.serializer.guard import nothing_runs
from hardpoint.testing.serializer.judge import Verdict, hold, hold_paths, opens, recognizes
from hardpoint.testing.serializer.text import damaged_text
from hardpoint.testing.subject import Subject

_NO_FOLDER = (
    'no files of your own to refuse: put them into a folder and say hostile = "tests/hostile" in '
    "conformance.toml"
)


class Hostile:
    """Opening what is not a good file. All of it happens in a process of its own, under limits."""

    @check("refuses")
    def test_files_cut_short_are_refused(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A file that ends too early is refused, wherever it ends."""
        _damage(subject, figures, damage.cut)

    @check("refuses")
    def test_bytes_after_the_end_are_refused(
        self, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """A file with more bytes than its content is refused."""
        _damage(subject, figures, damage.lengthened)

    @check("refuses")
    def test_flipped_bits_do_no_harm(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A file with one bit flipped is refused, or opens and is coherent in itself."""
        _damage(subject, figures, damage.flipped)

    @check("refuses")
    def test_giant_numbers_do_no_harm(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A giant length, count or offset is refused before anything is allocated for it."""
        _damage(subject, figures, damage.giant)

    @check("refuses")
    def test_what_is_another_format_is_refused(
        self, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """Empty files, random bytes, other formats, with or without this one's first bytes."""
        _damage(subject, figures, lambda good: [*damage.foreign(good), *_others()])

    @check("refuses")
    def test_hostile_text_is_refused(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Text in the head that is deep, huge, ambiguous or of the wrong types is refused."""
        with bench(subject) as at:
            cases = list(damaged_text(at.file().read_bytes()))
            skip_unless(cases, "its files do not begin with JSON")
            _told(figures, hold(at, "opening files with damaged text", cases, opens))

    @check("refuses")
    def test_what_is_no_file_is_refused(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A missing path, pipe, device, broken link or empty folder is refused, and blocks nobody.

        So is a path below a file.
        """
        _strange(subject, figures, opens)

    @check("refuses")
    def test_recognizes_nothing_else(self, subject: Subject, figures: dict[str, Any]) -> None:
        """recognizes() is False for other formats, rubbish and damaged heads; it never raises."""
        with bench(subject) as at:
            good = at.file().read_bytes()
            cases = [case for case in damage.foreign(good) if "its first" not in case.what]
            cases += _others()
            cases += [Case(c.what, c.data, "coherent") for c in damage.cut(good)]
            cases += damage.flipped(good)
            _told(figures, hold(at, "asking recognizes() about files", cases, recognizes))

    @check("refuses")
    def test_recognizes_no_folder_pipe_or_missing_file(
        self, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """recognizes() is False for what is no file, and never waits for one."""
        _strange(subject, figures, recognizes)

    @check("refuses")
    def test_the_vendors_hostile_files_are_refused(
        self, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """Every file of the folder that the setting "hostile" names is refused."""
        folder = subject.settings.folder("hostile")
        skip_unless(folder, _NO_FOLDER)
        assert folder is not None, "skip_unless ended the check"
        with bench(subject) as at:
            copies = shutil.copytree(folder, at.folder / "hostile", symlinks=True)
            paths = sorted(path for path in copies.iterdir() if not path.name.startswith("."))
            expect(paths, f"there is no file in {folder}")
            listed = [[path.name, str(path), "refused"] for path in paths]
            _told(figures, hold_paths(at, "opening the hostile files", listed, opens))

    @check("refuses")
    def test_nothing_in_a_file_is_executed(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Opening a file runs, imports and unpickles nothing that stands in it."""
        with bench(subject) as at:
            figures.update(nothing_runs(at))


def _damage(
    subject: Subject, figures: dict[str, Any], damaged: Callable[[bytes], Iterable[Case]]
) -> None:
    with bench(subject) as at:
        good = at.file().read_bytes()
        _told(figures, hold(at, "opening damaged files", damaged(good), opens))


def _strange(subject: Subject, figures: dict[str, Any], verdict: Verdict) -> None:
    with bench(subject) as at:
        listed = [[what, str(path), "refused"] for what, path in _no_files(at)]
        _told(figures, hold_paths(at, "looking at what is no file", listed, verdict))


def _told(figures: dict[str, Any], given: dict[str, Any]) -> None:
    findings = given.pop("findings")
    figures.update(given)
    expect(not findings, lambda: "it is wrong about:\n  " + "\n  ".join(findings))


def _no_files(at: Bench) -> Iterator[tuple[str, Path]]:
    good = at.specimen()
    yield "a missing file", at.path("missing")
    empty = at.path("folder")
    empty.mkdir()
    yield "an empty folder", empty
    pipe = at.path("pipe")
    os.mkfifo(pipe)
    yield "a pipe that nobody writes to", pipe
    loop = at.path("loop")
    loop.symlink_to(loop)
    yield "a link to itself", loop
    dangling = at.path("dangling")
    dangling.symlink_to(at.folder / "gone")
    yield "a link to nothing", dangling
    if good.is_file():
        yield "a path below a file", good / "inside"
    yield "the device /dev/null", Path(os.devnull)
    if Path("/dev/zero").exists():
        yield "the device /dev/zero", Path("/dev/zero")


def _others() -> list[Case]:
    """Small files of other formats."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("data.pkl", pickle.dumps({"a": 1}))
    return [
        Case(f"a file of another format: {what}", data, "refused")
        for what, data in {
            "a pickle": pickle.dumps({"a": [1, 2, 3]}),
            "a zip archive": archive.getvalue(),
            "PNG": b"\x89PNG\r\n\x1a\n" + bytes(64),
            "ELF": b"\x7fELF\x02\x01\x01" + bytes(64),
            "gzip": b"\x1f\x8b\x08" + bytes(64),
            "plain text": b"To be, or not to be, that is the question.\n" * 4,
            "JSON": b'{"a": {"b": [1, 2, 3]}}',
            "an HTML page": b"<!DOCTYPE html><title>404</title>not found",
            "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n"
            b"oid sha256:0000\nsize 12345\n",
        }.items()
    ]
