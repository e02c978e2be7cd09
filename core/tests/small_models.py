"""Small modules, each with one habit of real models that makes cutting a graph hard."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple

import torch
import torch.nn.functional as F
from torch import nn

from models import Case, size

Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass
class Report:
    total: torch.Tensor
    parts: dict[str, torch.Tensor]
    note: str = "fine"
    extra: torch.Tensor | None = None


def module(forward, **state):
    """A module of one function; `state` holds its parameters, buffers and sub-modules."""

    class Small(nn.Module):
        pass

    def make():
        made = Small()
        for name, value in state.items():
            value = value() if callable(value) and not isinstance(value, nn.Module) else value
            if isinstance(value, (nn.Module, nn.Parameter)):
                setattr(made, name, value)
            else:
                made.register_buffer(name, value)
        return made

    Small.forward = forward
    Small.__name__ = Small.__qualname__ = forward.__name__
    return make


CASES: list[Case] = []


def case(inputs, dynamic=None, *, random=False, training=False, **state):
    """Register the decorated `forward` as a case."""

    def register(forward):
        CASES.append(
            Case(forward.__name__, module(forward, **state), inputs, dynamic, random, training)
        )  # fmt: skip
        return forward

    return register


def rows(i):
    return torch.randn(size(i), 4)


ROWS = {"x": {0: "rows"}}


def linear(inputs=4, outputs=4):
    return lambda: nn.Linear(inputs, outputs)


# -- writing in place ---------------------------------------------------------------------------


@case(rows, ROWS, lin=linear())
def in_place_on_a_view(self, x):
    y = self.lin(x)
    y.view(-1).mul_(2)
    y[:, 1:3].add_(1)
    return y.relu_() + y.t().contiguous().t()


@case(rows, ROWS, lin=linear(), count=lambda: torch.zeros((), dtype=torch.int64))
def counter(self, x):
    self.count += 1
    return self.lin(x) * self.count


@case(rows, ROWS, ring=lambda: torch.arange(6.0))
def ring_buffer(self, x):
    self.ring.copy_(torch.roll(self.ring, 1))
    self.ring[0] = x.mean()
    return x * self.ring[2], self.ring.sum()


@case(
    lambda i: (torch.randn(2, 3), torch.tensor([i % 5])),
    cache=lambda: torch.zeros(2, 5, 3),
)
def cache_with_index_copy(self, x, position):
    self.cache.index_copy_(1, position, x[:, None])
    return torch.softmax(self.cache @ x[:, :, None], 1)


@case(rows, ROWS, first=lambda: torch.zeros(4), second=lambda: torch.ones(4))
def two_buffers_swapped(self, x):
    kept = self.first.clone()
    self.first.copy_(self.second + x.mean(0))
    self.second.copy_(kept)
    return x + self.first - self.second


@case(rows, ROWS, first=lambda: torch.zeros(4), second=lambda: torch.ones(4))
def two_buffers_rebound(self, x):
    self.first, self.second = self.second, self.first
    return self.first + 0 * x.sum(), self.second


@case(rows, ROWS, state=lambda: torch.zeros(4))
def view_of_old_state_returned(self, x):
    old = self.state
    self.state = self.state + x.mean(0)
    return old[1:3], self.state[1:3]


@case(rows, ROWS)
def input_mutated(self, x):
    x.add_(1)
    y = x * 2
    x[:, 0].zero_()
    return y


@case(rows, ROWS)
def input_mutated_and_returned(self, x):
    x.mul_(3)
    return x, x + 1


@case(lambda i: (torch.randn(3), torch.randn(3)))
def two_inputs_swapped(self, x, y):
    kept = x.clone()
    x.copy_(y)
    y.copy_(kept)
    return x - y


# -- what comes out -----------------------------------------------------------------------------


@case(rows, ROWS, lin=linear())
def input_returned(self, x):
    return x, self.lin(x), x


@case(rows, ROWS, lin=linear(), shift=lambda: torch.ones(4), fixed=lambda: torch.arange(3))
def weights_returned(self, x):
    return self.lin.weight, self.shift, self.fixed + 1, self.lin(x) + self.shift


@case(rows, ROWS)
def constants_of_all_kinds_returned(self, x):
    return {"none": None, "int": 3, "bool": True, "text": "t", "float": 0.5, "x": x + 1}


@case(rows, ROWS)
def sizes_returned(self, x):
    return x.shape[0], x.shape[0] * 2 + 1, x.shape[1], x.sum(), x.shape[0] > 1


@case(rows, ROWS)
def same_tensor_twice(self, x):
    y = x.relu()
    return y, y, y.view(-1), (y,)


@case(rows, ROWS)
def views_returned(self, x):
    y = x * 2
    return y.t(), y[:, 1], y.reshape(-1, 2), y.unsqueeze(0).expand(3, -1, -1)


@case(rows, ROWS)
def nothing_computed(self, x):
    return x


@case(rows, ROWS)
def named_tuple_returned(self, x):
    return Pair(x + 1, Pair(x * 2, None))


@case(rows, ROWS)
def dataclass_returned(self, x):
    return Report(x.sum(), {"a": x + 1, "b": [x * 2, (x,)]})


@case(rows, ROWS)
def ordered_dict_returned(self, x):
    return OrderedDict(second=x * 2, first=x + 1)


# -- what goes in -------------------------------------------------------------------------------


def nested(i):
    n = size(i)
    return (
        {"a": torch.randn(n, 2), "b": [torch.randn(2), (torch.randn(2), None, 3)]},
        Pair(torch.randn(n, 2), torch.randn(2)),
        Report(torch.randn(2), {"p": torch.randn(n, 2)}),
    )


@case(nested, {"tree": {"a": {0: "n"}}, "pair": ({0: "n"}, None), "report": {"parts": {"p": {0: "n"}}}})  # fmt: skip
def nested_inputs(self, tree, pair, report):
    x = tree["a"] * tree["b"][0] + tree["b"][1][0] * tree["b"][1][2]
    left, right = pair
    return {
        "sum": x + left - right,
        "report": Report(report.total * 2, {"p": report.parts["p"] + x}),
    }


@case(lambda i: ((torch.randn(size(i), 4),), {"scale": torch.tensor(2.0), "flag": True}), ROWS)
def keyword_inputs(self, x, mask=None, *, scale, flag=False, mode="sum"):
    y = x * scale if flag else x
    return y.sum(0) if mode == "sum" and mask is None else y


@case(lambda i: (torch.randn(2), torch.randn(2), torch.randn(2)))
def any_number_of_inputs(self, *tensors):
    return sum(tensors[1:], tensors[0]) * len(tensors)


@case(lambda i: (), weight=lambda: nn.Parameter(torch.randn(3, 3)), step=lambda: torch.zeros(3))
def no_inputs(self):
    self.step.add_(1)
    return torch.linalg.matrix_norm(self.weight) + self.step


# -- shared weights -----------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.block = nn.Linear(6, 6)
        self.again = self.block
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.again(F.gelu(self.block(self.embed(ids))))
        return self.head(x)


CASES.append(Case("tied_weights", Tied, lambda i: torch.randint(11, (2, size(i))), {"ids": {1: "seq"}}))  # fmt: skip


# -- operators of several results, of lists, of control flow --------------------------------------


@case(lambda i: torch.randn(size(i), 6), ROWS)
def several_results(self, x):
    a, b, c = x.split(2, dim=1)
    d, e = x.chunk(2, dim=1)
    first, *_ = x.unbind(1)
    top, where = x.topk(2, dim=1)
    most, at = x.max(dim=1)
    values, order = torch.sort(x, dim=0)
    return a * b - c, d @ e.t(), first + most, top + where, at, values.gather(0, order)


@case(rows, ROWS)
def cond_on_data(self, x):
    return torch.cond(x.sum() > 0, lambda x: x.sin() + 1, lambda x: x.cos() - 1, (x,))


@case(rows, ROWS)
def cond_on_size(self, x):
    return torch.cond(x.shape[0] > 3, lambda x: x * 2, lambda x: x * 3, (x,))


@case(lambda i: (torch.tensor(i + 2), torch.randn(3)))
def while_loop(self, n, x):
    from torch._higher_order_ops.while_loop import while_loop as loop

    return loop(lambda n, x: n > 0, lambda n, x: (n - 1, x * 1.5 + 1), (n, x))


@case(lambda i: (torch.randn(size(i), 3), torch.randn(3)), {"xs": {0: "n"}})
def map_over_rows(self, xs, y):
    from torch._higher_order_ops.map import map as over

    return over(lambda x, y: (x * y).sum() + y, xs, y)


# -- sizes that only the data decides -------------------------------------------------------------


@case(lambda i: (torch.randn(6, 2), torch.tensor(i % 3 + 2)))
def item_as_size(self, x, n):
    k = n.item()
    torch._check(k >= 0)
    torch._check(k <= x.shape[0])
    return x[:k] * 2, torch.ones(k).sum() + k


@case(rows, ROWS)
def boolean_mask(self, x):
    kept = x[x > 0]
    return kept.sum(), kept * 2, torch.nonzero(x > 0).shape[0]


@case(lambda i: torch.randint(0, 5, (size(i),)), {"x": {0: "n"}})
def unique_values(self, x):
    values, counts = torch.unique(x, return_counts=True)
    return values * 2, counts


# -- sizes in arithmetic --------------------------------------------------------------------------


@case(rows, ROWS)
def size_arithmetic(self, x):
    n = x.shape[0]
    y = torch.cat([x, x], 0)
    return x / (n * 2) + n**2 - n // 2, y.view(n * 2, 2, -1).sum(1), torch.full((n + 1,), 2.0)


@case(lambda i: torch.randn(2, size(i), 4), {"x": {1: "seq"}}, lin=linear())
def mask_from_arange(self, x):
    n = x.shape[1]
    keep = torch.arange(n)[None] <= torch.arange(n)[:, None]
    return torch.where(keep, self.lin(x) @ x.mT, float("-inf")).softmax(-1)


@case(
    lambda i: (torch.randn(size(i), 2), torch.randn(size(i) + 3, 2)), {"x": {0: "n"}, "y": {0: "m"}}
)
def two_sizes(self, x, y):
    return torch.cat([x, y]), (x @ y.t()).flatten(), x.shape[0] + y.shape[0]


# -- layers -------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 5, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(10, 3, batch_first=True)

    def forward(self, x):
        y, (h, c) = self.lstm(x)
        z, last = self.gru(y)
        return {"z": z, "state": (h, c), "last": last}


class ConvNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return self.pool(F.relu(self.norm(self.conv(x)))).flatten(1)


class GroupedAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.kv, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x):
        b, n, _ = x.shape
        q = self.q(x).view(b, n, 4, 2).transpose(1, 2)
        k, v = self.kv(x).view(b, n, 2, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.norm(y.transpose(1, 2).reshape(b, n, 8) + x)


class Bags(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(10, 4, mode="mean")

    def forward(self, ids, offsets):
        return self.bag(ids, offsets)


def images(i):
    return torch.randn(size(i), 3, 6, 6)


CASES += [
    Case("recurrent", Recurrent, lambda i: torch.randn(2, 5, 4)),
    Case("conv_norm_eval", ConvNorm, images, {"x": {0: "batch"}}),
    Case("conv_norm_train", ConvNorm, images, {"x": {0: "batch"}}, training=True),
    Case("grouped_attention", GroupedAttention, lambda i: torch.randn(size(i), size(i, 4), 8), {"x": {0: "batch", 1: "seq"}}),
    Case("embedding_bag", Bags, lambda i: (torch.randint(10, (8,)), torch.tensor([0, 3, 5]))),
]  # fmt: skip


@case(rows, ROWS, random=True, training=True, lin=linear(), drop=lambda: nn.Dropout(0.4))
def dropout_in_training(self, x):
    return self.drop(self.lin(x)) + self.drop(x)


@case(rows, ROWS, random=True)
def random_numbers(self, x):
    return x + torch.rand_like(x), torch.randn(2, x.shape[0]), torch.bernoulli(x.sigmoid()), torch.randint(9, (2,))  # fmt: skip


# -- kinds of tensor ------------------------------------------------------------------------------


@case(lambda i: (torch.randint(9, (3,)), torch.tensor([True, False, True]), torch.randn(3, dtype=torch.complex64), torch.randn(3).bfloat16(), torch.randn(3).double(), torch.randint(9, (3,), dtype=torch.uint8)))  # fmt: skip
def many_dtypes(self, i, b, c, h, d, u):
    return i // 2 + b, c * c.conj(), torch.view_as_real(c), h * h, d.sin() + h, u & 3, ~b, i.to(torch.int8)  # fmt: skip


@case(lambda i: (torch.randn(0, 3), torch.tensor(2.0), torch.randn(2, 3)))
def empty_and_scalar_tensors(self, none, number, x):
    return none.sum(), torch.cat([none, x]) * number, none @ x.t(), number.view(1)


@case(rows, ROWS, huge=lambda: torch.arange(200_000.0).view(-1, 4))
def huge_constant(self, x):
    return x + self.huge.sum(0) / 1e6, self.huge[:2] * 2


@case(rows, ROWS)
def expanded(self, x):
    y = x.sum(0, keepdim=True).expand(3, 4)
    return y + 1, y.t() * 2, x[None].expand(2, -1, -1).reshape(-1, 4)


@case(rows, ROWS)
def as_strided(self, x):
    y = (x + 1).t()
    return torch.as_strided(y, (3, 2), (1, 5)) * 2


@case(lambda i: torch.randn(4, 6).t() if i == 1 else torch.randn(6, 4))
def any_layout(self, x):
    return x.reshape(-1) * 2, x.t().contiguous().view(-1), x.view(2, 3, 4).flatten(1) if x.is_contiguous() else x.reshape(2, 12)  # fmt: skip


@case(images, {"x": {0: "batch"}}, conv=lambda: nn.Conv2d(3, 4, 3))
def channels_last(self, x):
    y = self.conv(x.contiguous(memory_format=torch.channels_last))
    return y.permute(0, 2, 3, 1).flatten(1), y


@case(rows, ROWS, lin=linear())
def mixed_precision(self, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = self.lin(x)
    return y.float() + x
