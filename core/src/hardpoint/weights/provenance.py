"""Where the tensors of a file came from: a record in its metadata of what was done to which files.

JSON under one key of hardpoint's own: the operation and its arguments, who read and wrote, name,
size and SHA-256 of each file that was read, and under ``from`` the record that such a file carried
itself. No time and no path stand in it: the same work on the same files gives the same bytes.
Whoever can change the file can change it too: it tells of work done in good faith.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardpoint import __version__
from hardpoint.weights.content import printable

if TYPE_CHECKING:
    from hardpoint.storage.source import Source
    from hardpoint.weights.opened import Opened

KEY = "hardpoint.provenance"
# A record with all that it holds of others. Formats set limits: a comment of .npz has 64 KiB.
_MAX_CHARACTERS = 16_000
_MAX_READ = 64_000
_MAX_DEPTH = 8
# Lists and objects within each other, of records that are read. Ours, one in another to the depth
# above, have fewer than 50; Python's own limit depends on who calls.
_MAX_NESTED = 64
# More files than these are told by one digest.
_MAX_FILES = 64
_CHUNK = 8 << 20
_MAX_LINES = 100
_LEFT_OUT = "left out: too long"
_NESTED = "left out: a list within a list"

Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is being done, for the record.

    :param arguments: those that decide about the result; values that JSON holds.
    :param hashed: whether to read the sources once more, for their SHA-256.
    """

    operation: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    hashed: bool = True


def record_of(
    work: Work,
    sources: Iterable[tuple[Path, Opened]],
    writer: tuple[str, str],
    tick: Callable[[int], None] | None = None,
) -> str:
    """The text to put under :data:`KEY`.

    :param writer: name of the serializer that writes, and its distribution and version.
    :param tick: told of the bytes that were hashed.
    :raises WeightsError: a source cannot be read, or was written to since it was opened.
    """
    record: Record = {
        "operation": work.operation,
        "arguments": dict(work.arguments),
        "by": f"hardpoint {__version__}",
        "format": writer[0],
        "written_by": writer[1],
        "sources": [_source(path, opened, work.hashed, tick) for path, opened in sources],
    }
    files = [file for source in record["sources"] for file in source["files"]]
    for source in record["sources"]:
        if len(source["files"]) > _MAX_FILES:
            source["files"] = _summed(source["files"])
    for each in _shorter_and_shorter(record, files):
        text = _json(each)
        if len(text) <= _MAX_CHARACTERS:
            break
    return text


def _shorter_and_shorter(record: Record, files: list[Record]) -> Iterator[Record]:
    """A record, less others in it, then less its arguments or sources, of which a digest stays.

    :param files: of all sources, in their order.
    """
    for depth in range(_MAX_DEPTH, -1, -1):
        yield _cut(record, depth)
    digest = hashlib.sha256(_json(record["arguments"]).encode()).hexdigest()
    digested = {"arguments": {"sha256": digest}}
    yield _cut(record, 0) | digested
    yield record | {"sources": _summed(files)}
    yield record | {"sources": _summed(files)} | digested


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def read_record(metadata: Mapping[str, str]) -> Record | None:
    """The record that a file carries, or ``None`` if it carries none, or nothing like one."""
    found = _parse(metadata.get(KEY, ""))
    return found if isinstance(found, dict) else None


