"""Small modules that write in place, keep state, and take and give nested values."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple

import torch
import torch.nn.functional as F
from torch import nn

from models import ROWS, Case, case, linear, rows, size

CASES: list[Case] = []
Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass
class Report:
    total: torch.Tensor
    parts: dict[str, torch.Tensor]
    note: str = "fine"
    extra: torch.Tensor | None = None


# -- writing in place ---------------------------------------------------------------------------


@case(CASES, rows, ROWS, lin=linear())
def in_place_on_a_view(self, x):
    y = self.lin(x)
    y.view(-1).mul_(2)
    y[:, 1:3].add_(1)
    return y.relu_() + y.t().contiguous().t()


@case(CASES, rows, ROWS, lin=linear(), count=lambda: torch.zeros((), dtype=torch.int64))
def counter(self, x):
    self.count += 1
    return self.lin(x) * self.count


@case(CASES, rows, ROWS, ring=lambda: torch.arange(6.0))
def ring_buffer(self, x):
    self.ring.copy_(torch.roll(self.ring, 1))
    self.ring[0] = x.mean()
    return x * self.ring[2], self.ring.sum()


@case(
    CASES,
    lambda i: (torch.randn(2, 3), torch.tensor([i % 5])),
    cache=lambda: torch.zeros(2, 5, 3),
)
def cache_with_index_copy(self, x, position):
    self.cache.index_copy_(1, position, x[:, None])
    return torch.softmax(self.cache @ x[:, :, None], 1)


@case(CASES, rows, ROWS, first=lambda: torch.zeros(4), second=lambda: torch.ones(4))
def two_buffers_swapped(self, x):
    kept = self.first.clone()
    self.first.copy_(self.second + x.mean(0))
    self.second.copy_(kept)
    return x + self.first - self.second


@case(CASES, rows, ROWS, first=lambda: torch.zeros(4), second=lambda: torch.ones(4))
def two_buffers_rebound(self, x):
    self.first, self.second = self.second, self.first
    return self.first + 0 * x.sum(), self.second


@case(CASES, rows, ROWS, state=lambda: torch.zeros(4))
def view_of_old_state_returned(self, x):
    old = self.state
    self.state = self.state + x.mean(0)
    return old[1:3], self.state[1:3]


@case(CASES, rows, ROWS)
def input_mutated(self, x):
    x.add_(1)
    y = x * 2
    x[:, 0].zero_()
    return y


@case(CASES, rows, ROWS)
def input_mutated_and_returned(self, x):
    x.mul_(3)
    return x, x + 1


@case(CASES, lambda i: (torch.randn(3), torch.randn(3)))
def two_inputs_swapped(self, x, y):
    kept = x.clone()
    x.copy_(y)
    y.copy_(kept)
    return x - y


# -- what comes out -----------------------------------------------------------------------------


@case(CASES, rows, ROWS, lin=linear())
def input_returned(self, x):
    return x, self.lin(x), x


@case(CASES, rows, ROWS, lin=linear(), shift=lambda: torch.ones(4), fixed=lambda: torch.arange(3))
def weights_returned(self, x):
    return self.lin.weight, self.shift, self.fixed + 1, self.lin(x) + self.shift


@case(CASES, rows, ROWS)
def constants_of_all_kinds_returned(self, x):
    return {"none": None, "int": 3, "bool": True, "text": "t", "float": 0.5, "x": x + 1}


@case(CASES, rows, ROWS)
def sizes_returned(self, x):
    return x.shape[0], x.shape[0] * 2 + 1, x.shape[1], x.sum(), x.shape[0] > 1


@case(CASES, rows, ROWS)
def same_tensor_twice(self, x):
    y = x.relu()
    return y, y, y.view(-1), (y,)


@case(CASES, rows, ROWS)
def views_returned(self, x):
    y = x * 2
    return y.t(), y[:, 1], y.reshape(-1, 2), y.unsqueeze(0).expand(3, -1, -1)


@case(CASES, rows, ROWS)
def nothing_computed(self, x):
    return x


@case(CASES, rows, ROWS)
def named_tuple_returned(self, x):
    return Pair(x + 1, Pair(x * 2, None))


@case(CASES, rows, ROWS)
def dataclass_returned(self, x):
    return Report(x.sum(), {"a": x + 1, "b": [x * 2, (x,)]})


@case(CASES, rows, ROWS)
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


@case(CASES, nested, {"tree": {"a": {0: "n"}}, "pair": ({0: "n"}, None), "report": {"parts": {"p": {0: "n"}}}})  # fmt: skip
def nested_inputs(self, tree, pair, report):
    x = tree["a"] * tree["b"][0] + tree["b"][1][0] * tree["b"][1][2]
    left, right = pair
    return {
        "sum": x + left - right,
        "report": Report(report.total * 2, {"p": report.parts["p"] + x}),
    }


@case(
    CASES, lambda i: ((torch.randn(size(i), 4),), {"scale": torch.tensor(2.0), "flag": True}), ROWS
)
def keyword_inputs(self, x, mask=None, *, scale, flag=False, mode="sum"):
    y = x * scale if flag else x
    return y.sum(0) if mode == "sum" and mask is None else y


@case(CASES, lambda i: (torch.randn(2), torch.randn(2), torch.randn(2)))
def any_number_of_inputs(self, *tensors):
    return sum(tensors[1:], tensors[0]) * len(tensors)


@case(
    CASES, lambda i: (), weight=lambda: nn.Parameter(torch.randn(3, 3)), step=lambda: torch.zeros(3)
)
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
