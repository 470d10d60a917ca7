"""Δ at every batch norm of an untrained model, by brute force, divided by what small batches alone do.

Running statistics are what torch's are without a momentum: means over batches of each batch's own mean and
variance. Three times all batches:

    train   fixed weights, train mode, several passes, for every pass draws anew
    test    test mode, the statistics of these passes frozen
    quiet   both once more with only the norms in train mode, so that nothing is drawn

Δ = (Var_test / Var_train) / (Var_test / Var_train when quiet).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .entry import Batch, Entry, call


@dataclass(frozen=True)
class Measured:
    """Δ of the n-th call of a norm within one forward pass.

    Attributes:
        norm: qualified name of the module.
        delta: Var_test / Var_train, averaged over channels before dividing, by that of the quiet model.
        error: standard error of `delta`, from the spread between passes.
    """

    norm: str
    delta: float
    error: float


@dataclass(frozen=True)
class Site:
    """A norm with running statistics, of torch or of Keras."""

    name: str
    module: Any

    @property
    def keras(self) -> bool:
        return hasattr(self.module, "moving_mean")

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance of each channel of one input."""
        dim = self.module.axis if self.keras else 1
        flat = x.detach().double().movedim(dim, 0).flatten(1)
        variance, mean = torch.var_mean(flat, 1, correction=min(1, flat.shape[1] - 1))
        return mean, variance

    def freeze(self, mean: Tensor, variance: Tensor) -> None:
        """Make these the running statistics."""
        if self.keras:
            self.module.moving_mean.assign(mean.float())
            self.module.moving_variance.assign(variance.float())
        else:
            self.module.running_mean.copy_(mean)
            self.module.running_var.copy_(variance)


def keras_layers(model: nn.Module) -> list[Any]:
    """Every Keras layer inside; Keras does not register them as submodules."""
    tops = [m for m in model.modules() if hasattr(m, "_flatten_layers")]
    return list({id(layer): layer for top in tops for layer in top._flatten_layers()}.values())


def sites_of(model: nn.Module) -> list[Site]:
    """Every norm that remembers the training variance."""
    found = [
        Site(name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None
    ]
    return found + [Site(layer.name, layer) for layer in keras_layers(model) if hasattr(layer, "moving_mean")]


class Seen:
    """Sums over batches of the moments at every call of every norm."""

    def __init__(self) -> None:
        self.count: dict[tuple[str, int], int] = {}
        self.mean: dict[tuple[str, int], Tensor] = {}
        self.variance: dict[tuple[str, int], Tensor] = {}

    def add(self, key: tuple[str, int], mean: Tensor, variance: Tensor) -> None:
        self.count[key] = self.count.get(key, 0) + 1
        self.mean[key] = self.mean.get(key, 0) + mean
        self.variance[key] = self.variance.get(key, 0) + variance

    def level(self, key: tuple[str, int]) -> float:
        """Mean over channels of the variance."""
        return float(self.variance[key].mean()) / self.count[key]


def observe(model: nn.Module, sites: Sequence[Site], batches: Sequence[Batch]) -> Seen:
    """What each norm is fed in the model's present mode, in one pass over the batches."""
    seen, calls = Seen(), dict.fromkeys((site.name for site in sites), 0)

    def hook(site: Site) -> Callable[..., None]:
        def see(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else next(iter(kwargs.values()))
            seen.add((site.name, calls[site.name]), *site.moments(x))
            calls[site.name] += 1

        return see

    handles = [site.module.register_forward_pre_hook(hook(site), with_kwargs=True) for site in sites]
    with torch.no_grad():
        for batch in batches:
            calls.update(dict.fromkeys(calls, 0))
            call(model, batch)
    for handle in handles:
        handle.remove()
    return seen


@contextmanager
def quiet(model: nn.Module, sites: Sequence[Site]) -> Iterator[None]:
    """Norms in train mode, all that draws in test mode."""
    rated = [(layer, layer.rate) for layer in keras_layers(model) if hasattr(layer, "rate")]
    if rated:
        model.train()
        for layer, _ in rated:
            layer.rate = 0.0
    else:
        model.eval()
        for site in sites:
            site.module.train()
    yield
    for layer, rate in rated:
        layer.rate = rate


def ratios(
    model: nn.Module, sites: Sequence[Site], batches: Sequence[Batch], passes: int
) -> dict[tuple[str, int], list[float]]:
    """Var_test over each pass's Var_train at every call, of a model in train mode, with draws or without."""
    runs = [observe(model, sites, batches) for _ in range(passes)]
    for site in sites:
        keys = [key for key in runs[0].count if key[0] == site.name]
        count = sum(run.count[key] for run in runs for key in keys)
        if count:
            site.freeze(
                sum(run.mean[key] for run in runs for key in keys) / count,
                sum(run.variance[key] for run in runs for key in keys) / count,
            )
    model.eval()
    test = observe(model, sites, batches)
    alive = [key for key in test.count if key in runs[0].count and all(run.level(key) > 0 for run in runs)]
    return {key: [test.level(key) / run.level(key) for run in runs] for key in alive}


def measure(entry: Entry) -> list[Measured]:
    """Δ at every norm, in the order of the data.

    The mean of Var_train over passes divides, so Δ is the harmonic mean of the passes' own.
    """
    model, batches = entry.made(), entry.data()
    sites = sites_of(model)
    torch.manual_seed(1)
    model.train()
    noisy = ratios(model, sites, batches, entry.passes)
    with quiet(model, sites):
        still = ratios(model, sites, batches, 1)
    found = []
    for key, values in noisy.items():
        base = still.get(key, [0.0])[0]
        if not base:
            continue  # always the same value: nothing to normalise
        delta = statistics.harmonic_mean(values) / base
        error = statistics.stdev(values) / len(values) ** 0.5 / base if len(values) > 1 else 0.0
        found.append(Measured(key[0], delta, error))
    return found
