"""Loading: as a mapping, or into a module that is filled whole or not at all."""

import json

import pytest
import torch

from hardpoint import ContractViolation, Registry, WeightsError
from hardpoint.weights import load_weights, save_weights
from text_weights import MAGIC, TextProvider, TextReader


@pytest.fixture
def registry():
    made = Registry(path=[])
    made.add("serializer", "text", TextProvider())
    return made


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.txt"


@pytest.fixture
def load(registry, path):
    """``load(tensors, ...)``: saves, then loads."""

    def run(tensors, **options):
        save_weights(tensors, path, registry=registry)
        return load_weights(path, registry=registry, **options)

    return run


def edit(path, change):
    top = json.loads(path.read_text().removeprefix(MAGIC))
    change(top["tensors"])
    path.write_text(MAGIC + json.dumps(top))


class Tied(torch.nn.Module):
    """One weight under two names, as the embeddings of a language model are."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(3, 2)
        self.head = torch.nn.Linear(2, 3, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("cache", torch.zeros(2), persistent=False)


ROWS = torch.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize("mode", ["map", "own"])
def test_all_tensors_come_by_name(load, registry, mode):
    loaded = load({"a": ROWS, "b": torch.tensor(1)}, mode=mode)
    assert list(loaded) == ["a", "b"]
    assert torch.equal(loaded["a"], ROWS)
    (reader,) = registry.open("serializer", "text").readers
    assert reader.closed


def test_own_memory_is_a_copy_and_mapped_memory_is_not(load, registry, path):
    load({"a": ROWS})
    shared = ROWS.clone()
    serializer = registry.open("serializer", "text")
    serializer.reading = lambda *args: Fixed(*args, shared)
    mapped = load_weights(path, registry=registry)["a"]
    own = load_weights(path, registry=registry, mode="own")["a"]
    assert mapped.data_ptr() == shared.data_ptr()
    assert own.data_ptr() != shared.data_ptr()
    shared.zero_()
    assert torch.equal(own, ROWS)


def Fixed(path, device, tensor):
    """A reader that answers with this tensor, whatever the file announces."""
    from text_weights import TextReader

    reader = TextReader(path, device)
    reader.tensor = lambda name: tensor
    return reader


def test_a_tensor_on_another_device_is_its_own_already(load):
    assert load({"a": ROWS}, mode="own", device="meta")["a"].is_meta


@pytest.mark.parametrize("into", [None, torch.nn.Linear(2, 3, bias=False)])
def test_a_reader_that_announces_one_thing_and_gives_another_breaks_the_contract(
    load, registry, path, into
):
    load({"weight": ROWS})
    serializer = registry.open("serializer", "text")
    serializer.reading = lambda *args: Fixed(*args, torch.zeros(2, dtype=torch.int8))
    with pytest.raises(ContractViolation) as caught:
        load_weights(path, registry=registry, into=into)
    assert str(caught.value) == (
        f"tensor weight of {path} is not what its reader announced\n"
        "  provider: serializer:text (from this process)\n"
        "  cause: announced float32[3, 2], got int8[2]\n"
        "  remedy: report it to the plugin's authors"
    )


def test_an_unknown_mode_is_an_error(load):
    with pytest.raises(WeightsError, match="did you mean 'map'"):
        load({"a": ROWS}, mode="mapp")


def test_a_module_is_filled_in_place_and_its_tensors_returned(load):
    module = Tied()
    before = module.embed.weight
    filled = load(
        {"embed.weight": ROWS, "head.weight": ROWS, "steps": torch.tensor(7)}, into=module
    )
    assert module.embed.weight is before
    assert module.head.weight is before
    assert before.requires_grad
    assert torch.equal(before, ROWS)
    assert module.steps == 7
    assert filled["head.weight"] is before
    assert list(filled) == list(module.state_dict())


def test_a_tied_weight_may_be_stored_once_under_either_name(load):
    for name in ("embed.weight", "head.weight"):
        module = Tied()
        filled = load({name: ROWS, "steps": torch.tensor(7)}, into=module)
        assert torch.equal(module.head.weight, ROWS)
        assert set(filled) == {"embed.weight", "head.weight", "steps"}


def test_a_tied_weight_stored_with_two_values_is_refused(load):
    module = Tied()
    before = module.embed.weight.clone()
    with pytest.raises(WeightsError) as caught:
        load({"embed.weight": ROWS, "head.weight": ROWS + 1, "steps": torch.tensor(7)}, into=module)
    assert caught.value.cause == (
        "embed.weight and head.weight are one tensor in the module, and differ in the file"
    )
    assert torch.equal(module.embed.weight, before)


def test_a_tied_weight_of_one_element_is_compared_whatever_its_stride(tmp_path):
    class Strided(TextReader):
        def tensor(self, name):
            return torch.tensor([super().tensor(name)[0], 0.0])[::2]

    class Pair(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = self.b = torch.nn.Parameter(torch.zeros(1))

    provider, registry, path = TextProvider(), Registry(path=[]), tmp_path / "one.txt"
    provider.serializer.reading = Strided
    registry.add("serializer", "text", provider)
    for value, fits in ((5.0, True), (6.0, False)):
        stored = {"a": torch.tensor([5.0]), "b": torch.tensor([value])}
        save_weights(stored, path, registry=registry)
        module = Pair()
        if fits:
            load_weights(path, registry=registry, into=module)
            assert module.a.item() == 5.0
        else:
            with pytest.raises(WeightsError, match="differ in the file"):
                load_weights(path, registry=registry, into=module)


def test_a_file_damaged_at_its_last_tensor_leaves_the_module_alone(load, registry, path):
    tensors = {"embed.weight": ROWS, "steps": torch.tensor(7)}
    load(tensors)
    edit(path, lambda stored: stored["steps"].update(damaged=True))
    module = Tied()
    before = module.embed.weight.clone()
    with pytest.raises(WeightsError, match="steps is damaged"):
        load_weights(path, registry=registry, into=module)
    assert torch.equal(module.embed.weight, before)


def linear(**options):
    return torch.nn.Linear(2, 3, **options)


def with_expanded_buffer():
    module = linear(bias=False)
    module.register_buffer("wide", torch.zeros(1).expand(4))
    return module


def with_inference_buffer():
    module = linear(bias=False)
    with torch.inference_mode():
        made = torch.zeros(4)
    module.register_buffer("wide", made)
    return module


class Renames(torch.nn.Linear):
    """Its ``state_dict()`` gives a transposed copy: filling that would be lost."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[f"{prefix}weight"] = self.weight.detach().t().contiguous().t()


