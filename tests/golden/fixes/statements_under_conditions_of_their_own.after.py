# left: a milder rule than before speaks of it at its new place, and its module has no better one
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 16, 16),)


class Block(nn.Module):
    def __init__(self, c_in, c_out, norm="batch", dropout=0.3):
        super().__init__()
        self.body = nn.Sequential()
        self.body.add_module("conv", nn.Conv2d(c_in, c_out, 3, padding=1, bias=norm is None))
        if norm == "batch":
            self.body.add_module("norm", nn.BatchNorm2d(c_out))
        elif norm == "instance":
            self.body.add_module("norm", nn.InstanceNorm2d(c_out))
        self.body.add_module("act", nn.LeakyReLU(0.1))
        if dropout > 0:
            self.body.add_module("drop", nn.Dropout2d(p=dropout))

    def forward(self, x):
        return self.body(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = Block(3, 8)
        self.b = Block(8, 16)
        self.c = Block(16, 16)
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        x = self.c(self.b(self.a(x)))
        return self.fc(x.mean((2, 3)))
