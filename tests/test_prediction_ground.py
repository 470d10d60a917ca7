"""Ground where good guesses are wrong: predicted Δ against networks that are run.

Each row is an operation in front of a batch norm and, behind a weight layer, another one. A prediction has to
come within .05 of what is measured, or to say that it is unknown; it never has the wrong direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import pytest
import torch
from brute_force import Function, measured, predicted, smooth
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.loading.compat import declare_missing_schemas

WIDTH = 32
TOLERANCE = 0.05
Rows = Callable[[], Tensor]


class Ground(nn.Module):
    """x → operation → norm, and → weight layer → norm."""

    def __init__(self, operation: nn.Module, width: int, dims: int) -> None:
        super().__init__()
        layer = (nn.Linear, nn.Conv1d, nn.Conv2d)[dims]
        kernel = {"kernel_size": 3} if dims else {}
        norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm1d
        self.operation = operation
        self.straight, self.layer, self.behind = norm(width), layer(width, 64, **kernel), norm(64)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        y = self.operation(x)
        self.straight(y)
        return self.behind(self.layer(y))  # type: ignore[no-any-return]  # a module's call is Any


@dataclass(frozen=True)
class Row:
    """An operation, the modules it calls, the rows it is given; how many in a batch, where that matters."""

    operation: Callable[..., Tensor]
    modules: Callable[[], tuple[nn.Module, ...]]
    x: Rows = lambda: torch.randn(2048, WIDTH)
    width: int = WIDTH
    batch: int = 0

    def model(self) -> Ground:
        dims = max(self.operation(self.x()[:2], *self.modules()).dim() - 2, 0)
        return Ground(Function(self.operation, *self.modules()), self.width, dims)


def drops(
    *ratios: float, kind: Callable[[float], nn.Module] = nn.Dropout
) -> Callable[[], tuple[nn.Module, ...]]:
    return lambda: tuple(kind(p) for p in ratios)


def indices() -> Tensor:
    return torch.randint(0, WIDTH, (2048,))


ONE_TENSOR = {
    "x + drop(x)": Row(lambda x, d: x + d(x), drops(0.5)),
    "drop(x) + x": Row(lambda x, d: d(x) + x, drops(0.5)),
    "y + drop(y), mean not 0": Row(lambda x, d: (y := x + 1) + d(y), drops(0.5)),
    "relu(x + drop(x))": Row(lambda x, d: F.relu(x + d(x)), drops(0.5)),
    "drop(x) + drop2(x)": Row(lambda x, d, e: d(x) + e(x), drops(0.5, 0.5)),
    "drop(x) + drop2(x), .2 and .5": Row(lambda x, d, e: d(x) + e(x), drops(0.2, 0.5)),
    "drop(x) + drop(x), two calls": Row(lambda x, d: d(x) + d(x), drops(0.5)),
    "x - drop(x)": Row(lambda x, d: x - d(x), drops(0.5)),
    "2x - drop(x)": Row(lambda x, d: 2 * x - d(x), drops(0.5)),
    "drop(x) * drop2(x)": Row(lambda x, d, e: d(x) * e(x), drops(0.5, 0.5)),
    "drop(x) * x": Row(lambda x, d: d(x) * x, drops(0.5)),
    "sum of four": Row(lambda x, a, b, c, d: a(x) + b(x) + c(x) + d(x), drops(0.5, 0.5, 0.5, 0.5)),
    "mean of a stack": Row(lambda x, a, b, c: torch.stack([a(x), b(x), c(x)]).mean(0), drops(0.5, 0.5, 0.5)),
    "sum of a stack, last dimension": Row(
        lambda x, a, b: torch.stack([a(x), b(x)], dim=-1).sum(-1), drops(0.5, 0.5)
    ),
    "maximum(drop(x), x)": Row(lambda x, d: torch.maximum(d(x), x), drops(0.5)),
    "maximum(drop(x), drop2(x))": Row(lambda x, d, e: torch.maximum(d(x), e(x)), drops(0.5, 0.5)),
    "relu(x) + drop(relu(x))": Row(lambda x, d: F.relu(x) + d(F.relu(x)), drops(0.5)),
    "x + relu(drop(x))": Row(lambda x, d: x + F.relu(d(x)), drops(0.5)),
    "drop(x) / 2 + x / 2": Row(lambda x, d: d(x) / 2 + x / 2, drops(0.5)),
    "channels: x + drop2d(x)": Row(
        lambda x, d: x + d(x), drops(0.5, kind=nn.Dropout2d), lambda: torch.randn(128, WIDTH, 6, 6)
    ),
    "drop2(drop(x)) + drop(x)": Row(lambda x, d, e: e(y := d(x)) + y, drops(0.5, 0.5)),
    "alpha: x + alpha_drop(x)": Row(lambda x, d: x + d(x), drops(0.5, kind=nn.AlphaDropout)),
}

COPIES = {
    "drop(copies at all positions), mean": Row(
        lambda x, d: d(x[..., None].expand(-1, -1, 6)).mean(2), drops(0.5)
    ),
    "copies of drop(x), mean": Row(lambda x, d: d(x)[..., None].repeat(1, 1, 6).mean(2), drops(0.5)),
    "drop(copies on a map), pooled": Row(
        lambda x, d: F.avg_pool2d(d(x[..., None, None].expand(-1, -1, 8, 8)), 2),
        drops(0.5),
        lambda: torch.randn(512, WIDTH),
    ),
}

POSITIONS = torch.randn(1, WIDTH, 40, generator=torch.Generator().manual_seed(0))

CONSTANTS = {
    "drop(ones) * x": Row(lambda x, d: d(torch.ones_like(x)) * x, drops(0.5)),
    "drop((x > 0).float())": Row(lambda x, d: d((x > 0).float()), drops(0.5)),
    "a dropped vector, multiplied": Row(lambda x, d: x * d(torch.ones(WIDTH)), drops(0.5), batch=16),
    "a dropped vector, added": Row(lambda x, d: x + d(torch.ones(WIDTH)), drops(0.5), batch=16),
    "a dropped row, expanded": Row(
        lambda x, d: x + d(torch.arange(WIDTH)[None] / 8).expand_as(x), drops(0.5), batch=16
    ),
    "a dropped position code": Row(
        lambda x, d: x + d(POSITIONS), drops(0.5), lambda: torch.randn(1024, WIDTH, 40)
    ),
    "drop of a constant map": Row(lambda x, d: d(torch.full_like(x, 2.0)) + x, drops(0.5)),
}

INTEGERS = {
    "one_hot": Row(lambda i, d: d(F.one_hot(i, WIDTH).float()), drops(0.5), indices),
    "eye[i]": Row(lambda i, d: d(torch.eye(WIDTH)[i]), drops(0.5), indices),
    "i == arange": Row(lambda i, d: d((i[:, None] == torch.arange(WIDTH)).float()), drops(0.5), indices),
    "scatter": Row(
        lambda i, d: d(torch.zeros(len(i), WIDTH).scatter_(1, i[:, None], 1.0)), drops(0.5), indices
    ),
    "index_put": Row(
        lambda i, d: d(torch.zeros(len(i), WIDTH).index_put((torch.arange(len(i)), i), torch.tensor(1.0))),
        drops(0.5),
        indices,
    ),
    "one_hot of four": Row(lambda i, d: d(F.one_hot(i % 4, WIDTH).float()), drops(0.5), indices),
    "eye of four": Row(lambda i, d: d(torch.eye(WIDTH)[i & 3]), drops(0.5), indices),
    "scatter of four": Row(
        lambda i, d: d(torch.zeros(len(i), WIDTH).scatter_(1, (i % 4)[:, None], 1.0)), drops(0.5), indices
    ),
    "i % 4 == arange": Row(
        lambda i, d: d((i[:, None] % 4 == torch.arange(WIDTH)).float()), drops(0.5), indices
    ),
    "one_hot, rectified": Row(lambda i, d: F.relu(d(F.one_hot(i, WIDTH).float())), drops(0.5), indices),
    "one_hot, max-pool": Row(
        lambda i, d: F.max_pool1d(d(F.one_hot(i, WIDTH).float().transpose(1, 2)), 4),
        drops(0.5),
        lambda: torch.randint(0, WIDTH, (512, 20)),
    ),
    "thermometer, rectified": Row(
        lambda i, d: F.relu(d((i[:, None] > torch.arange(WIDTH)).float())), drops(0.5), indices
    ),
    "thermometer": Row(lambda i, d: d((i[:, None] > torch.arange(WIDTH)).float()), drops(0.5), indices),
    "thermometer, numbers first": Row(
        lambda i, d: d((torch.arange(WIDTH) <= i.unsqueeze(1)).to(torch.float32)), drops(0.2), indices
    ),
    "thermometer, a table": Row(lambda i, d: d(torch.ones(WIDTH, WIDTH).tril()[i]), drops(0.5), indices),
    "thermometer, a table of more rows": Row(
        lambda i, d: d(torch.ones(128, WIDTH).tril()[i]), drops(0.5), lambda: torch.randint(0, 128, (2048,))
    ),
    "thermometer, a sum": Row(lambda i, d: d(F.one_hot(i, WIDTH).cumsum(1).float()), drops(0.5), indices),
    "thermometer of a number": Row(
        lambda x, d: d((x[:, :1] > torch.linspace(-2, 2, WIDTH)).float()), drops(0.5)
    ),
}


def maps() -> Tensor:
    return smooth(96, WIDTH, 14, 14)


def layer(path: str, *args: object, **options: object) -> Callable[[], tuple[nn.Module, ...]]:
    """A layer of another package, imported when it is needed."""

    def make() -> tuple[nn.Module, ...]:
        declare_missing_schemas()
        module, _, name = path.rpartition(".")
        return (getattr(import_module(module), name)(*args, **options),)

    return make


MASKS = {
    "DropPath without rescaling": Row(
        lambda x, d: d(x), layer("timm.layers.DropPath", 0.3, scale_by_keep=False)
    ),
    "relu, DropPath without rescaling": Row(
        lambda x, d: d(F.relu(x)), layer("timm.layers.DropPath", 0.3, scale_by_keep=False)
    ),
    "DropBlock of timm": Row(lambda x, d: d(x), layer("timm.layers.DropBlock2d", 0.1, 7), maps),
    "DropBlock of timm, with noise": Row(
        lambda x, d: d(2 * x), layer("timm.layers.DropBlock2d", 0.1, 7, with_noise=True), maps
    ),
    "DropBlock of timm without rescaling": Row(
        lambda x, d: d(x), layer("timm.layers.DropBlock2d", 0.1, 7, scale_by_keep=False), maps
    ),
    "DropBlock of timm, even block": Row(lambda x, d: d(x), layer("timm.layers.DropBlock2d", 0.2, 4), maps),
    "DropBlock of torchvision": Row(lambda x, d: d(x), layer("torchvision.ops.DropBlock2d", 0.1, 7), maps),
    "StochasticDepth of batches": Row(
        lambda x, d: d(F.relu(x)), layer("torchvision.ops.StochasticDepth", 0.3, "batch"), batch=4
    ),
}


def independent() -> Tensor:
    return torch.randn(256, WIDTH, 4, 4)


def vectors() -> Tensor:
    """Values without positions, of which a model may make a map; an input that is one is taken as smooth."""
    return torch.randn(512, WIDTH * 64)


def with_layer(modules: Callable[[], tuple[nn.Module, ...]]) -> Callable[[], tuple[nn.Module, ...]]:
    return lambda: (*modules(), nn.Linear(WIDTH, WIDTH))


NON_LINEAR = {
    "softmax": Row(lambda x, d: torch.softmax(d(x), 1), drops(0.5)),
    "softmax of 2x": Row(lambda x, d: torch.softmax(d(2 * x), 1), drops(0.5)),
    "softmax of 4x": Row(lambda x, d: torch.softmax(d(4 * x), 1), drops(0.5)),
    "softmax of 10x": Row(lambda x, d: torch.softmax(d(10 * x), 1), drops(0.5)),
    "softmax of 4x over many": Row(
        lambda x, d: torch.softmax(d(4 * x), 1), drops(0.5), lambda: torch.randn(512, 1100), width=1100
    ),
    "softmax of 4x over positions": Row(
        lambda x, d: torch.softmax(d(4 * x).flatten(2), 2), drops(0.5), independent
    ),
    "softmax of dropped channels": Row(
        lambda x, d: torch.softmax(d(x).flatten(2), 2), drops(0.5, kind=nn.Dropout2d), independent
    ),
    "softmax of dropped channels of 4x": Row(  # Δ above 1: what is dropped is spread evenly
        lambda x, d: torch.softmax(d(4 * x).flatten(2), 2), drops(0.5, kind=nn.Dropout2d), independent
    ),
    "softmax over dropped channels": Row(
        lambda x, d: torch.softmax(d(4 * x), 1), drops(0.5, kind=nn.Dropout2d), independent
    ),
    "softmax of DropPath": Row(lambda x, d: torch.softmax(d(4 * x), 1), layer("timm.layers.DropPath", 0.3)),
    "log-softmax": Row(lambda x, d: torch.log_softmax(d(x), 1), drops(0.5)),
    "log-softmax of 4x": Row(lambda x, d: torch.log_softmax(d(4 * x), 1), drops(0.5)),
    "max-pool": Row(lambda x, d: F.max_pool2d(d(x), 2), drops(0.5), lambda: smooth(128, WIDTH, 8, 8)),
    "LP-pool": Row(lambda x, d: F.lp_pool2d(d(x), 2.0, 2), drops(0.5), lambda: smooth(128, WIDTH, 8, 8)),
    "max-pool of what is not smooth": Row(
        lambda x, d: F.max_pool2d(d(x.unflatten(1, (WIDTH, 8, 8))), 2), drops(0.5), vectors
    ),
    "LP-pool of what is not smooth": Row(
        lambda x, d: F.lp_pool2d(d(x).view(-1, WIDTH, 8, 8), 2.0, 2), drops(0.5), vectors
    ),
    "max-pool, dropped twice": Row(
        lambda x, d, e: F.max_pool2d(e(d(F.relu(x))), 2), drops(0.5, 0.3), lambda: smooth(128, WIDTH, 8, 8)
    ),
    "softmax of a skip and a branch": Row(
        lambda x, d, e, k: torch.softmax(e(x + d(k(x))), 1), with_layer(drops(0.5, 0.5))
    ),
    "softmax of 2(skip and branch)": Row(
        lambda x, d, e, k: torch.softmax(2 * e(x + d(k(x))), 1), with_layer(drops(0.5, 0.5))
    ),
    "softmax of a skip and 6 branches": Row(
        lambda x, d, e, k: torch.softmax(e(x + d(6 * k(x))), 1), with_layer(drops(0.5, 0.5))
    ),
    "softmax of drop2(x + drop(x))": Row(lambda x, d, e: torch.softmax(3 * e(x + d(x)), 1), drops(0.5, 0.5)),
    "dropped twice, tanh": Row(  # Δ above 1: what is dropped is 0, what is kept is further out
        lambda x, d, e: torch.tanh(3 * e(d(x))), drops(0.5, 0.3)
    ),
    "dropped twice, softplus": Row(
        lambda x, d, e: F.softplus(e(d(x))), drops(0.5, 0.3, kind=nn.AlphaDropout)
    ),
    "dropped twice, square": Row(lambda x, d, e: e(x + d(x)) ** 2, drops(0.5, 0.3)),
    "dropped twice, rectified twice": Row(lambda x, d, e: F.relu(e(F.relu(d(x)))), drops(0.5, 0.3)),
}


def third_axis(x: Tensor, drop: nn.Module) -> Tensor:
    """speechbrain 1.1.2: Dropout2d drops the third axis of (N, time, a, b), and BatchNorm2d norms b."""
    y = x.permute(0, 2, 3, 1)
    y = drop(y.transpose(1, 2).transpose(2, -1)).transpose(-1, 1).transpose(2, -1)
    return y.permute(0, 3, 1, 2)


WEIGHT = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0))  # no buffer of any model

PORTS = {
    "another axis than the norm's": Row(third_axis, drops(0.5, kind=nn.Dropout2d), maps),
    "another axis, rectified": Row(
        lambda x, d: third_axis(F.relu(x), d), drops(0.2, kind=nn.Dropout2d), maps
    ),
    "dropped weights": Row(
        lambda x, d, w: F.linear(x, d(w.weight)), lambda: (nn.Dropout(0.5), nn.Linear(WIDTH, WIDTH))
    ),
    "dropped weights of a constant": Row(lambda x, d: F.linear(x, d(WEIGHT)), drops(0.5)),
}

TABLE = {**ONE_TENSOR, **COPIES, **CONSTANTS, **INTEGERS, **MASKS, **NON_LINEAR, **PORTS}


def within_batches(model: nn.Module, x: Tensor, size: int) -> dict[str, float]:
    """Δ with the train variance as a norm sees it: in batches of `size` rows, averaged over batches."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm1d)}
    for norm in norms.values():
        norm.momentum = None
    seen = {}
    for name, norm in norms.items():
        norm.register_forward_pre_hook(
            lambda module, args, name=name: (
                None
                if module.training
                else seen.update({name: float((args[0].var(0) / module.running_var).mean())})
            )
        )
    with torch.no_grad():
        for batch in x.split(size):
            model.train()(batch)
        model.eval()(x)
    return seen


