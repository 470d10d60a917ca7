from dataclasses import dataclass
from itertools import pairwise

from torch import nn


@dataclass
class Config:
    drop: float = 0.3
    classes: int = 10

    @classmethod
    def few(cls, drop=0.1):
        return cls(drop, 3)


class Net(nn.Module):
    def __init__(self, config, hidden=(16,)):
        super().__init__()
        sizes = [4, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.drop = nn.Dropout(config.drop)
        self.bn = nn.BatchNorm1d(sizes[-1])
        self.head = nn.Linear(sizes[-1], config.classes)

    @classmethod
    def small(cls):
        return cls(Config.few())

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return self.head(self.bn(self.drop(x)))
