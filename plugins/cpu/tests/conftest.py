"""Programs that every mode and precision must run, and how to compile and call them."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch.export import Dim, ExportedProgram

from hardpoint import Artifact, CompileOptions, Executable
from hardpoint_cpu import plugin


@dataclass
class Case:
    """A model, its example inputs, further inputs to try, and which sizes vary."""

    model: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    more: tuple[tuple[torch.Tensor, ...], ...] = ()
    dynamic: object = None

    def program(self) -> ExportedProgram:
        program = torch.export.export(
            self.model, self.inputs, dynamic_shapes=self.dynamic, strict=False
        )
        return program.run_decompositions({})

    def expected(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            result = self.model(*inputs)
        return result if isinstance(result, tuple) else (result,)

    def all_inputs(self) -> tuple[tuple[torch.Tensor, ...], ...]:
        return (self.inputs, *self.more)


class Fn(torch.nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.function(*inputs)


class Mlp(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 32)
        self.norm = torch.nn.LayerNorm(32)
        self.last = torch.nn.Linear(32, 4)

    def forward(self, x):
        return self.last(torch.nn.functional.gelu(self.norm(self.first(x))))


class ConvNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(8)
        self.last = torch.nn.Linear(8, 5)

    def forward(self, x):
        y = torch.nn.functional.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        return self.last(y.mean((2, 3)))


class Lstm(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(6, 12, batch_first=True)

    def forward(self, x):
        y, (h, c) = self.lstm(x)
        return y, h, c


class Tied(torch.nn.Module):
    """One matrix as embedding and as output layer, as language models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(20, 8)
        self.head = torch.nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.embed(ids))


