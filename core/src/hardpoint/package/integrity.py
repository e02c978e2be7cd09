"""The manifest: what a package says of itself, and the hash of every entry.

The manifest lists size and SHA-256 of all other entries; ``manifest.sha256`` holds the digest of
the manifest itself. This finds damage, and any change by somebody who does not rewrite both; it is
no signature, and says nothing of who made the package.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from hardpoint.package import strict_json
from hardpoint.package.archive import Archive
from hardpoint.package.pickles import refuse_pickles, sample_inputs
from hardpoint.package.refusal import MalformedError, refusing
from hardpoint.package.writer import ArchiveWriter

FORMAT = "hardpoint/1"
MANIFEST = "extra/hardpoint/manifest.json"
DIGEST = "extra/hardpoint/manifest.sha256"
MAX_MANIFEST = 256 << 20
# Not under extra/: PyTorch reads every entry there as UTF-8 text, and fails on binary ones.
ARTIFACTS = "data/hardpoint/artifacts"

Level = Literal["full", "quick"]
_WORTH_THREADS = 4 << 20
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
    manifest = read_manifest(archive)
    names = [
        name for name in manifest["entries"] if level == "full" or not name.startswith(_TENSORS)
    ]
    changed = changed_entries(archive, manifest, names)
    with refusing(archive.path):
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise MalformedError(
                f"the content of {', '.join(map(repr, changed[:3]))}{more} was changed or damaged"
            )
        samples = sample_inputs(archive)
        if samples:
            raise MalformedError(f"it holds the pickle {samples[0]!r}, which no package needs")
    refuse_pickles(archive)
    return manifest


def changed_entries(
    archive: Archive, manifest: Mapping[str, Any], names: Iterable[str]
) -> list[str]:
    """Those of ``names`` whose content has another hash than the manifest says, sorted."""

    def changed(name: str) -> bool:
        # hashlib lets go of the GIL, so that threads hash at the speed of all cores.
        actual = hashlib.sha256(archive.view(name)).hexdigest()
        return bool(actual != manifest["entries"][name]["sha256"])

    # The largest first, so that no thread is left alone with it at the end.
    order = sorted(names, key=lambda name: -archive.entries[name].size)
    if sum(archive.entries[name].size for name in order) < _WORTH_THREADS:
        return sorted(filter(changed, order))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return sorted(
            name for name, bad in zip(order, pool.map(changed, order), strict=True) if bad
        )


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
