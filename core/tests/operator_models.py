"""Small modules of operators that make cutting a graph hard: control flow, sizes, dtypes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models import ROWS, Case, case, images, linear, rows, size

CASES: list[Case] = []

# -- operators of several results, of lists, of control flow --------------------------------------


@case(CASES, lambda i: torch.randn(size(i), 6), ROWS)
def several_results(self, x):
    a, b, c = x.split(2, dim=1)
    d, e = x.chunk(2, dim=1)
    first, *_ = x.unbind(1)
    top, where = x.topk(2, dim=1)
    most, at = x.max(dim=1)
    values, order = torch.sort(x, dim=0)
    return a * b - c, d @ e.t(), first + most, top + where, at, values.gather(0, order)


@case(CASES, rows, ROWS)
def cond_on_data(self, x):
    return torch.cond(x.sum() > 0, lambda x: x.sin() + 1, lambda x: x.cos() - 1, (x,))


@case(CASES, rows, ROWS)
def cond_on_size(self, x):
    return torch.cond(x.shape[0] > 3, lambda x: x * 2, lambda x: x * 3, (x,))


@case(CASES, lambda i: (torch.tensor(i + 2), torch.randn(3)))
def while_loop(self, n, x):
    from torch._higher_order_ops.while_loop import while_loop as loop

    return loop(lambda n, x: n > 0, lambda n, x: (n - 1, x * 1.5 + 1), (n, x))


@case(CASES, lambda i: (torch.randn(size(i), 3), torch.randn(3)), {"xs": {0: "n"}})
def map_over_rows(self, xs, y):
    from torch._higher_order_ops.map import map as over

    return over(lambda x, y: (x * y).sum() + y, xs, y)


# -- sizes that only the data decides -------------------------------------------------------------


@case(CASES, lambda i: (torch.randn(6, 2), torch.tensor(i % 3 + 2)))
def item_as_size(self, x, n):
    k = n.item()
    torch._check(k >= 0)
    torch._check(k <= x.shape[0])
    return x[:k] * 2, torch.ones(k).sum() + k


@case(CASES, rows, ROWS)
def boolean_mask(self, x):
    kept = x[x > 0]
    return kept.sum(), kept * 2, torch.nonzero(x > 0).shape[0]


@case(CASES, lambda i: torch.randint(0, 5, (size(i),)), {"x": {0: "n"}})
def unique_values(self, x):
    values, counts = torch.unique(x, return_counts=True)
    return values * 2, counts


# -- sizes in arithmetic --------------------------------------------------------------------------


@case(CASES, rows, ROWS)
def size_arithmetic(self, x):
    n = x.shape[0]
    y = torch.cat([x, x], 0)
    return x / (n * 2) + n**2 - n // 2, y.view(n * 2, 2, -1).sum(1), torch.full((n + 1,), 2.0)


@case(CASES, lambda i: torch.randn(2, size(i), 4), {"x": {1: "seq"}}, lin=linear())
def mask_from_arange(self, x):
    n = x.shape[1]
    keep = torch.arange(n)[None] <= torch.arange(n)[:, None]
    return torch.where(keep, self.lin(x) @ x.mT, float("-inf")).softmax(-1)


@case(
    CASES,
    lambda i: (torch.randn(size(i), 2), torch.randn(size(i) + 3, 2)),
    {"x": {0: "n"}, "y": {0: "m"}},
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


CASES += [
    Case("recurrent", Recurrent, lambda i: torch.randn(2, 5, 4)),
    Case("conv_norm_eval", ConvNorm, images, {"x": {0: "batch"}}),
    Case("conv_norm_train", ConvNorm, images, {"x": {0: "batch"}}, training=True),
    Case("grouped_attention", GroupedAttention, lambda i: torch.randn(size(i), size(i, 4), 8), {"x": {0: "batch", 1: "seq"}}),
    Case("embedding_bag", Bags, lambda i: (torch.randint(10, (8,)), torch.tensor([0, 3, 5]))),
]  # fmt: skip


@case(CASES, rows, ROWS, random=True, training=True, lin=linear(), drop=lambda: nn.Dropout(0.4))
def dropout_in_training(self, x):
    return self.drop(self.lin(x)) + self.drop(x)


@case(CASES, rows, ROWS, random=True)
def random_numbers(self, x):
    return x + torch.rand_like(x), torch.randn(2, x.shape[0]), torch.bernoulli(x.sigmoid()), torch.randint(9, (2,))  # fmt: skip


# -- kinds of tensor ------------------------------------------------------------------------------


@case(CASES, lambda i: (torch.randint(9, (3,)), torch.tensor([True, False, True]), torch.randn(3, dtype=torch.complex64), torch.randn(3).bfloat16(), torch.randn(3).double(), torch.randint(9, (3,), dtype=torch.uint8)))  # fmt: skip
def many_dtypes(self, i, b, c, h, d, u):
    return i // 2 + b, c * c.conj(), torch.view_as_real(c), h * h, d.sin() + h, u & 3, ~b, i.to(torch.int8)  # fmt: skip


@case(CASES, lambda i: (torch.randn(0, 3), torch.tensor(2.0), torch.randn(2, 3)))
def empty_and_scalar_tensors(self, none, number, x):
    return none.sum(), torch.cat([none, x]) * number, none @ x.t(), number.view(1)


@case(CASES, rows, ROWS, huge=lambda: torch.arange(200_000.0).view(-1, 4))
def huge_constant(self, x):
    return x + self.huge.sum(0) / 1e6, self.huge[:2] * 2


@case(CASES, rows, ROWS)
def expanded(self, x):
    y = x.sum(0, keepdim=True).expand(3, 4)
    return y + 1, y.t() * 2, x[None].expand(2, -1, -1).reshape(-1, 4)


@case(CASES, rows, ROWS)
def as_strided(self, x):
    y = (x + 1).t()
    return torch.as_strided(y, (3, 2), (1, 5)) * 2


@case(CASES, lambda i: torch.randn(4, 6).t() if i == 1 else torch.randn(6, 4))
def any_layout(self, x):
    return x.reshape(-1) * 2, x.t().contiguous().view(-1), x.view(2, 3, 4).flatten(1) if x.is_contiguous() else x.reshape(2, 12)  # fmt: skip


@case(CASES, images, {"x": {0: "batch"}}, conv=lambda: nn.Conv2d(3, 4, 3))
def channels_last(self, x):
    y = self.conv(x.contiguous(memory_format=torch.channels_last))
    return y.permute(0, 2, 3, 1).flatten(1), y


@case(CASES, rows, ROWS, lin=linear())
def mixed_precision(self, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = self.lin(x)
    return y.float() + x
