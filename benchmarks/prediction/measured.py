"""Measured Δ at every norm of a setting: training on the digits, train- and test-mode passes, the cache."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from prediction_networks import Model, data_of, models
from torch import Tensor, nn
from torch.nn import functional as F

BATCH = 256


@dataclass(frozen=True)
class Case:
    """One network with one dropout setting."""

    model: str
    place: str
    kind: str
    p: float

    @property
    def key(self) -> str:
        return f"{self.model}-{self.place}-{self.kind}-{self.p}"


def cases(
    table: Mapping[str, Model], names: Sequence[str], ratios: Sequence[float], kinds: Sequence[str]
) -> Iterator[Case]:
    """All settings that apply."""
    for name in names:
        for place in table[name].places:
            for kind in table[name].kinds:
                if kind in kinds:
                    yield from (Case(name, place, kind, p) for p in ratios)


class Spread:
    """Per-channel mean and variance of everything it has seen."""

    def __init__(self) -> None:
        self.count, self.total, self.square = 0, torch.zeros(()), torch.zeros(())

    def see(self, x: Tensor) -> None:
        """Channels in dimension 1."""
        flat = x.detach().double().transpose(0, 1).flatten(1)
        self.count += flat.shape[1]
        self.total = self.total + flat.sum(1)
        self.square = self.square + flat.square().sum(1)

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def variance(self) -> Tensor:
        return self.square / self.count - self.mean**2


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Every batch norm by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}


def observe(model: nn.Module, x: Tensor, passes: int = 1) -> dict[str, Spread]:
    """Moments of each norm's input over the data in the model's present mode."""
    spreads = {name: Spread() for name in batch_norms(model)}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: spreads[name].see(args[0]))
        for name, module in batch_norms(model).items()
    ]
    with torch.no_grad():
        for _ in range(passes):
            for batch in x.split(BATCH):
                if len(batch) > 32:
                    model(batch)
    for handle in handles:
        handle.remove()
    return spreads


def measure(model: nn.Module, x: Tensor, trained: bool, passes: int) -> dict[str, float]:
    """Δ at every batch norm; the untrained model's statistics are frozen at what train mode shows."""
    model = copy.deepcopy(model)
    norms: dict[str, Any] = batch_norms(model)
    if not trained:
        model.train()
        for name, spread in observe(model, x, passes).items():
            norms[name].running_mean.copy_(spread.mean)
            norms[name].running_var.copy_(spread.variance)
    model.eval()
    seen = observe(model, x)
    return {
        name: float(seen[name].variance.mean() / norms[name].running_var.double().mean()) for name in norms
    }


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    """A few epochs of Adam with a cosine schedule."""
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    steps = epochs * (len(x) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    for _ in range(epochs):
        for index in torch.randperm(len(x))[: len(x) // 64 * 64].split(64):
            optimiser.zero_grad()
            out = model(x[index])
            loss = F.cross_entropy(out, y[index] % out.shape[1])
            if not loss.requires_grad or not bool(loss.detach().isfinite()):
                continue
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()


def stored(case: Case, state: str, cache: Path) -> Path:
    """Where weights and measured Δ of a setting lie; `state` is fresh or trained."""
    return cache / f"{case.key}-{state}.pt"


def prepared(case: Case, state: str, cache: Path | None, passes: int) -> tuple[nn.Module, dict[str, float]]:
    """The network, trained or not, with its measured Δ: from the cache, or made anew by the setting's seed.

    Always on one thread, so that neither the number of processes nor that of cores changes a figure.
    """
    torch.set_num_threads(1)
    model = models()[case.model]
    seed = int(hashlib.sha1(case.key.encode()).hexdigest()[:6], 16)
    torch.manual_seed(seed)
    net = model.build(case.place, case.kind, case.p)
    x, y = data_of(case.model)
    file = stored(case, state, cache) if cache else None
    if file and file.exists():
        weights, measured = torch.load(file, weights_only=True)
        net.load_state_dict(weights)
        return net, measured
    if state == "trained":
        train(net, x, y, model.epochs)
    measured = measure(net, x, state == "trained", passes)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        torch.save((net.state_dict(), measured), part)
        part.replace(file)  # whole, or not there
    return net, measured
