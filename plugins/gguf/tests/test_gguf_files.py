"""Real files, written by the format's reference library, read to the last bit."""

import gguf
import numpy as np
import pytest
import torch

import hardpoint as hp
from hardpoint import WeightsError
from hardpoint_gguf import cursor, dequantize
from hardpoint_gguf.types import BY_NUMBER

KINDS = [kind for kind in gguf.quants._type_traits if gguf.GGML_QUANT_SIZES[kind][0] > 1]


@pytest.fixture
def write(tmp_path):
    """``write({name: array or (raw, kind)}, pairs=lambda writer: ...)``: the path of a file."""

    def made(tensors, pairs=lambda writer: None, name="made.gguf"):
        path = tmp_path / name
        writer = gguf.GGUFWriter(path, "llama")
        pairs(writer)
        for key, value in tensors.items():
            array, kind = value if isinstance(value, tuple) else (value, None)
            writer.add_tensor(key, array, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return made


def noise(*shape):
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def bits(array):
    return np.ascontiguousarray(array).tobytes()


def test_the_types_are_those_of_the_library():
    ours = {(t.name, t.number): (t.block, t.nbytes) for t in BY_NUMBER.values()}
    theirs = {(k.name, k.value): gguf.GGML_QUANT_SIZES[k] for k in gguf.GGMLQuantizationType}
    assert ours == theirs


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "i1", "i2", "i4", "i8"])
def test_plain_tensors_are_views_of_the_map_in_pytorchs_order(serializer, write, dtype):
    array = np.arange(24).astype(dtype).reshape(2, 3, 4)
    path = write({"a": array, "b": array[0], "c": array[0, 0, :1]})
    with serializer.open(path) as reader:
        assert [info.shape for info in reader.values()] == [(2, 3, 4), (3, 4), (1,)]
        assert torch.equal(reader.tensor("a"), torch.from_numpy(array))
        assert reader.tensor("a").data_ptr() == reader.tensor("a").data_ptr()
        info = reader["a"]
        assert path.read_bytes()[info.offset :][: info.nbytes] == bits(array)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_quantized_tensors_are_what_the_library_makes_of_them(serializer, write, kind):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = noise(2, 3, 2 * size)
    with np.errstate(all="ignore"):
        whole = gguf.quants.dequantize(raw, kind)
    with serializer.open(write({"w": (raw, kind)})) as reader:
        assert reader["w"].dtype == "float32"
        assert reader["w"].shape == (2, 3, 2 * block)
        assert reader["w"].nbytes == raw.nbytes
        assert reader["w"].offset is None
        assert reader.metadata["hardpoint.quantized:w"] == kind.name
        assert bits(reader.tensor("w").numpy()) == bits(whole)
        for index in (0, -1, (1, 2), (0, slice(1, 3)), (slice(None), 1), (1, 2, 5),
                      (slice(0, 2), slice(None, None, 2), slice(3, 40, 7)), (..., )[:0]):  # fmt: skip
            assert bits(reader.slice("w", index).numpy()) == bits(whole[index])


