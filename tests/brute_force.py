"""What a network shows when it is run: Δ at every batch norm with the weights as they are, and inputs of the
kind that predictions assume.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dropout_lint.inputs.example import Inputs
from dropout_lint.prediction import NormShift, Prediction, predict
from dropout_lint.prediction.bases import shift_at
from dropout_lint.prediction.ledger import walked
from dropout_lint.trace import trace
from fixtures.noise import DropPath, Uout

Op = Callable[[], nn.Module]
Join = Callable[[Tensor, Tensor], Tensor]
"""What is made of two branches."""

NOISES: dict[str, Callable[[float], nn.Module]] = {
    "Dropout": nn.Dropout,
    "Dropout1d": nn.Dropout1d,
    "Dropout2d": nn.Dropout2d,
    "Dropout3d": nn.Dropout3d,
    "DropPath": DropPath,
    "Uout": lambda p: Uout(math.sqrt(3 * p / (1 - p))),  # the same noise as dropout of ratio p
}


class Joined(nn.Module):
    """Two branches that are joined in one way in training and in another in test mode, a norm behind them."""

    def __init__(self, train: Join, test: Join, width: int) -> None:
        super().__init__()
        self.f, self.g, self.bn = nn.Linear(8, width), nn.Linear(8, width), nn.BatchNorm1d(width)
        self.in_training, self.in_test = train, test

    def forward(self, x: Tensor) -> Tensor:
        f, g = self.f(x), self.g(x)
        out: Tensor = self.bn(self.in_training(f, g) if self.training else self.in_test(f, g))
        return out


class Averaged(nn.Module):
    """Behind a layer norm the mean over positions keeps what they share: dropout lowers its variance."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc, self.drop = nn.Linear(width, width), nn.Dropout(0.5)
        self.ln, self.bn = nn.LayerNorm(width), nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.ln(self.drop(self.fc(x)[:, None].expand(-1, 16, -1)))
        return self.bn(tokens.mean(1))  # type: ignore[no-any-return]  # a module's call is Any


@functools.lru_cache(maxsize=8)
def _factor(sizes: tuple[int, ...]) -> Tensor:
    places = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in sizes], indexing="ij"), -1)
    flat = places.flatten(0, -2)
    covariance = torch.exp(-5.0 * torch.cdist(flat, flat) / max(sizes)).double()
    factor: Tensor = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(len(flat)).double())
    return factor.float()


def smooth(count: int, channels: int, *sizes: int) -> Tensor:
    """Standard normal fields whose correlation falls as e^{-5·distance/size}, channels independent."""
    factor = _factor(sizes)
    return (torch.randn(count, channels, len(factor)) @ factor.T).view(count, channels, *sizes)


def predicted(model: nn.Module, *inputs: Tensor, basis: str = "auto") -> Prediction:
    return predict(trace(model, Inputs(inputs)), basis=basis)  # type: ignore[arg-type]


def now(shift: NormShift) -> float:
    """Predicted Δ with the weights as they are: those of the start, or trained ones."""
    assert shift.delta_now is not None
    return shift.delta_now


def deltas(model: nn.Module, *inputs: Tensor, basis: str = "auto") -> dict[str, float]:
    """`now` of every norm."""
    return {shift.norm: now(shift) for shift in predicted(model, *inputs, basis=basis).norms}


def untrained(model: nn.Module, *inputs: Tensor, real: bool = True) -> dict[str, NormShift]:
    """Δ and shares with the weights of the start, their values or shapes alone."""
    traced = trace(model, Inputs(inputs))
    ledger = walked(traced, real=real).ledger
    return {site.name: shift_at(site, ledger, "trained-estimate") for site in traced.norms}


def measured(model: nn.Module, x: Tensor, passes: int = 4) -> dict[str, float]:
    """Δ at every batch norm: train-mode variances of fixed weights, each within its pass, as torch has them,
    averaged over the passes, frozen; then those of test mode.
    """
    model = copy.deepcopy(model)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in norms}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            flat = args[0].detach().double().transpose(0, 1).flatten(1)
            seen[name].append((flat.mean(1), flat.var(1, correction=0)))

        return hook

    for name, norm in norms.items():
        norm.register_forward_pre_hook(look(name))
    train = {}
    with torch.no_grad():
        model.train()
        for _ in range(passes):
            model(x)
        for name, norm in norms.items():
            mean, variance = (torch.stack(part).mean(0) for part in zip(*seen[name], strict=True))
            norm.running_mean.copy_(mean)  # type: ignore[operator, union-attr]
            norm.running_var.copy_(variance)  # type: ignore[operator, union-attr]
            train[name] = float(variance.mean())
            seen[name].clear()
        model.eval()
        model(x)
    return {name: float(seen[name][0][1].mean()) / train[name] for name in norms}


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor], *inner: nn.Module) -> None:
        super().__init__()
        self.function, self.inner = function, nn.ModuleList(inner)

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args, *self.inner)


class Probe(nn.Module):
    """A stem that makes ReLU of standard normals, a dropout, perhaps a weight layer, the operation, a norm
    that reads its result, and a weight layer with a norm behind it.
    """

    def __init__(  # noqa: PLR0917
        self, op: nn.Module, drop: nn.Module, between: nn.Module | None, width: int, out: int, dims: int
    ):
        super().__init__()
        conv = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d}[dims]
        norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm1d
        kernel = {"kernel_size": 3, "padding": 1} if dims else {}
        self.stem = nn.Sequential(conv(width, width, **kernel), norm(width), nn.ReLU())  # type: ignore[operator]
        self.drop, self.between, self.op = drop, between or nn.Identity(), op
        self.mid, self.tail = norm(out), nn.Sequential(conv(out, 32, **kernel), norm(32))  # type: ignore[operator]
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        y = self.op(self.between(self.drop(self.stem(x))))
        self.mid(y)
        return self.tail(y)  # type: ignore[no-any-return]  # a module's call is Any


class FlatProbe(nn.Module):
    """The same for operations whose result has no positions any more."""

    def __init__(  # noqa: PLR0917
        self, op: nn.Module, drop: nn.Module, between: nn.Module | None, width: int, out: int, dims: int
    ):
        super().__init__()
        conv = nn.Conv1d if dims == 1 else nn.Conv2d
        norm = nn.BatchNorm1d if dims == 1 else nn.BatchNorm2d
        self.stem = nn.Sequential(conv(width, width, 3, padding=1), norm(width), nn.ReLU())  # type: ignore[operator]
        self.drop, self.between, self.op = drop, between or nn.Identity(), op
        self.mid, self.tail = nn.BatchNorm1d(out), nn.Sequential(nn.Linear(out, 32), nn.BatchNorm1d(32))

    def forward(self, x: Tensor) -> Tensor:
        y = self.op(self.between(self.drop(self.stem(x))))
        self.mid(y)
        return self.tail(y)  # type: ignore[no-any-return]  # a module's call is Any


class SequenceProbe(nn.Module):
    """The same for (N, L, C): linear layers and a layer norm ahead, batch norms over C behind."""

    def __init__(self, op: nn.Module, drop: nn.Module, between: nn.Module | None, width: int, out: int):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU())
        self.drop, self.between, self.op = drop, between or nn.Identity(), op
        self.mid, self.post, self.last = nn.BatchNorm1d(out), nn.Linear(out, 32), nn.BatchNorm1d(32)

    def forward(self, x: Tensor) -> Tensor:
        y = self.op(self.between(self.drop(self.stem(x))))
        self.mid(y.transpose(1, 2))
        return self.last(self.post(y).transpose(1, 2))  # type: ignore[no-any-return]
