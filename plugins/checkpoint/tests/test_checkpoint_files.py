"""Files that ``torch.save`` writes, read bit for bit as ``torch.load`` reads them."""

import collections
import ctypes
import json
import struct
import zipfile

import pytest
import torch
from checkpoint_forge import DATA, checkpoint, dictionary, members, pickled, tensor, zipped

import hardpoint as hp
from hardpoint import WeightsError
from hardpoint_checkpoint.directory import read_directory
from hardpoint_checkpoint.standins import DTYPES

FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
# PyTorch's old format cannot name storages of these: it writes them, and cannot load them.
NEW_ONLY = {name for name in DTYPES if name.startswith(("float8", "float4", "uint", "complex32"))}


def bits(tensor):
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    raw = ctypes.string_at(plain.data_ptr(), plain.nbytes) if plain.numel() else b""
    return tensor.dtype, tuple(tensor.shape), raw


def flat(value, prefix=""):
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        if isinstance(inner, torch.Tensor):
            yield f"{prefix}{key}", inner
        elif isinstance(inner, dict | list | tuple):
            yield from flat(inner, f"{prefix}{key}.")


def save(state, path, new):
    torch.save(state, path, _use_new_zipfile_serialization=new)
    return path


def check(serializer, path):
    """All tensors, whole and in part, equal torch.load's; the metadata is given."""
    expected = dict(flat(torch.load(path, weights_only=False)))
    with serializer.open(path) as reader:
        assert list(reader) == list(expected)
        for name, value in expected.items():
            found = reader.tensor(name)
            assert bits(found) == bits(value), name
            if value.numel() and not (value.is_conj() or value.is_neg()):
                assert found.stride() == value.stride(), name
            if value.dim() > 1:
                assert bits(reader.slice(name, (slice(1, None, 2), 0))) == bits(value[1::2, 0])
        owned = hp.load_weights(path, mode="own", format="checkpoint")
        assert {name: bits(t) for name, t in owned.items()} == {
            name: bits(t) for name, t in expected.items()
        }
        return dict(reader.metadata)


def views():
    base = torch.arange(48.0).reshape(6, 8)
    pairs = torch.view_as_complex(torch.randn(4, 3, 2))
    return {
        "base": base, "transposed": base.t(), "rows": base[1:3], "column": base[:, 2],
        "steps": base[::2, 1::3], "diagonal": base.diagonal(), "expanded": base[:1].expand(5, 8),
        "scalar": torch.tensor(2.5), "empty": torch.empty(0, 3), "empty.within": base[:0],
        "conj": pairs.conj(), "neg": pairs.conj().imag, "real": pairs.real,
        "parameter": torch.nn.Parameter(torch.randn(3)), "channels": torch.randn(2, 3, 4, 5).to(
            memory_format=torch.channels_last),
    }  # fmt: skip


@FORMATS
def test_every_dtype_comes_back_bit_for_bit(new, tmp_path, serializer):
    state = {}
    for name in sorted(DTYPES.keys() - (set() if new else NEW_ONLY)):
        raw = torch.arange(256, dtype=torch.uint8)
        state[name] = (raw % 2).bool() if name == "bool" else raw.view(getattr(torch, name))
        if name != "float4_e2m1fn_x2":  # PyTorch cannot reshape it
            state[f"{name}.2d"] = state[name].reshape(4, -1)
    check(serializer, save(state, tmp_path / "dtypes.pt", new))


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_of_all_kinds_come_back_bit_for_bit(new, protocol, tmp_path, serializer):
    path = tmp_path / "views.pt"
    state = views()
    # "The same data as different types" cannot be saved together.
    for part in (state.pop("neg"), state.pop("real")):
        torch.save([part], path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
        check(serializer, path)
    torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    check(serializer, path)


@FORMATS
def test_tensors_that_share_memory_share_it_here(new, tmp_path, serializer):
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "tied": base, "t": base.t(), "row": base[1]}
    with serializer.open(save(state, tmp_path / "tied.pt", new)) as reader:
        found = {name: reader.tensor(name) for name in reader}
    found["a"].fill_(7)
    assert all((tensor == 7).all() for tensor in found.values())
    assert found["tied"].data_ptr() == found["a"].data_ptr() == found["t"].data_ptr()
    with serializer.open(tmp_path / "tied.pt") as reader:
        assert reader.tensor("row").tolist() == [4, 5, 6, 7]  # the file never noticed


