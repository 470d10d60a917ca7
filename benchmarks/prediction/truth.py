"""Trains a setting and measures Δ at its norms; the cache keeps both.

Measured Δ (Li et al. 2019, Sec. 4) is the mean over channels of the variance of a norm's input in test mode
over the mean of its running variance, where the running statistics are those of train-mode passes with
dropout on, over the training data, with the weights as they are at last. That ratio is divided by the same
one with all dropout off: what small batches do by themselves is not dropout's. Once with the trained weights,
once with those of the start.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .settings import Data, Setting

BATCH = 256
"""Rows of a batch while measuring."""
KEPT = 256
"""Rows of the data that the cache keeps beside the weights."""
VERSION = 2


def norms_of(model: nn.Module) -> dict[str, Any]:
    """Every batch norm with running statistics, by qualified name."""
    return {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_var is not None
    }


def batches(data: Data, rows: int) -> Iterator[tuple[Tensor, ...]]:
    """The inputs in batches; a last one of less than a quarter is left out."""
    for index in torch.arange(len(data)).split(len(data) if data.whole else rows):
        if data.whole or len(index) * 4 >= min(rows, len(data)):
            yield data.rows(index)[0]


class Spread:
    """Per-channel mean and variance of everything that it has seen."""

    def __init__(self) -> None:
        self.count, self.total, self.square = 0, torch.zeros(()), torch.zeros(())

    def see(self, x: Tensor) -> None:
        """Channels in dimension 1."""
        flat = x.detach().double().transpose(0, 1).flatten(1)
        self.count += flat.shape[1]
        self.total = self.total + flat.sum(1)
        self.square = self.square + flat.square().sum(1)

    @property
    def variance(self) -> Tensor:
        """(C,), over all that was seen."""
        return self.square / self.count - (self.total / self.count) ** 2


@contextmanager
def hooked(model: nn.Module, see: Mapping[str, Any]) -> Iterator[None]:
    """`see[name]` is called with the input of each norm."""
    norms = norms_of(model)
    handles = [
        norms[name].register_forward_pre_hook(lambda _, args, call=call: call(args[0]))
        for name, call in see.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def ratios(model: nn.Module, data: Data, seen: int) -> dict[str, float]:
    """Var_test over running variance at every norm; train mode sees `seen` rows and all data twice.

    With `seen` = 0 it sees the data once, with dropout off.
    """
    model = copy.deepcopy(model).train()
    norms = norms_of(model)
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None
    if not seen:
        model.eval()
        for norm in norms.values():
            norm.train()
    torch.manual_seed(1)
    passes = max(2, -(-seen // len(data))) if seen else 1
    with torch.no_grad():
        for _ in range(passes):
            for inputs in batches(data, BATCH):
                model(*inputs)
        model.eval()
        spreads = {name: Spread() for name in norms}
        with hooked(model, {name: spread.see for name, spread in spreads.items()}):
            for inputs in batches(data, BATCH):
                model(*inputs)
    return {
        name: float(spreads[name].variance.mean() / norms[name].running_var.double().mean())
        for name in norms
        if spreads[name].count
    }


def behind(model: nn.Module, data: Data) -> list[str]:
    """Norms whose input in train mode depends on the masks, in the order of the data."""
    model = copy.deepcopy(model).train()
    inputs = next(batches(data, 16))
    seen: dict[str, list[Tensor]] = {name: [] for name in norms_of(model)}
    with torch.no_grad(), hooked(model, {name: found.append for name, found in seen.items()}):
        for seed in range(2):
            torch.manual_seed(seed)
            model(*inputs)
    return [name for name, found in seen.items() if found and not torch.equal(found[0], found[-1])]


def measured(
    model: nn.Module, data: Data, names: list[str], seen: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Δ at these norms, and what small batches alone do there."""
    alone = ratios(model, data, 0)
    with_noise = ratios(model, data, seen)
    return {name: with_noise[name] / alone[name] for name in names}, {name: alone[name] for name in names}