def without_records(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata less the records in it; a set of shards may have several."""
    return {key: value for key, value in metadata.items() if not _is_record(key)}


def told(record: Record) -> list[str]:
    """A record in words, a line each, indented; whatever a file made of it, it can be printed."""
    lines = list(itertools.islice(_told(record, 0), _MAX_LINES + 1))
    return lines if len(lines) <= _MAX_LINES else [*lines[:_MAX_LINES], "..."]


def _told(record: Any, depth: int) -> Iterator[str]:
    indent = "    " * depth
    if isinstance(record, list):
        for each in record:
            yield from _told(_NESTED if isinstance(each, list) else each, depth)
        return
    if not isinstance(record, dict):
        yield indent + printable(str(record))
        return
    who = f"{record.get('operation')} by {record.get('by')}, written by {record.get('written_by')}"
    yield indent + printable(who)
    if arguments := record.get("arguments"):
        yield f"{indent}  with {printable(json.dumps(arguments))}"
    sources = record.get("sources")
    if isinstance(sources, dict):
        yield f"{indent}  from {_file_told(sources)}"
    for source in sources if isinstance(sources, list) else []:
        if not isinstance(source, dict):
            yield f"{indent}  from {printable(str(source))}"
            continue
        yield f"{indent}  from {printable(str(source.get('name')))}" + printable(
            f", {source.get('format')} read by {source.get('read_by')}"
        )
        files = source.get("files")
        for file in files if isinstance(files, list) else [files]:
            yield f"{indent}    {_file_told(file)}"
        if "from" in source and depth < _MAX_DEPTH:
            yield from _told(source["from"], depth + 1)


def _file_told(file: Any) -> str:
    if not isinstance(file, dict):
        return printable(str(file))
    digest = file.get("sha256sum", file.get("sha256", "not hashed"))
    name = file.get("name", f"{file.get('count')} files")
    return printable(f"{digest}  {name} ({file.get('bytes')} bytes)")


def files_of(path: Path, opened: Opened) -> dict[str, Source]:
    """The files that hold the tensors, and the one named, if it is one; by name, in order.

    :raises WeightsError: one cannot be opened.
    """
    from hardpoint.storage.source import LocalFile

    base = path if path.is_dir() else path.parent
    found: dict[str, Source] = {}
    for name, info in opened.reader.items():
        if info.file in found:
            continue
        source = opened.reader.source(name)  # the very file that is read, whatever has its name now
        if source is not None and source.name == info.file:
            found[info.file] = source
        elif Path(info.file).is_file():
            found[info.file] = LocalFile(Path(info.file))
    if path.is_file() and str(path) not in found:
        found[str(path)] = LocalFile(path)
    named = {_name(Path(file), base): source for file, source in found.items()}
    return dict(sorted(named.items()))


def _name(file: Path, base: Path) -> str:
    return file.relative_to(base).as_posix() if file.is_relative_to(base) else file.name


def _source(path: Path, opened: Opened, hashed: bool, tick: Callable[[int], None] | None) -> Record:
    files = files_of(path, opened)
    record: Record = {
        "name": path.resolve().name if path.name in ("", "..") else path.name,
        "format": opened.name,
        "read_by": opened.origin,
    }
    digests = _hash_all(list(files.values()), tick) if hashed else [None] * len(files)
    record["files"] = [
        {"name": name, "bytes": source.size} | ({"sha256": digest} if digest else {})
        for (name, source), digest in zip(files.items(), digests, strict=True)
    ]
    carried = opened.reader.metadata
    earlier = [_parse(carried[key]) for key in sorted(carried) if _is_record(key)]
    if earlier:
        record["from"] = earlier[0] if len(earlier) == 1 else earlier
    return record


def _summed(files: list[Record]) -> Record:
    """Many files told by one digest, as ``sha256sum FILES | sha256sum`` tells it; if hashed."""
    found: Record = {"count": len(files), "bytes": sum(file["bytes"] for file in files)}
    if all("sha256" in file for file in files):
        lines = "".join(f"{file['sha256']}  {file['name']}\n" for file in files)
        found["sha256sum"] = hashlib.sha256(lines.encode()).hexdigest()
    return found


def _hash_all(sources: list[Source], tick: Callable[[int], None] | None) -> list[str]:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "hardpoint-hash") as pool:
        return list(pool.map(lambda source: _hash(source, tick), sources))


def _hash(source: Source, tick: Callable[[int], None] | None) -> str:
    """SHA-256 of a file's bytes; reading and hashing let other threads run."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(min(_CHUNK, source.size)))
    for at in range(0, source.size, _CHUNK):
        part = buffer[: min(_CHUNK, source.size - at)]
        source.read_into(at, part)
        digest.update(part)
        if tick is not None:
            tick(len(part))
    source.check_unchanged()
    return digest.hexdigest()


def _is_record(key: str) -> bool:
    return key == KEY or key.endswith(f":{KEY}")


def _parse(text: str) -> Record | str:
    """What stands under :data:`KEY`, from a file that anybody may have written."""
    if len(text) > _MAX_READ:
        return _LEFT_OUT
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(found, allow_nan=False)  # 1e999 is infinite, and JSON has no word for that
    except (ValueError, RecursionError):
        return "left out: no JSON"
    if _is_nested(found):
        return "left out: nested too deep"
    return found if isinstance(found, dict) else "left out: no JSON object"


def _is_nested(found: Any) -> bool:
    """Whether there is more in each other than we go down into."""
    level = [found] if isinstance(found, dict | list) else []
    for _ in range(_MAX_NESTED):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for all_of in inner for each in all_of if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _cut(record: Any, depth: int) -> Any:
    """A copy of a record (or of several) with no more than ``depth`` others below it."""
    if isinstance(record, list):
        # Ours are flat; a list of lists has no depth that we would count.
        return [_NESTED if isinstance(each, list) else _cut(each, depth) for each in record]
    if not isinstance(record, dict) or not isinstance(record.get("sources"), list):
        return record
    sources = [
        {**each, "from": _cut(each["from"], depth - 1) if depth else _LEFT_OUT}
        if isinstance(each, dict) and "from" in each
        else each
        for each in record["sources"]
    ]
    return {**record, "sources": sources}
