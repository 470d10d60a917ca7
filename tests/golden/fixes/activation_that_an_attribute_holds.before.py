# left: a milder rule than before speaks of it at its new place, and its module has no better one
import torch
from torch import nn, Tensor
from torch.nn import functional as F
from typing import Final


class Block(nn.Module):
    use_norm: Final[bool]

    def __init__(self, i: int, o: int, *, p: float = 0.2, use_norm: bool = True, act: str = "relu"):
        super().__init__()
        self.p = p
        self.use_norm = use_norm
        self.conv = nn.Conv1d(i, o, 5, padding=2)
        if use_norm:
            self.norm = nn.BatchNorm1d(o)
        self.act = getattr(F, act)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.p > 0 and self.training:
            y = F.dropout(y, self.p)
        if self.use_norm:
            y = self.norm(y)
        return self.act(y)


class Net(nn.Module):
    def __init__(self, p: float = 0.2):
        super().__init__()
        self.a = Block(6, 16, p=p)
        self.b = Block(16, 16, p=p)
        self.fc = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(self.a(x)).mean(-1))


example_inputs = (torch.randn(8, 6, 30),)