class Attention(torch.nn.Module):
    """A row of the mask hides everything, by the least float32: NaN if it became -inf."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = torch.nn.Linear(16, 48)

    def forward(self, x, keep):
        q, k, v = self.qkv(x).chunk(3, -1)
        mask = torch.zeros(keep.shape).masked_fill(~keep, torch.finfo(torch.float32).min)
        mask = mask[:, None, :].expand(-1, x.shape[1], -1)
        by_hand = torch.softmax(q @ k.transpose(1, 2) / 4 + mask, -1) @ v
        fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return by_hand, fused


class Bert(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=64,
        )  # fmt: skip
        self.bert = BertModel(config)

    def forward(self, ids, mask):
        found = self.bert(input_ids=ids, attention_mask=mask)
        return found.last_hidden_state, found.pooler_output


def _choose(x):
    return torch.cond(x.sum() > 0, lambda y: y.sin() * 2, lambda y: y.cos() - 1, (x,))


def _item(x, n):
    size = n.item()
    torch._check(size >= 1)
    torch._check(size <= 5)
    return x.narrow(0, 0, size).sum(0), torch.arange(size)


def _several(x):
    values, indices = x.topk(2, dim=1)
    low, high = x.split([3, 5], 1)
    return values, indices, high.relu(), x > 0, low.mean()


def _bert_inputs(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, length // 2 :] = 0
    return torch.randint(0, 50, (batch, length)), mask


def _cases() -> dict[str, Callable[[], Case]]:
    batch = {0: Dim("batch", min=1, max=64)}
    free = {0: Dim("batch", max=64)}
    both = {0: Dim("batch", min=1, max=16), 1: Dim("length", min=2, max=64)}
    # A size whose symbol no input has alone, as where batch and sequence were made one before.
    rows = {0: 6 * Dim("batch", max=64)}
    keep = torch.tensor([[True, True, False], [False, False, False]])
    return {
        "mlp": lambda: Case(
            Mlp(), (torch.randn(4, 8),), ((torch.randn(1, 8),), (torch.randn(33, 8),)),
            {"x": batch},
        ),
        "conv": lambda: Case(
            ConvNet(), (torch.randn(2, 3, 8, 8),), ((torch.randn(40, 3, 8, 8),),), {"x": batch}
        ),
        "bert": lambda: Case(
            Bert(), _bert_inputs(2, 8), (_bert_inputs(1, 5), _bert_inputs(3, 40)),
            {"ids": both, "mask": both},
        ),
        "lstm": lambda: Case(Lstm(), (torch.randn(3, 7, 6),)),
        "attention": lambda: Case(Attention(), (torch.randn(2, 3, 16), keep)),
        "tied": lambda: Case(
            Tied(), (torch.randint(0, 20, (2, 5)),), ((torch.randint(0, 20, (4, 5)),),),
            {"ids": batch},
        ),
        "several results": lambda: Case(Fn(_several), (torch.randn(4, 8),)),
        "cond": lambda: Case(Fn(_choose), (torch.ones(3, 4),), ((-torch.ones(3, 4),),)),
        "item": lambda: Case(
            Fn(_item), (torch.randn(5, 4), torch.tensor(3)),
            ((torch.randn(5, 4), torch.tensor(5)),),
        ),
        "flattened": lambda: Case(
            Fn(lambda x, y: (x + y).softmax(1)), (torch.randn(12, 3), torch.randn(12, 3)),
            ((torch.randn(6, 3), torch.randn(6, 3)), (torch.randn(384, 3), torch.randn(384, 3))),
            {"inputs": (rows, rows)},
        ),
        "no elements": lambda: Case(
            Fn(lambda x: (x * 2 + 1, x.sum(0))), (torch.randn(4, 3),), ((torch.randn(0, 3),),),
            {"inputs": (free,)},
        ),
        "no dimensions": lambda: Case(Fn(lambda x: (x + 1, x > 0)), (torch.tensor(2.0),)),
        "whole numbers": lambda: Case(
            Fn(lambda x: (x // 3, x * 2**33, x.bool(), x / 2)), (torch.arange(-6, 6),)
        ),
        "passes through": lambda: Case(
            Fn(lambda x: (x, x.transpose(0, 1), x.new_tensor([1.0, 2.0]))), (torch.randn(2, 3),)
        ),
    }  # fmt: skip


def _together(names: list[str]) -> Case:
    """Several cases as one model, because each ahead-of-time compilation costs seconds."""
    cases = [_cases()[name]() for name in names]
    ends = [0]
    for case in cases:
        ends.append(ends[-1] + len(case.inputs))

    class Together(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(case.model for case in cases)

        def forward(self, *inputs):
            results = []
            for part, start, end in zip(self.parts, ends, ends[1:], strict=False):
                found = part(*inputs[start:end])
                results += found if isinstance(found, tuple) else [found]
            return tuple(results)

    return Case(Together(), tuple(x for case in cases for x in case.inputs))


def _made(*names: str) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = _cases()[names[0]]() if len(names) == 1 else _together(list(names))
        made.model.eval()
    return made


@pytest.fixture
def case() -> Callable[..., Case]:
    """A case by name (or several as one), the same weights and inputs every time."""
    return _made


@pytest.fixture
def export() -> Callable[..., ExportedProgram]:
    """A function and its example inputs as a program."""
    return lambda function, *inputs: Case(Fn(function), inputs).program()


@pytest.fixture
def backend():
    return plugin.hardpoint_backend_open({})


def _compiled(program: ExportedProgram, precision: str = "fp32", **options: object) -> Artifact:
    backend = plugin.hardpoint_backend_open({})
    asked = CompileOptions(precision=precision, backend=options)
    return through_bytes(backend.compile(program, backend.devices()[0], asked))


def _built(program: ExportedProgram, precision: str = "fp32", **options: object) -> Executable:
    backend = plugin.hardpoint_backend_open({})
    return backend.load(_compiled(program, precision, **options), backend.devices()[0])


@pytest.fixture
def build() -> Callable[..., Executable]:
    """Compile a program and load it again, through bytes as a package would."""
    return _built


@pytest.fixture(scope="module")
def mlp() -> Callable[[str], tuple[Case, Executable]]:
    """The case "mlp" and its executable in a mode, which a file's tests share: compilers are slow."""
    return functools.cache(lambda mode: (_made("mlp"), _built(_made("mlp").program(), mode=mode)))


@pytest.fixture(scope="session")
def compiled() -> Callable[..., Artifact]:
    """Compile a program; the artifact as it comes out of a package."""
    return _compiled


def through_bytes(artifact: Artifact) -> Artifact:
    """The artifact as it comes out of a package: views of files, mapped weights, JSON facts."""
    weights = {}
    for name, tensor in artifact.weights.items():
        held = io.BytesIO()
        torch.save(tensor.detach().clone(), held)
        weights[name] = torch.load(io.BytesIO(held.getvalue()), weights_only=True)
    return Artifact(
        format=artifact.format,
        files={name: memoryview(bytes(data)) for name, data in artifact.files.items()},
        weights=weights,
        metadata=json.loads(json.dumps(dict(artifact.metadata))),
    )
