"""Weights behind URLs: the header, then the bytes that are asked for, from a real HTTP server."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import hardpoint as hp
from hardpoint import WeightsError

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


class Server(http.server.ThreadingHTTPServer):
    """Serves one folder; counts bytes; misbehaves as told."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.sent, self.manner = folder, 0, "honest"
        self.date = "Mon, 01 Jan 2024 00:00:00 GMT"
        self.ranges: list[tuple[int, int]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data, manner = path.read_bytes(), self.server.manner
        asked = self.headers.get("Range")
        ranged = asked is not None and body and manner != "no ranges"
        size = len(data)
        if ranged:
            first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
            self.server.ranges.append((first, last + 1))
            data = data[first : last + 1]
            if manner == "short answers":
                data = data[:-1]
            if manner == "long answers":
                data = data + b"x"
        self.send_response(206 if ranged else 200)
        if manner != "no ranges":
            self.send_header("Accept-Ranges", "bytes")
        if ranged:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        stated = size * 3 if manner == "lies about its size" and not body else len(data)
        if manner != "no size":
            self.send_header("Content-Length", str(stated))
        if manner == "dated":
            self.send_header("Last-Modified", self.server.date)
        else:
            self.send_header("ETag", f'"{hash(path.read_bytes())}"')
        self.end_headers()
        if body:
            self.server.sent += len(data)
            self.wfile.write(data)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    served = Server(tmp_path)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.fixture
def tensors(tmp_path: Path) -> dict[str, torch.Tensor]:
    made = {
        "big": torch.randn(1024, 1024),
        "rows": torch.arange(4000, dtype=torch.int64).view(1000, 4),
        "scalar": torch.tensor(3.0),
        "none": torch.empty(0, 3),
        "half": torch.randn(7).bfloat16(),
    }
    hp.save_weights(made, tmp_path / "model.safetensors", metadata={"who": "we"})
    return made


def test_a_local_file_with_colons_in_its_name_is_a_file(tmp_path, monkeypatch, tensors):
    monkeypatch.chdir(tmp_path)
    hp.save_weights(tensors, "ab::c.safetensors")
    loaded = hp.load_weights("ab::c.safetensors")
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_all_tensors_come_whole(server, tensors):
    for mode in ("map", "own"):
        found = hp.load_weights(server.url("model.safetensors"), mode=mode)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_opening_reads_the_header_and_a_slice_its_rows(server, tensors):
    with hp.open_weights(server.url("model.safetensors")) as reader:
        assert reader.metadata == {"who": "we"}
        assert reader["big"].shape == (1024, 1024)
        assert server.sent < 5000
        before = server.sent
        assert torch.equal(reader.slice("rows", (slice(100, 110),)), tensors["rows"][100:110])
        assert server.sent - before == 10 * 4 * 8
        assert torch.equal(reader.slice("rows", (500, slice(1, 3))), tensors["rows"][500, 1:3])
        assert torch.equal(reader.slice("rows", (slice(None, None, 7), 2)), tensors["rows"][::7, 2])
    assert server.sent < 100_000


def test_the_part_of_a_rank_is_all_that_is_read(server, tensors):
    half = hp.load_weights(
        server.url("model.safetensors"),
        mode="own",
        slices={"big": slice(512, None), "rows": slice(0, 0)},
    )
    assert torch.equal(half["big"], tensors["big"][512:])
    assert half["rows"].shape == (0, 4)
    assert server.sent < 512 * 1024 * 4 + 10_000


def test_shards_are_found_beside_the_index(server, tmp_path, tensors):
    names = sorted(tensors)
    hp.save_weights({n: tensors[n] for n in names[:2]}, tmp_path / "a.safetensors")
    hp.save_weights({n: tensors[n] for n in names[2:]}, tmp_path / "b.safetensors")
    weight_map = {n: "a.safetensors" if n in names[:2] else "b.safetensors" for n in names}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    found = hp.load_weights(server.url(index.name))
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("manner", "says"),
    [
        ("short answers", "cannot be read|of the wrong length"),
        ("long answers", "of the wrong length"),
        ("no ranges", "of the wrong length|cannot be read"),
        ("no size", "cannot be read by ranges|cannot be opened"),
        ("lies about its size", "trailing|cut short|cannot be read|wrong length|no serializer"),
    ],
)
def test_a_server_that_misbehaves_is_an_error_and_never_wrong_weights(
    server, tensors, manner, says
):
    server.manner = manner
    with pytest.raises(WeightsError, match=says) as caught:
        hp.load_weights(server.url("model.safetensors"))
    assert "http://127.0.0.1" in str(caught.value)
    assert caught.value.remedy


def test_a_file_that_is_not_there_is_an_error_with_its_address(server):
    with pytest.raises(WeightsError, match=r"nothing\.safetensors cannot be opened"):
        hp.load_weights(server.url("nothing.safetensors"))


def test_a_file_that_changes_while_it_is_read_is_an_error(server, tmp_path, tensors):
    with hp.open_weights(server.url("model.safetensors")) as reader:
        changed = {name: tensor + 1 for name, tensor in tensors.items()}
        hp.save_weights(changed, tmp_path / "model.safetensors", metadata={"who": "we"})
        with pytest.raises(WeightsError, match="the file changed while it was open"):
            reader.tensor("big")


def test_an_address_without_a_driver_says_so():
    with pytest.raises(WeightsError, match="nosuch://x/y cannot be opened"):
        hp.load_weights("nosuch://x/y")


def test_memory_and_zip_places_of_fsspec_work_too(tensors, tmp_path):
    import fsspec

    with fsspec.open("memory://folder/model.safetensors", "wb") as file:
        file.write((tmp_path / "model.safetensors").read_bytes())
    found = hp.load_weights("memory://folder/model.safetensors")
    assert torch.equal(found["big"], tensors["big"])


# -- found by a cold review ------------------------------------------------------------------------


def test_no_more_is_taken_than_was_asked_for(server, tensors, monkeypatch):
    from hardpoint.storage.http import fetch_bounded
    from hardpoint.storage.remote import open_url

    server.manner = "no ranges"
    source = open_url(server.url("model.safetensors"))
    assert source.size > 4_000_000
    assert len(fetch_bounded(source._system, source._path, 0, 100)) == 101


def test_a_change_is_seen_by_the_date_where_there_is_no_tag(server, tmp_path, tensors):
    server.manner = "dated"
    with hp.open_weights(server.url("model.safetensors")) as reader:
        server.date = "Tue, 02 Jan 2024 00:00:00 GMT"
        with pytest.raises(WeightsError, match="the file changed while it was open"):
            reader.tensor("big")


@pytest.mark.parametrize("shard", ["..%2f..%2fsecret.safetensors", "x?admin=1&y=.safetensors"])
def test_an_index_cannot_send_us_elsewhere_on_the_server(server, tmp_path, shard):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(WeightsError, match=r"is no name of a file beside it|is no .* file right"):
        hp.load_weights(server.url(index.name))
