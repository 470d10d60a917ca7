# left: it is called in a function that is no method, so there is no mode that it could follow
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 16),)


def halved(x, rate, depth):
    return dropped(x / 2, rate, depth - 1)


def dropped(x, rate, depth):
    return halved(x, rate, depth) if depth else F.dropout(x, rate)


class Net(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        self.p = p
        self.one, self.out = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.out(dropped(self.one(x), self.p, 2))