def test_a_model_quantized_for_real_is_near_to_itself(serializer, write):
    weights = np.random.default_rng(1).normal(size=(16, 256)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    with serializer.open(write({"w": (gguf.quants.quantize(weights, kind), kind)})) as reader:
        assert np.abs(reader.tensor("w").numpy() - weights).max() < 0.02


def test_only_the_rows_asked_for_are_computed(serializer, write, monkeypatch):
    seen = []
    real = dequantize.dequantize

    def watched(rows, *arguments):
        seen.append(tuple(rows.shape))
        return real(rows, *arguments)

    monkeypatch.setattr("hardpoint_gguf.reader.dequantize", watched)
    kind = gguf.GGMLQuantizationType.Q4_0
    with serializer.open(write({"w": (noise(1000, 18), kind)})) as reader:
        assert reader.slice("w", slice(10, 12)).shape == (2, 32)
        assert reader.slice("w", (7, 3)).shape == ()
    assert seen == [(2, 18), (18,)]


@pytest.mark.parametrize("index", [3, (0, 3), (0, 0, 64), slice(None, None, -1), 1.0, (0,) * 4])
def test_an_index_outside_a_quantized_tensor_is_told_in_its_own_shape(serializer, write, index):
    kind = gguf.GGMLQuantizationType.Q4_0
    with (
        serializer.open(write({"w": (noise(2, 3, 36), kind)})) as reader,
        pytest.raises(WeightsError, match=r"tensor 'w' of shape \(2, 3, 64\) has no slice"),
    ):
        reader.slice("w", index)


def test_a_type_that_the_library_cannot_compute_is_refused_when_asked_for(serializer, write):
    kind = gguf.GGMLQuantizationType.Q8_1
    path = write({"w": (noise(2, 40), kind), "plain": np.ones(2, np.float32)})
    with serializer.open(path) as reader:
        assert reader.tensor("plain").sum() == 2
        with pytest.raises(WeightsError) as caught:
            reader.tensor("w")
    assert "tensor 'w' cannot be dequantized" in str(caught.value)
    assert "does not know how for Q8_1" in str(caught.value)


def test_without_the_library_only_quantized_tensors_are_refused(serializer, write, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    kind = gguf.GGMLQuantizationType.Q4_0
    with serializer.open(write({"w": (noise(2, 18), kind), "p": np.ones(1, np.float32)})) as reader:
        assert reader.tensor("p").item() == 1
        with pytest.raises(WeightsError, match="remedy: pip install gguf"):
            reader.tensor("w")


def test_metadata_is_text(serializer, write):
    def pairs(writer):
        writer.add_uint8("a.u8", 255)
        writer.add_int64("a.i64", -(1 << 63))
        writer.add_uint64("a.u64", (1 << 64) - 1)
        writer.add_float32("a.f32", 0.1)
        writer.add_float32("a.max", 3.4028234663852886e38)
        writer.add_float32("a.nan", float("nan"))
        writer.add_bool("a.yes", True)
        writer.add_string("a.text", "größe\n")
        writer.add_array("a.short", [True, False])
        writer.add_array("a.words", ["x", "ö"])
        writer.add_array("a.long", list(range(1025)))
        writer.add_array("a.fits", list(range(1024)))

    with serializer.open(write({}, pairs)) as reader:
        found = dict(reader.metadata)
        assert list(reader) == []
    assert found == {
        "general.architecture": "llama",
        "a.u8": "255",
        "a.i64": "-9223372036854775808",
        "a.u64": "18446744073709551615",
        "a.f32": "0.1",
        "a.max": "3.4028234663852886e+38",
        "a.nan": "NaN",
        "a.yes": "true",
        "a.text": "größe\n",
        "a.short": "[true, false]",
        "a.words": '["x", "ö"]',
        "a.long": '{"array": "int32", "length": 1025, "first": [0, 1, 2, 3, 4, 5, 6, 7]}',
        "a.fits": str(list(range(1024))),
    }


@pytest.mark.parametrize("window", [16, 100, 1 << 20])
def test_a_vocabulary_is_passed_over_whatever_the_window(serializer, write, monkeypatch, window):
    monkeypatch.setattr(cursor, "_WINDOW", window)
    tokens = ["x" * (i % 50) for i in range(20_000)]
    path = write({"w": np.ones(3, np.float32)}, lambda writer: writer.add_token_list(tokens))
    with serializer.open(path) as reader:
        assert '"length": 20000' in reader.metadata["tokenizer.ggml.tokens"]
        assert reader.tensor("w").sum() == 3


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_any_alignment_reads(serializer, write, alignment):
    arrays = {"a": np.arange(3, dtype=np.int8), "b": np.arange(5, dtype=np.float64)}
    path = write(arrays, lambda writer: writer.add_custom_alignment(alignment))
    with serializer.open(path) as reader:
        assert all(torch.equal(reader.tensor(n), torch.from_numpy(a)) for n, a in arrays.items())


def test_the_last_tensor_may_be_padded_or_not(serializer, write):
    path = write({"a": np.arange(3, dtype=np.float32)})
    data = path.read_bytes()
    assert len(data) % 32 == 0
    path.write_bytes(data[:-20])
    with serializer.open(path) as reader:
        assert reader.tensor("a").tolist() == [0, 1, 2]


def test_load_weights_gives_all_of_them(write):
    kind = gguf.GGMLQuantizationType.Q8_0
    raw, plain = noise(4, 34), np.arange(6, dtype=np.float16)
    path = write({"q": (raw, kind), "p": plain})
    for mode in ("map", "own"):
        loaded = hp.load_weights(path, mode=mode)
        assert bits(loaded["q"].numpy()) == bits(gguf.quants.dequantize(raw, kind))
        assert torch.equal(loaded["p"], torch.from_numpy(plain))


def test_a_remote_file_is_read_where_it_is(write):
    fsspec = pytest.importorskip("fsspec")
    kind = gguf.GGMLQuantizationType.Q4_0
    raw = noise(100, 18)
    path = write({"q": (raw, kind), "p": np.arange(6, dtype=np.float32)})
    fsspec.filesystem("memory").pipe_file("/r.gguf", path.read_bytes())
    with hp.open_weights("memory://r.gguf") as reader:
        rows = reader.slice("q", slice(3, 5))
        assert bits(rows.numpy()) == bits(gguf.quants.dequantize(raw[3:5], kind))
        assert reader.tensor("p").tolist() == [0, 1, 2, 3, 4, 5]


def test_saving_says_what_to_do_instead(serializer, tmp_path):
    with pytest.raises(WeightsError) as caught:
        serializer.save({"a": torch.ones(1)}, tmp_path / "a.gguf")
    assert "GGUF files are only read" in str(caught.value)
    assert "convert_hf_to_gguf.py" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_closed_reader_says_so(serializer, write):
    reader = serializer.open(write({"q": (noise(4, 34), gguf.GGMLQuantizationType.Q8_0)}))
    reader.close()
    reader.close()
    with pytest.raises(WeightsError, match="the reader is closed"):
        reader.tensor("q")