def test_a_zip_is_mapped_and_each_plain_tensor_has_its_place(tmp_path, serializer):
    base = torch.arange(12.0).reshape(3, 4)
    path = save({"a": base, "t": base.t()}, tmp_path / "m.pt", True)
    with serializer.open(path) as reader:
        info = reader["a"]
        assert path.read_bytes()[info.offset : info.offset + info.nbytes] == bits(base)[2]
        assert reader["t"].offset is None
        assert reader.tensor("a").data_ptr() == reader.tensor("t").data_ptr()


@FORMATS
def test_a_training_checkpoint_is_flattened_and_the_rest_is_json(new, tmp_path, serializer):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    state = {
        "epoch": 3, "global_step": 7, "pytorch-lightning_version": "2.5.0",
        "state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [schedule.state_dict()], "loops": {"fit": {}, "none": None},
        "hyper_parameters": {"lr": float("nan"), "name": "größe", "size": torch.Size([1, 2]),
                             "dtype": torch.bfloat16, "device": torch.device("cuda", 1)},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": torch.tensor(0.5)}},
        "rng": [torch.get_rng_state(), (3, (1, 2), None), {1, 2}, b"ab", 1 << 80],
    }  # fmt: skip
    metadata = check(serializer, save(state, tmp_path / "epoch=3.ckpt", new))
    assert metadata["epoch"] == "3"
    assert metadata["loops.fit"] == "{}"
    assert metadata["loops.none"] == "null"
    assert json.loads(metadata["hyper_parameters.lr"]) == "nan"
    assert json.loads(metadata["hyper_parameters.name"]) == "größe"
    assert json.loads(metadata["hyper_parameters.size"]) == [1, 2]
    assert json.loads(metadata["hyper_parameters.dtype"]) == "torch.bfloat16"
    assert json.loads(metadata["hyper_parameters.device"]) == "cuda:1"
    assert json.loads(metadata["optimizer_states.0.param_groups"])[0]["lr"] == 1e-3
    assert json.loads(metadata["rng.1"]) == [3, [1, 2], None]
    assert sorted(json.loads(metadata["rng.2"])) == [1, 2]
    assert json.loads(metadata["rng.3"]) == b"ab".hex()
    assert json.loads(metadata["rng.4"]) == 1 << 80


@FORMATS
def test_a_real_model_is_loaded_into_one_of_its_kind(new, tmp_path, serializer):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=64, n_positions=16)
    model, other = GPT2LMHeadModel(config), GPT2LMHeadModel(config)
    path = save(model.state_dict(), tmp_path / "pytorch_model.bin", new)
    check(serializer, path)
    hp.load_weights(path, into=other)
    for name, value in model.state_dict().items():
        assert bits(other.state_dict()[name]) == bits(value)
    assert serializer.recognizes(tmp_path)  # the directory
    with serializer.open(tmp_path) as reader:
        # The two tied names are one memory, as in the model.
        one, two = reader.tensor("transformer.wte.weight"), reader.tensor("lm_head.weight")
        assert one.data_ptr() == two.data_ptr()


def test_tensors_with_attributes_and_parameters_with_state(tmp_path, serializer):
    plain, parameter = torch.randn(3), torch.nn.Parameter(torch.randn(2))
    plain.note = parameter.note = "attributes are Python's, and left out"
    check(serializer, save({"a": plain, "b": parameter}, tmp_path / "a.pt", True))


