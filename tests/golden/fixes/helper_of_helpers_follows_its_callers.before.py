import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 16),)


def drop(x, rate):
    return F.dropout(x, rate)


def activated(x, rate=0.0):
    return drop(torch.relu(x), rate)


class Net(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        self.p = p
        self.one, self.two, self.out = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = activated(self.one(x))
        x = activated(self.two(x), rate=self.p)
        return self.out(x)