@pytest.mark.parametrize("name", TABLE)
def test_prediction_is_right_or_unknown(name: str) -> None:
    torch.set_num_threads(1)
    row = TABLE[name]
    model, x = row.model(), row.x()
    truth = within_batches(model, x, row.batch) if row.batch else measured(model, x)
    found = predicted(model, x[:8], basis="weights")
    wrong = {}
    for shift in found.norms:
        delta, true = shift.delta_now, truth[shift.norm]
        if delta is not None and abs(delta - true) > TOLERANCE:
            wrong[shift.norm] = (round(delta, 3), round(true, 3))
    assert not wrong, f"(predicted, measured): {wrong}"


class Selects(nn.Module):
    """Adds the sum of the values above a threshold: how many these are differs from draw to draw."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold, self.drop, self.norm = threshold, nn.Dropout(0.5), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(x)
        return self.norm(y + y[:2].masked_select(y[:2] > self.threshold).sum())  # type: ignore[no-any-return]


@pytest.mark.parametrize("threshold", [-2.0, -1.5, 0.5])
def test_a_size_that_depends_on_the_draw_is_unknown(threshold: float) -> None:
    torch.manual_seed(0)
    (shift,) = predicted(Selects(threshold), torch.randn(8, 4)).norms
    assert shift.delta is None and "masked_select (the result has another shape)" in shift.unknown[0]


@pytest.mark.parametrize("name", ["a dropped vector, added", "a dropped row, expanded"])
def test_a_mask_that_a_whole_batch_adds_is_unknown(name: str) -> None:
    found = predicted(CONSTANTS[name].model(), torch.randn(8, WIDTH))
    assert all(
        shift.delta is None and "one mask for all samples" in shift.unknown[0] for shift in found.norms
    )
    (straight, _) = predicted(CONSTANTS["a dropped vector, multiplied"].model(), torch.randn(8, WIDTH)).norms
    assert straight.delta == pytest.approx(0.5)


def test_dropped_weights_are_unknown_and_not_harmless() -> None:
    for name in ("dropped weights", "dropped weights of a constant"):
        row = PORTS[name]
        found = predicted(row.model(), row.x()[:8])
        assert all(shift.delta is None and "Dropout" in shift.unknown[0] for shift in found.norms)


def test_a_number_for_each_index_varies_as_the_table_does() -> None:
    table = torch.arange(40.0)
    row = Row(lambda i, d: d(table[i][:, None].expand(-1, WIDTH)), drops(0.5), indices)
    (straight, _) = predicted(row.model(), row.x()[:8]).norms
    mean, variance = float(table.mean()), float(table.var(correction=0))
    assert straight.delta_initial == pytest.approx(variance / (2 * (variance + mean**2) - mean**2), abs=0.01)


class Padded(nn.Module):
    """Positions beyond the lengths are 0; half of the lengths are as many as half of the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x, lengths = x[:, :, ::2], (lengths - 1) // 2 + 1
        beyond = torch.arange(x.shape[2]).expand(len(x), x.shape[2]) >= lengths.unsqueeze(1)
        return self.norm(self.drop((x + 2).masked_fill(beyond.unsqueeze(1), 0.0)))  # type: ignore[no-any-return]


def test_lengths_are_taken_evenly_and_it_is_said() -> None:
    (shift,) = predicted(Padded(), torch.randn(8, 4, 40), torch.randint(1, 41, (8,))).norms
    share = 0.5  # of the positions hold x + 2; the others 0
    test, train = (power * 5 * share - (2 * share) ** 2 for power in (1, 2))
    assert shift.delta_initial == pytest.approx(test / train, abs=0.02)
    assert shift.approximate == ("masked_fill",)
