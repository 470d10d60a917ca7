"""Steps of small random networks, (N, 8) in and out: noise of many kinds, and ways to carry a tensor on."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Step = Callable[["Net", Tensor], Tensor]
NOISE: dict[str, Step] = {}
CARRY: dict[str, Step] = {}
ASIDE: dict[str, Step] = {}
"""Noise that goes nowhere: what comes in goes out."""
WIDTH = 8


def to(table: dict[str, Step]) -> Callable[[Step], Step]:
    def register(step: Step) -> Step:
        table[step.__name__] = step
        return step

    return register


class Net(nn.Module):
    """The steps one after the other; `norm` is a batch norm, and there is one at the end."""

    def __init__(self, steps: list[str]) -> None:
        super().__init__()
        self.steps = steps
        self.fc = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in steps)
        self.bns = nn.ModuleList(nn.BatchNorm1d(WIDTH) for name in (*steps, "norm") if name == "norm")
        self.drop, self.lstm = nn.Dropout(0.5), nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.register_buffer("memory", torch.zeros(16, WIDTH), persistent=False)
        self.table = torch.eye(WIDTH)
        self.here = 0

    def forward(self, x: Tensor) -> Tensor:
        norms = iter(self.bns)
        for place, name in enumerate(self.steps):
            self.here = place
            if name == "norm":
                x = next(norms)(x)
            elif name in NOISE:
                x = NOISE[name](self, x) if self.training else x
            else:
                x = (CARRY.get(name) or ASIDE[name])(self, x)
        return next(norms)(x)


# -- noise ---------------------------------------------------------------------------------------------------


@to(NOISE)
def dropout_module(net, x):
    return net.drop(x)


@to(NOISE)
def dropout_function(net, x):
    return F.dropout(x, 0.3)


@to(NOISE)
def dropout_in_place(net, x):
    x = x.clone()
    F.dropout(x, 0.3, inplace=True)
    return x


@to(NOISE)
def native_dropout(net, x):
    return torch.native_dropout(x, 0.4, True)[0]


@to(NOISE)
def bernoulli_mask(net, x):
    return x * torch.bernoulli(torch.full_like(x, 0.5)) / 0.5


@to(NOISE)
def uniform_mask(net, x):
    return x * (torch.rand_like(x) > 0.5).float() * 2


@to(NOISE)
def mask_without_a_scale(net, x):
    return x.masked_fill(torch.rand(x.shape) < 0.3, 0.0)


@to(NOISE)
def rows_set_to_zero(net, x):
    x = x.clone()
    x[torch.rand(x.shape[0]) < 0.5] = 0
    return x


@to(NOISE)
def speckle(net, x):
    return x * (1 + 0.5 * torch.randn_like(x))


@to(NOISE)
def additive(net, x):
    return x + torch.empty_like(x).normal_(0, 0.7)


@to(NOISE)
def exponential(net, x):
    return x * torch.empty_like(x).exponential_()


@to(NOISE)
def normal(net, x):
    return torch.normal(x, 0.5)


@to(NOISE)
def distribution(net, x):
    return x * torch.distributions.Normal(1.0, 0.5, validate_args=False).sample(x.shape)


@to(NOISE)
def shake(net, x):
    a = torch.rand(x.shape[0], 1)
    return a * net.fc[net.here](x) + (1 - a) * x


@to(NOISE)
def permuted(net, x):
    return x[torch.randperm(x.shape[0])]


@to(NOISE)
def features_set_to_zero(net, x):
    x = x.clone()
    x[:, torch.randperm(WIDTH)[:3]] = 0
    return x


@to(NOISE)
def numpy_mask(net, x):
    return x * torch.from_numpy(np.random.binomial(1, 0.5, x.shape)).float() * 2


@to(NOISE)
def python_scale(net, x):
    return x * (0.5 + random.random())


@to(NOISE)
def python_branch(net, x):
    return -x if random.random() < 0.5 else x


@to(NOISE)
def value_of_a_draw(net, x):
    return x * (float(torch.rand(())) + 0.5)


@to(NOISE)
def branch_on_a_draw(net, x):
    return x.flip(0) if torch.rand(1) < 0.5 else x


class Mask(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * torch.empty_like(x).bernoulli_(0.5) * 2

    @staticmethod
    def backward(ctx, grad):
        return grad


@to(NOISE)
def function_of_its_own(net, x):
    return Mask.apply(x)


@to(NOISE)
def rrelu(net, x):
    return F.rrelu(x, training=True)


@to(NOISE)
def gumbel(net, x):
    return F.gumbel_softmax(x, dim=-1)


# -- ways on -------------------------------------------------------------------------------------------------


@to(CARRY)
def linear(net, x):
    return net.fc[net.here](x)


@to(CARRY)
def activation(net, x):
    return torch.tanh(x) + F.relu(x)


@to(CARRY)
def residual(net, x):
    return x + net.fc[net.here](x)


@to(CARRY)
def layer_norm(net, x):
    return F.layer_norm(x, (WIDTH,))


@to(CARRY)
def reshaped(net, x):
    return x.reshape(-1, 2, 4).transpose(1, 2).flatten(1)


@to(CARRY)
def index_add(net, x):
    return x.new_zeros(x.shape).index_add_(0, torch.arange(x.shape[0]), x)


@to(CARRY)
def scatter_add(net, x):
    index = torch.arange(x.shape[0])[:, None].expand_as(x)
    return torch.zeros_like(x).scatter_add(0, index, x)


@to(CARRY)
def scatter(net, x):
    index = torch.arange(x.shape[0]).flip(0)[:, None].expand_as(x)
    return torch.zeros(x.shape).scatter_(0, index, x)


@to(CARRY)
def index_put(net, x):
    z = torch.zeros_like(x)
    return z.index_put_((torch.arange(x.shape[0]),), x)


@to(CARRY)
def index_copy(net, x):
    return torch.zeros_like(x).index_copy(0, torch.arange(x.shape[0]), x)


@to(CARRY)
def masked_scatter(net, x):
    return torch.zeros_like(x).masked_scatter(torch.ones(x.shape, dtype=torch.bool), x)


@to(CARRY)
def into_a_slice(net, x):
    z = torch.zeros_like(x)
    z[:] = x
    return z


@to(CARRY)
def row_by_row(net, x):
    z = x.new_zeros(x.shape)
    for i in range(4):
        z[i] = x[i]
    return z


@to(CARRY)
def through_a_view(net, x):
    z = torch.zeros(x.shape[0], 2, 4)
    z.view(-1, WIDTH)[1:].copy_(x[1:])
    return z.flatten(1)


@to(CARRY)
def through_two_views(net, x):
    z = torch.zeros_like(x)
    left, right = z.chunk(2, 1)
    left += x[:, 4:]
    right.add_(x[:, :4])
    return z


@to(CARRY)
def out_argument(net, x):
    z = torch.empty_like(x)
    torch.mul(x, 2.0, out=z)
    return z


@to(CARRY)
def strided(net, x):
    z = x.contiguous()
    return torch.as_strided(z, (z.shape[0], WIDTH), (WIDTH, 1))


@to(CARRY)
def through_a_buffer(net, x):
    net.memory.copy_(x)
    return net.memory * 1.0


@to(CARRY)
def constant_matrix(net, x):
    return x @ net.table


@to(CARRY)
def fresh_matrix(net, x):
    return torch.eye(x.shape[0]) @ x


@to(CARRY)
def einsum(net, x):
    return torch.einsum("nc,cd->nd", (x, net.table))


@to(CARRY)
def stacked(net, x):
    return torch.stack([x, x.roll(1, 0)]).mean(0)


@to(CARRY)
def halves(net, x):
    a, b = x.split(4, 1)
    return torch.cat([b, a], 1)


@to(CARRY)
def sorted_rows(net, x):
    return x.sort(0).values


@to(CARRY)
def gathered(net, x):
    return x.gather(1, torch.arange(WIDTH).flip(0).expand_as(x))


@to(CARRY)
def padded(net, x):
    return F.pad(x, (2, 2))[:, 2:-2]


@to(CARRY)
def cumulated(net, x):
    return x.cumsum(1)


@to(CARRY)
def where(net, x):
    return torch.where(x > 0, x, 0.1 * x)


@to(CARRY)
def clamped_in_place(net, x):
    return x.clone().clamp_(-2, 2)


@to(CARRY)
def squared_distance(net, x):
    return x - x.mean(0, keepdim=True)


@to(CARRY)
def recurrent(net, x):
    return net.lstm(x[:, None])[0][:, 0]


@to(CARRY)
def attention(net, x):
    y = x[None, None]
    return F.scaled_dot_product_attention(y, y, y)[0, 0]


@to(CARRY)
def mapped(net, x):
    return torch.func.vmap(lambda row: row * 2 + row.sum())(x)


@to(CARRY)
def sparse_product(net, x):
    return torch.sparse.mm(torch.eye(x.shape[0]).to_sparse(), x)


@to(CARRY)
def list_of_rows(net, x):
    return torch.stack(list(x))


@to(CARRY)
def double_and_back(net, x):
    return x.double().square().sum(1, keepdim=True).float().expand_as(x) + x


# -- aside ---------------------------------------------------------------------------------------------------


@to(ASIDE)
def shape_of_noise(net, x):
    return x + torch.zeros_like(F.dropout(x, 0.5, net.training))


@to(ASIDE)
def unused_noise(net, x):
    net.last = F.dropout(x, 0.5, net.training)
    return x * 1.0


@to(ASIDE)
def overwritten(net, x):
    z = F.dropout(x, 0.5, net.training).clone()
    z.copy_(x)
    return z
