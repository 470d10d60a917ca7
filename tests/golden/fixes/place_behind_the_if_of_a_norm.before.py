# left: a milder rule than before speaks of it at its new place, and its module has no better one
from dataclasses import dataclass, field
from typing import List

import torch
from torch import nn, Tensor


@dataclass
class Config:
    n_features: int = 12
    layers: List[int] = field(default_factory=lambda: [64, 32, 32])
    dropout: float = 0.25
    use_bn: bool = True


class MLPBlock(nn.Module):
    def __init__(self, cfg: Config, n_in: int, n_out: int):
        super().__init__()
        self.cfg = cfg
        self.lin = nn.Linear(n_in, n_out)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(cfg.dropout)
        self.bn = nn.BatchNorm1d(n_out) if cfg.use_bn else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.drop(self.act(self.lin(x)))
        if self.bn is not None:
            out = self.bn(out)
        return out


class Net(nn.Module):
    def __init__(self, cfg: Config = Config()):
        super().__init__()
        sizes = [cfg.n_features, *cfg.layers]
        self.blocks = nn.Sequential(*[MLPBlock(cfg, a, b) for a, b in zip(sizes[:-1], sizes[1:])])
        self.head = nn.Linear(sizes[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x)).squeeze(-1)


example_inputs = (torch.randn(32, 12),)