def optimiser_of(setting: Setting, model: nn.Module) -> torch.optim.Optimizer:
    """The network's optimiser on this model's parameters."""
    network, parameters = setting.network, model.parameters()
    match network.optimiser:
        case "adam":
            return torch.optim.Adam(parameters, network.rate, weight_decay=network.decay)
        case "adamw":
            return torch.optim.AdamW(parameters, network.rate, weight_decay=network.decay)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, network.rate, weight_decay=network.decay)
        case "sgd":
            return torch.optim.SGD(parameters, network.rate, weight_decay=network.decay)
        case "momentum":
            return torch.optim.SGD(
                parameters, network.rate, momentum=0.9, nesterov=True, weight_decay=network.decay
            )
    raise ValueError(network.optimiser)


def loss_of(setting: Setting, out: Tensor, labels: Tensor) -> Tensor:
    """The training loss."""
    if setting.network.loss == "values":
        return F.mse_loss(out, labels)
    return F.cross_entropy(out, labels)


def train(setting: Setting, model: nn.Module, data: Data) -> float:
    """Train in place; the mean loss of the last epoch."""
    network = setting.network
    model.train()
    optimiser = optimiser_of(setting, model)
    steps = 1 if data.whole else len(data) // network.batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(network.epochs * steps, 1))
    total = 0.0
    for _ in range(network.epochs):
        total = 0.0
        for index in torch.randperm(len(data))[: steps * network.batch].split(network.batch)[:steps]:
            inputs, labels = data.rows(index)
            optimiser.zero_grad()
            loss = loss_of(setting, model(*inputs), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            if network.cosine:
                schedule.step()
            total += float(loss.detach()) / steps
    return total


def prepare(setting: Setting, cache: Path) -> Path:
    """The setting's folder in the cache, trained and measured now unless it is there already.

    On one thread, from the setting's seed, so that neither cores nor the order of settings change a figure.
    """
    folder = cache / setting.key
    if (folder / "measured.json").exists():
        return folder
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    data = setting.network.data()
    torch.manual_seed(setting.seed)
    model = setting.network.build(setting.kind, setting.p)
    names = behind(model, data)
    torch.save(model.state_dict(), folder / "initial.pt")
    published = setting.network.weights
    start = {} if published else measured(model, data, names, setting.network.seen)[0]
    torch.manual_seed(setting.seed)
    began = time.process_time()
    loss = 0.0
    if published:
        model.load_state_dict(published())
    else:
        loss = train(setting, model, data)
    seconds = time.process_time() - began
    torch.save(model.state_dict(), folder / "trained.pt")
    kept = data.inputs if data.whole else tuple(x[:KEPT].clone() for x in data.inputs)
    torch.save(kept, folder / "inputs.pt")
    delta, alone = measured(model, data, names, setting.network.seen)
    network = setting.network
    told = {
        "version": VERSION,
        "network": network.name,
        "family": network.family,
        "kind": setting.kind,
        "p": setting.p,
        "optimiser": network.optimiser,
        "rate": network.rate,
        "epochs": network.epochs,
        "data": network.data.__name__,
        "seconds": round(seconds, 1),
        "loss": round(loss, 4),
        "norms": {
            name: {"delta": delta[name], "delta_initial": start.get(name), "alone": alone[name]}
            for name in names
        },
    }
    part = folder / "measured.part"
    part.write_text(json.dumps(told, indent=1), encoding="utf-8")
    part.replace(folder / "measured.json")  # last: a folder without it is not whole
    return folder


def known(setting: Setting, folder: Path) -> tuple[nn.Module, nn.Module, tuple[Tensor, ...], dict[str, Any]]:
    """The network as it was at the start and as it is trained, some inputs, and what was measured."""
    found: dict[str, Any] = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
    models = []
    for name in ("initial.pt", "trained.pt"):
        torch.manual_seed(setting.seed)
        model = setting.network.build(setting.kind, setting.p)
        model.load_state_dict(torch.load(folder / name, weights_only=True))
        models.append(model)
    inputs = torch.load(folder / "inputs.pt", weights_only=True)
    return models[0], models[1], inputs, found