@pytest.mark.parametrize(
    ("value", "names", "metadata"),
    [
        (torch.ones(2), ["tensor"], {}),
        ([torch.ones(2), 3], ["0"], {"1": "3"}),
        (5, [], {"value": "5"}),
        ({}, [], {}),
        (torch.ones(2).untyped_storage(), ["tensor"], {}),
        (collections.defaultdict(list, {"a": [1]}), [], {"a": "[1]"}),
        (collections.Counter("aab"), [], {"a": "2", "b": "1"}),
        ({(1, 2): "x"}, [], {"": '[[[1, 2], "x"]]'}),
    ],
)
def test_what_is_no_dict_of_tensors_has_names_too(value, names, metadata, tmp_path, serializer):
    with serializer.open(save(value, tmp_path / "x.pt", True)) as reader:
        assert list(reader) == names
        assert dict(reader.metadata) == metadata


def test_an_unusual_alignment_reads_bit_for_bit(craft, serializer):
    """As when another tool wrote the archive: nothing is aligned, and everything is right."""
    base = dictionary(w=tensor(), t=tensor(stride=(1, 2)))
    path = craft(zipped(members(pickled(base), order=None)))
    with serializer.open(path) as reader:
        assert reader.tensor("w").tolist() == [[1, 2], [3, 4]]
        assert reader.tensor("t").tolist() == [[1, 3], [2, 4]]
        assert reader.tensor("t").data_ptr() == reader.tensor("w").data_ptr()
        assert reader.slice("t", 1).tolist() == [2, 4]
        with pytest.raises(WeightsError, match="has no slice 9"):
            reader.slice("t", 9)


def test_a_64_bit_archive_is_read(tmp_path, serializer):
    """As above 4 GiB: the directory's end, and a member's numbers, in 64 bits."""
    raw = checkpoint(
        dictionary(w=tensor()),
        central=lambda n, f: {
            "size": 0xFFFFFFFF, "packed": 0xFFFFFFFF, "at": 0xFFFFFFFF,
            "extra": struct.pack("<HHQQQ", 1, 24, f["size"], f["packed"], f["at"]),
        },
    )  # fmt: skip
    count, size, at = struct.unpack("<HII", raw[-12:-2])
    wide = struct.pack(
        "<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, at
    ) + struct.pack("<4sIQI", b"PK\x06\x07", 0, at + size, 1)
    narrow = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = tmp_path / "wide.pt"
    path.write_bytes(raw[:-22] + wide + narrow)
    with serializer.open(path) as reader:
        assert reader.tensor("w").tolist() == [[1, 2], [3, 4]]
    with zipfile.ZipFile(path) as archive:  # Python agrees that it is one
        assert archive.read("a/data/0") == DATA
    path.write_bytes(raw[:-22] + wide + narrow[:12] + b"\1\0\0\0" + narrow[16:])
    with pytest.raises(WeightsError, match="described twice, differently"):
        serializer.open(path)


def test_python_and_we_see_the_same_archive(tmp_path):
    from hardpoint.storage.source import LocalFile

    path = save({f"t{i}": torch.randn(i) for i in range(20)}, tmp_path / "m.pt", True)
    entries, at = read_directory(LocalFile(path))
    with zipfile.ZipFile(path) as archive:
        assert at == archive.start_dir
        assert [(e.name, e.size, e.at) for e in entries] == [
            (i.filename, i.file_size, i.header_offset) for i in archive.infolist()
        ]


def shards(folder):
    parts = {"pytorch_model-1.bin": {"a": torch.ones(2), "b": torch.ones(3).half()},
             "pytorch_model-2.bin": {"c": torch.arange(4)}}  # fmt: skip
    for shard, part in parts.items():
        torch.save(part, folder / shard)
    index = folder / "pytorch_model.bin.index.json"
    where = {name: shard for shard, part in parts.items() for name in part}
    index.write_text(json.dumps({"metadata": {"total_size": 46}, "weight_map": where}))
    return index, {name: value for part in parts.values() for name, value in part.items()}


