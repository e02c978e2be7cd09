"""The manifest: what a package says of itself, and the hash of every entry.

The manifest lists size and SHA-256 of all other entries, and of large ones that of each 8 MiB, too,
which threads check instead; ``manifest.sha256`` holds the digest of the manifest itself. This finds
damage, and any change by somebody who does not rewrite both; it is no signature, and says nothing
of who made the package.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hardpoint.package import strict_json
from hardpoint.package.archive import PART, Archive
from hardpoint.package.pickles import refuse_pickles, sample_inputs
from hardpoint.package.refusal import MalformedError, refusing

if TYPE_CHECKING:
    from hardpoint.package.writer import ArchiveWriter

FORMAT = "hardpoint/1"
MANIFEST = "extra/hardpoint/manifest.json"
DIGEST = "extra/hardpoint/manifest.sha256"
MAX_MANIFEST = 256 << 20
# Not under extra/: PyTorch reads every entry there as UTF-8 text, and fails on binary ones.
ARTIFACTS = "data/hardpoint/artifacts"

# The parts of a tensor's reference.
_REFERENCE = {"entry", "dtype", "shape", "strides", "offset"}

Level = Literal["full", "quick"]
_WORTH_THREADS = 4 << 20
_SMALL = 1 << 20
# To give them to a thread costs more than to hash them.
_FEW = 64 << 10
_FLOATING = ("float", "bfloat", "complex")
THREADS = "hardpoint-hash"
# What "quick" does not hash: the tensors, which are nearly all of the bytes.
_TENSORS = ("data/weights/weight_", "data/constants/tensor_", "data/hardpoint/tensors/tensor_")


def finish_manifest(writer: ArchiveWriter, fields: Mapping[str, object]) -> None:
    """Write ``fields`` and the hashes of all entries so far, as the archive's last entries.

    :param fields: JSON-serializable; ``entries`` is added.
    :raises ValueError: a number that is not finite.
    :raises TypeError: something that JSON cannot hold.
    """
    entries = {
        name: {"bytes": digest.bytes, "sha256": digest.sha256}
        | ({"parts": digest.parts} if digest.parts else {})
        for name, digest in writer.digests.items()
    }
    data = strict_json.canonical({**fields, "entries": entries})
    writer.add(MANIFEST, data)
    writer.add(DIGEST, hashlib.sha256(data).hexdigest().encode())


def is_hardpoint_package(archive: Archive) -> bool:
    """Whether it has a manifest, as against any other PT2 archive."""
    return MANIFEST in archive.entries


def read_manifest(archive: Archive) -> dict[str, Any]:
    """The manifest, checked against its digest and against the list of entries.

    :raises PackageError: there is none, it was changed, or it and the entries disagree.
    """
    with refusing(archive.path):
        if not is_hardpoint_package(archive) or DIGEST not in archive.entries:
            raise MalformedError(
                "it is a PT2 archive, but not one that hardpoint wrote: it has no manifest",
                remedy="compile it first: `hardpoint compile FILE.pt2 -o PACKAGE.pt2`",
            )
        if archive.entries[MANIFEST].size > MAX_MANIFEST:
            raise MalformedError(f"its manifest is larger than {MAX_MANIFEST} bytes")
        found = hashlib.sha256(archive.view(MANIFEST)).hexdigest()
        if archive.view(DIGEST) != found.encode():
            raise MalformedError("its manifest was changed after it was written")
    manifest = archive.read_json(MANIFEST, MAX_MANIFEST)
    with refusing(archive.path):
        if not isinstance(manifest, dict) or not isinstance(manifest.get("entries"), dict):
            raise MalformedError("its manifest does not list its entries")
        _check_list(archive, manifest["entries"])
    return manifest


def check_manifest(archive: Archive, level: Level = "full") -> dict[str, Any]:
    """The manifest, after checking the package against it.

    :param level: ``full`` hashes every entry; ``quick`` leaves out the weights.
    :raises PackageError: damage, an entry too many or too few, or a pickle.
    """
    with Checking(archive, level) as checking:
        return checking.manifest


class Checking:
    """A package on its way to be trusted: its entries are hashed in threads while others work.

    Within ``with`` the manifest may be used at once, the files of artifacts after :meth:`files`.
    What is made of them and of tensors may leave it only after the end, which waits for all. An
    error that a damaged package led to is replaced by the one that says what is wrong with it.

    :ivar manifest: compared with its digest and with the list of entries.
    """

    def __init__(self, archive: Archive, level: Level = "full", *, program: bool = True) -> None:
        """As :func:`check_manifest`.

        :param program: check the tensors, too, that only the program uses: what runs needs none of
            them, and beside an artifact of four bits they are nearly all of the bytes.
        :raises PackageError: the manifest is damaged, or an entry too many or too few.
        """
        self.manifest = read_manifest(archive)
        self._archive = archive
        entries = archive.entries
        # The largest first, so that no thread is left alone with it at the end.
        names = sorted(self.manifest["entries"], key=lambda name: -entries[name].size)
        tensors = [name for name in names if name.startswith(_TENSORS)] if level == "full" else []
        # Entries that artifacts use: whether all that is in them is floating-point.
        floating: dict[str, bool] = {}
        for reference in references(self.manifest) if tensors else ():
            name = str(reference["entry"])
            number = str(reference["dtype"]).startswith(_FLOATING)
            floating[name] = number and floating.get(name, True)

        def steers(name: str) -> bool:
            # Sizes and indices, by which native code goes, are small tensors, and mostly integers.
            return entries[name].size < (_FEW if floating.get(name) else _SMALL)

        if not program:
            tensors = [name for name in tensors if name in floating or entries[name].size < _SMALL]
        first = [name for name in names if not name.startswith(_TENSORS)]
        first += [name for name in tensors if steers(name)]
        self._first = [piece for name in first for piece in self._pieces(name)]
        rest = [name for name in tensors if not steers(name)]
        self._all = self._first + [piece for name in rest for piece in self._pieces(name)]
        self._pool: ThreadPoolExecutor | None = None
        self._hashing: dict[_Piece, Future[bool]] = {}
        self._changed: dict[_Piece, bool] = {}

    def __enter__(self) -> Checking:
        if sum(piece.size for piece in self._all) >= _WORTH_THREADS:
            # One core is the caller's, who has other things to do first, and then hashes too.
            self._pool = ThreadPoolExecutor(min(8, max(1, (os.cpu_count() or 1) - 1)), THREADS)
            # No thread to be had: who asks hashes what is left.
            with contextlib.suppress(RuntimeError):
                for piece in self._all:
                    if piece.size >= _FEW:
                        self._hashing[piece] = self._pool.submit(self._differs, piece)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None or issubclass(kind, Exception):  # else the user wants to leave
                self.files()
                self._refuse(self._all)
        finally:
            if self._pool is not None:  # nobody reads the file any more
                self._pool.shutdown(cancel_futures=True)

    def files(self) -> None:
        """Wait until all but large tensors are known to be as they were written.

        :raises PackageError: they are not, or there is a pickle.
        """
        self._refuse(self._first)
        with refusing(self._archive.path):
            samples = sample_inputs(self._archive)
            if samples:
                raise MalformedError(f"it holds the pickle {samples[0]!r}, which no package needs")
        refuse_pickles(self._archive)

    def _refuse(self, pieces: Sequence[_Piece]) -> None:
        unknown = [piece for piece in pieces if piece not in self._changed]
        for piece in reversed(unknown):  # the threads come from the front
            running = self._hashing.get(piece)
            if running is None or running.cancel():  # nobody has begun with it
                self._changed[piece] = self._differs(piece)
        for piece in unknown:
            if piece not in self._changed:
                self._changed[piece] = self._hashing[piece].result()
        changed = sorted({piece.name for piece in pieces if self._changed[piece]})
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            what = f"the content of {', '.join(map(repr, changed[:3]))}{more}"
            with refusing(self._archive.path):
                raise MalformedError(f"{what} was changed or damaged")

    def _pieces(self, name: str) -> Iterator[_Piece]:
        facts, size = self.manifest["entries"][name], self._archive.entries[name].size
        if "parts" not in facts:
            yield _Piece(name, 0, size, facts["sha256"])
            return
        for at, sha256 in zip(range(0, size, PART), facts["parts"], strict=True):
            yield _Piece(name, at, min(PART, size - at), sha256)

    def _differs(self, piece: _Piece) -> bool:
        # hashlib lets go of the GIL, so that threads hash at the speed of all cores.
        data = self._archive.view(piece.name)[piece.at : piece.at + piece.size]
        return hashlib.sha256(data).hexdigest() != piece.sha256


class _Piece(NamedTuple):
    """What one thread hashes at a time: an entry, or a part of one."""

    name: str
    at: int
    size: int
    sha256: str


def references(value: object) -> Iterator[dict[str, Any]]:
    """Every tensor's reference in a manifest, or in a part of one, wherever it stands."""
    if isinstance(value, dict):
        # Tensors that are called like the parts of a reference are none.
        if value.keys() == _REFERENCE and not isinstance(value["entry"], dict):
            yield value
        else:
            for item in value.values():
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def _check_list(archive: Archive, listed: Mapping[str, Any]) -> None:
    """Names and sizes agree, in both directions."""
    actual = archive.entries.keys() - {MANIFEST, DIGEST}
    unlisted, missing = sorted(actual - listed.keys()), sorted(listed.keys() - actual)
    if unlisted:
        raise MalformedError(
            f"it holds the entry {unlisted[0]!r}, which its manifest does not list"
        )
    if missing:
        raise MalformedError(f"the entry {missing[0]!r} of its manifest is missing")
    for name, facts in listed.items():
        size = facts.get("bytes") if isinstance(facts, dict) else None
        if type(size) is not int or size != archive.entries[name].size:
            raise MalformedError(f"entry {name!r} has another size than its manifest says")
        if not isinstance(facts.get("sha256"), str):
            raise MalformedError(f"the manifest has no hash of entry {name!r}")
        if "parts" in facts and not _fit(facts["parts"], size):
            raise MalformedError(f"the manifest's hashes of parts of entry {name!r} do not fit it")


def _fit(parts: object, size: int) -> bool:
    return (
        isinstance(parts, list)
        and size > PART
        and len(parts) == -(-size // PART)
        and all(isinstance(part, str) for part in parts)
    )
