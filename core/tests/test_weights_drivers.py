"""Weights behind the drivers of object stores: the real clients, each against a server on this machine
that speaks its protocol: S3's is moto's, the hub's the part of it that the client asks for."""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch

import hardpoint as hp
from hardpoint import WeightsError

fsspec = pytest.importorskip("fsspec")

BIG = 3 << 20  # bytes: a driver that reads ahead shows


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return {
        "first": torch.randn(BIG // 4),
        "rows": torch.arange(4000, dtype=torch.int64).view(1000, 4),
        "last": torch.randn(BIG // 4),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, torch.Tensor]) -> Path:
    made = tmp_path_factory.mktemp("weights")
    hp.save_weights(tensors, made / "model.safetensors")
    names = {
        "a-00001-of-00002.safetensors": ["first"],
        "a-00002-of-00002.safetensors": ["rows", "last"],
    }
    for name, held in names.items():
        hp.save_weights({each: tensors[each] for each in held}, made / name)
    index = {"metadata": {}, "weight_map": {t: n for n, held in names.items() for t in held}}
    (made / "a.safetensors.index.json").write_text(json.dumps(index))
    return made


class Place:
    """Where a driver finds the folder, and what it has asked the server for.

    :ivar base: URL of the folder.
    :ivar sent: bytes of files that the server has sent; where it does not say, ``None``.
    """

    base: str
    sent: int | None

    def put(self, name: str, content: bytes) -> None:
        raise NotImplementedError

    def whole(self) -> list[str]:
        """Requests that were for a whole file."""
        raise NotImplementedError


class S3(Place):
    def __init__(self, folder: Path, port: int) -> None:
        import boto3

        self.base, self.sent = "s3://models/tiny", None
        self.lines: list[str] = []
        self._client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}")
        self._client.create_bucket(Bucket="models")
        for path in folder.iterdir():
            self.put(path.name, path.read_bytes())

    def put(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket="models", Key=f"tiny/{name}", Body=content)

    def whole(self) -> list[str]:
        return [line for line in self.lines if '"GET /models/tiny/' in line and '" 200 ' in line]


@pytest.fixture(scope="module")
def s3(folder: Path) -> Iterator[Place]:
    pytest.importorskip("s3fs", reason="the driver of s3:// is not installed")
    server = pytest.importorskip(
        "moto.server", reason="moto, which serves S3's protocol, is not here"
    )
    served = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    log = logging.getLogger("werkzeug")
    with pytest.MonkeyPatch.context() as patch:
        served.start()
        _, port = served.get_host_and_port()
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        place = S3(folder, port)
        handler = logging.Handler()
        handler.emit = lambda record: place.lines.append(record.getMessage())  # type: ignore[method-assign]
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        yield place
        log.removeHandler(handler)
        served.stop()


class Hub(Place, http.server.ThreadingHTTPServer):
    """What ``huggingface_hub`` asks of the hub when it reads a public model."""

    def __init__(self, folder: Path) -> None:
        http.server.ThreadingHTTPServer.__init__(self, ("127.0.0.1", 0), HubHandler)
        self.base, self.sent = "hf://team/tiny", 0
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.unranged: list[str] = []

    def put(self, name: str, content: bytes) -> None:
        self.files[name] = content

    def whole(self) -> list[str]:
        return self.unranged


class HubHandler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/team/tiny/resolve/main/"):
            self._file(path.rpartition("/")[2])
        elif path.startswith("/api/models/team/tiny/tree/main"):
            rows = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(data),
                    "oid": f"{hash(data) & (1 << 64) - 1:040x}",
                }
                for name, data in self.server.files.items()
            ]
            self._json(rows)
        elif path in ("/api/models/team/tiny", "/api/models/team/tiny/revision/main"):
            self._json({"id": "team/tiny", "sha": "0" * 40, "siblings": [], "tags": []})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str) -> None:
        data, asked = self.server.files[name], self.headers.get("range")
        if asked is None:
            self.server.unranged.append(name)
            self._send(200, data, {})
            return
        first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        self.server.sent += len(part)
        self._send(206, part, {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def hub(folder: Path) -> Iterator[Place]:
    pytest.importorskip("huggingface_hub", reason="the driver of hf:// is not installed")
    served = Hub(folder)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        where = {"endpoint": f"http://127.0.0.1:{served.server_port}", "token": False}
        patch.setitem(fsspec.config.conf, "hf", where)
        yield served
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.fixture(params=["s3", "hub"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("mode", ["auto", "own"])
def test_a_file_comes_bit_for_bit(place, tensors, mode):
    found = hp.load_weights(f"{place.base}/model.safetensors", mode=mode)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_shards_are_found_beside_their_index(place, tensors):
    found = hp.load_weights(f"{place.base}/a.safetensors.index.json")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_only_the_header_and_what_is_asked_for_is_read(place, tensors):
    before = place.sent
    with hp.open_weights(f"{place.base}/model.safetensors") as reader:
        assert torch.equal(reader.slice("rows", (slice(10, 20),)), tensors["rows"][10:20])
    assert place.whole() == []
    if before is not None:
        assert place.sent - before < 4096


def test_a_file_that_is_not_there_is_an_error_with_its_address(place):
    with pytest.raises(WeightsError) as caught:
        hp.load_weights(f"{place.base}/nothing.safetensors")
    said = str(caught.value)
    assert said.startswith(
        f"{place.base}/nothing.safetensors cannot be opened\n  cause: FileNotFoundError"
    )
    assert said.endswith("\n  remedy: check the address, the network and your credentials")


def test_a_file_that_changes_while_it_is_open_is_an_error(place, tensors, tmp_path):
    hp.save_weights(tensors, tmp_path / "changing.safetensors")
    place.put("changing.safetensors", (tmp_path / "changing.safetensors").read_bytes())
    with hp.open_weights(f"{place.base}/changing.safetensors") as reader:
        source = reader.source("rows")
        source.check_unchanged()
        hp.save_weights({n: t + 1 for n, t in tensors.items()}, tmp_path / "changing.safetensors")
        place.put("changing.safetensors", (tmp_path / "changing.safetensors").read_bytes())
        with pytest.raises(WeightsError, match="the file changed while it was open"):
            source.check_unchanged()


def test_a_model_that_is_not_there_is_an_error_with_its_address(hub):
    with pytest.raises(WeightsError, match=r"hf://team/other/model\.safetensors cannot be opened"):
        hp.load_weights("hf://team/other/model.safetensors")