def test_shards_open_as_one_each_when_first_needed(tmp_path, serializer):
    index, expected = shards(tmp_path)
    for path in (index, tmp_path):
        assert serializer.recognizes(path)
        with serializer.open(path) as reader:
            assert {name: bits(reader.tensor(name)) for name in reader} == {
                name: bits(value) for name, value in expected.items()
            }
            assert reader.metadata == {"total_size": "46"}
    (tmp_path / "pytorch_model-2.bin").unlink()
    with serializer.open(index) as reader:
        assert reader.tensor("a").sum() == 2
        with pytest.raises(WeightsError, match=r"pytorch_model-2\.bin: the file cannot be opened"):
            reader.tensor("c")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('{"weight_map": {"a": "../x.bin"}}', "right beside the index"),
        ('{"weight_map": {"a": "x.sh"}}', "no *.bin or *.pt or"),
        ('{"weight_map": {"a": "x.bin", "a": "y.bin"}}', "the key 'a' stands there twice"),
        ('{"weight_map": []}', "not an object"),
        ('{"weight_map": {}, "more": 1}', "it needs 'weight_map'"),
        ('{"weight_map": NaN}', "NaN is not JSON"),
        ('{"weight_map":' + "[" * 100_000, "nested too deeply"),
        ('{"weight_map"', "not JSON"),
    ],
)
def test_a_broken_index_is_refused(text, cause, tmp_path, serializer):
    path = tmp_path / "pytorch_model.bin.index.json"
    path.write_text(text)
    with pytest.raises(WeightsError) as caught:
        serializer.open(path)
    assert cause in caught.value.cause


def test_a_directory_with_safetensors_is_left_to_their_reader(tmp_path, serializer):
    save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin", True)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert not serializer.recognizes(tmp_path)
    with pytest.raises(WeightsError, match="holds no checkpoint of a model"):
        serializer.open(tmp_path)


@FORMATS
def test_a_file_behind_a_url_is_read_by_ranges(new, tmp_path, serializer):
    fsspec = pytest.importorskip("fsspec")
    from hardpoint.storage.remote import open_url

    base = torch.arange(60_000.0).reshape(200, 300)
    state = {"base": base, "t": base.t(), "other": torch.ones(5, dtype=torch.int64)}
    path = save(state, tmp_path / "m.pt", new)
    with fsspec.open("memory://m.pt", "wb") as file:
        file.write(path.read_bytes())
    source = open_url("memory://m.pt")
    assert serializer.recognizes_source(source)
    with serializer.open_source(source) as reader:
        for name, value in state.items():
            assert bits(reader.tensor(name)) == bits(value)
        assert bits(reader.slice("t", (slice(3, 5), 7))) == bits(base.t()[3:5, 7])
        one, two = reader.tensor("t"), reader.tensor("t")
        assert one.data_ptr() == two.data_ptr()


def test_torchscript_is_refused_for_what_it_is(tmp_path, serializer):
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:  # as torch.jit.save lays it out
        for member in ("data.pkl", "code/__torch__.py", "constants.pkl", "version"):
            archive.writestr(f"m/{member}", "3")
    with pytest.raises(WeightsError, match="TorchScript program"):
        serializer.open(path)


def test_another_device_gets_copies(tmp_path, serializer):
    path = save({"a": torch.ones(2, 2), "t": torch.ones(2, 3).t()}, tmp_path / "m.pt", True)
    with serializer.open(path, device="meta") as reader:
        assert reader.tensor("a").is_meta
        assert reader.tensor("t").is_meta
    with pytest.raises(WeightsError, match="for device 'gpu'"):
        serializer.open(path, device="gpu")