class Stateful(torch.nn.Linear):
    def get_extra_state(self):
        return {"seen": 1}


GOOD = {"weight": ROWS, "bias": torch.zeros(3)}


@pytest.mark.parametrize(
    ("module", "tensors", "cause", "remedy"),
    [
        (linear(), {"weight": ROWS}, "missing: bias", "strict=False"),
        (linear(bias=False), GOOD, "not in the module: bias", "strict=False"),
        (linear(), {"weight": ROWS.T, "bias": torch.zeros(4)}, "weight is float32[2, 3] in the file, float32[3, 2] in the module; bias is float32[4] in the file, float32[3] in the module", "right checkpoint"),
        (linear(dtype=torch.float64), GOOD, "weight is float32[3, 2] in the file, float64[3, 2] in the module", "convert the module"),
        (linear(device="meta"), GOOD, "weight is on the meta device", "assign=True"),
        (with_expanded_buffer(), {"weight": ROWS, "wide": torch.zeros(4)}, "wide is expanded", "right checkpoint"),
        (with_inference_buffer(), {"weight": ROWS, "wide": torch.zeros(4)}, "wide was made in inference mode", "right checkpoint"),
        (Renames(2, 3, bias=False), {"weight": ROWS}, "state_dict() gives a copy of weight", "load_state_dict"),
        (Stateful(2, 3, bias=False), {"weight": ROWS}, "missing: _extra_state", "strict=False"),
    ],
)  # fmt: skip
def test_a_module_that_does_not_fit_is_left_alone(load, module, tensors, cause, remedy):
    before = {name: tensor.clone() for name, tensor in module.named_parameters()}
    with pytest.raises(WeightsError) as caught:
        load(tensors, into=module)
    assert f"does not fit {type(module).__name__}" in caught.value.what
    assert cause in caught.value.cause
    assert remedy in caught.value.remedy
    for name, tensor in module.named_parameters():
        assert tensor.is_meta or torch.equal(tensor, before[name])


def test_a_lazy_module_must_run_once_first(load):
    with pytest.raises(WeightsError, match="LazyLinear cannot be filled yet") as caught:
        load(GOOD, into=torch.nn.LazyLinear(3))
    assert caught.value.cause == "without shape: bias, weight"


def test_a_long_list_of_names_is_cut(load):
    with pytest.raises(WeightsError) as caught:
        load({f"x{i}": ROWS for i in range(9)} | GOOD, into=linear())
    assert caught.value.cause == "not in the module: x0, x1, x2, x3 and 5 more"


def test_a_hostile_name_is_never_printed_as_it_is(load):
    with pytest.raises(WeightsError) as caught:
        load(GOOD | {"\x1b[2J": ROWS}, into=linear())
    assert caught.value.cause == "not in the module: '\\x1b[2J'"


def test_without_strict_only_the_shared_names_are_filled(load):
    module = Stateful(2, 3)
    filled = load({"weight": ROWS, "more": ROWS}, into=module, strict=False)
    assert list(filled) == ["weight"]
    assert torch.equal(module.weight, ROWS)


def test_empty_tensors_are_no_obstacle(load):
    module = torch.nn.Module()
    module.register_buffer("a", torch.empty(0, 2))
    module.register_buffer("b", torch.empty(0, 2))
    assert set(load({"a": torch.empty(0, 2), "b": torch.empty(0, 2)}, into=module)) == {"a", "b"}
