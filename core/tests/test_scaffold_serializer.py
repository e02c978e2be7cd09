"""The serializer that ``hardpoint new`` makes: exact, strict, atomic under ``kill -9``."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

import hardpoint as hp
from scaffolded import Installed
from splitting import bounded

NAME = "freshserializer"
SUFFIX = f".{NAME}"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with Installed(tmp_path_factory.mktemp("new"), NAME) as made:
        yield made


@pytest.fixture(scope="module")
def registry(installed: Installed) -> hp.Registry:
    return installed.registry()


@pytest.fixture(scope="module")
def serializer(registry: hp.Registry) -> hp.Serializer:
    return registry.open("serializer", NAME)


def test_weights_are_saved_and_loaded_through_the_public_functions(
    registry: hp.Registry, tmp_path: Path
) -> None:
    model = torch.nn.Linear(3, 2)
    path = tmp_path / f"w{SUFFIX}"
    hp.save_weights(dict(model.state_dict()), path, registry=registry)
    other = torch.nn.Linear(3, 2)
    hp.load_weights(path, into=other, registry=registry)
    assert torch.equal(other.weight, model.weight)
    found = hp.load_weights(path, mode="map", registry=registry)
    assert torch.equal(found["bias"], model.bias)


@settings(bounded, max_examples=200)
@given(junk=st.binary(max_size=400), keep=st.integers(0, 40))
def test_any_bytes_are_a_file_or_refused_in_words(
    installed: Installed, serializer: hp.Serializer, tmp_path: Path, junk: bytes, keep: int
) -> None:
    head = installed.module("file_format").encode([("a", "float32", (2,))], {"k": "v"})
    path = tmp_path / f"w{SUFFIX}"
    path.write_bytes(head[:keep] + junk)
    try:
        with serializer.open(path) as reader:
            for name in reader:
                reader.tensor(name)
    except hp.WeightsError as error:
        assert error.cause
        assert error.remedy


@settings(bounded, max_examples=150)
@given(data=st.data())
def test_a_slice_is_that_of_the_whole_tensor(
    serializer: hp.Serializer, tmp_path: Path, data: st.DataObject
) -> None:
    shape = data.draw(st.lists(st.integers(0, 5), max_size=4))
    whole = torch.arange(torch.Size(shape).numel(), dtype=torch.int16).reshape(shape)
    path = tmp_path / f"w{SUFFIX}"
    serializer.save({"pad": torch.ones(1, dtype=torch.uint8), "it": whole}, path)
    bounds = st.none() | st.integers(-7, 7)
    part = st.integers(-5, 4) | st.builds(slice, bounds, bounds, st.none() | st.integers(1, 3))
    index = data.draw(st.lists(part, max_size=len(shape)).map(tuple))
    with serializer.open(path) as reader:
        try:
            expected = whole[index]
        except IndexError:
            with pytest.raises(hp.WeightsError, match="has no slice"):
                reader.slice("it", index)
        else:
            assert torch.equal(reader.slice("it", index), expected)


SAVER = """
import sys
from pathlib import Path
import torch
import hardpoint as hp

serializer = hp.Registry().open("serializer", sys.argv[1])
path = Path(sys.argv[2])
for number in range(1_000_000):
    value = float(number % 7)
    serializer.save({"a": torch.full((300_000,), value), "b": torch.full((5,), value)}, path)
    if number == 0:
        print("saving", flush=True)
"""


@pytest.mark.parametrize("wait", [0.0, 0.03])
def test_a_killed_save_leaves_the_old_file_or_the_whole_new_one(
    installed: Installed, serializer: hp.Serializer, tmp_path: Path, wait: float
) -> None:
    path = tmp_path / f"w{SUFFIX}"
    code = f"import sys; sys.path.insert(0, {str(installed.site)!r})\n{SAVER}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, NAME, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "saving\n"
        time.sleep(wait)  # any moment will do: what is asserted holds at all of them
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with serializer.open(path) as reader:
        a, b = reader.tensor("a"), reader.tensor("b")
    assert a.shape == (300_000,)
    assert set(a.unique().tolist()) == set(b.unique().tolist())


def test_a_bool_that_is_neither_0_nor_1_is_refused(
    serializer: hp.Serializer, tmp_path: Path
) -> None:
    path = tmp_path / f"w{SUFFIX}"
    serializer.save({"flag": torch.tensor([True])}, path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with serializer.open(path) as reader, pytest.raises(hp.WeightsError, match="neither 0 nor 1"):
        reader.tensor("flag")


def test_a_message_is_written_for_its_reader(serializer: hp.Serializer, tmp_path: Path) -> None:
    path = tmp_path / f"w{SUFFIX}"
    serializer.save({"encoder.weight": torch.ones(2)}, path)
    with serializer.open(path) as reader, pytest.raises(hp.WeightsError) as caught:
        reader.tensor("encoder.weigth")
    assert str(caught.value) == (
        f"{path}: there is no tensor 'encoder.weigth'\n"
        f"  provider: serializer:{NAME} (from hardpoint-{NAME} 0.1.0)\n"
        "  cause: it is not in the file\n"
        "  remedy: did you mean 'encoder.weight'?"
    )
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(hp.WeightsError, match="the file is cut short"):
        serializer.open(path)
