# strategy: move
# note: `second` of Block is taken and does nothing any more
import torch
from torch import nn

example_inputs = (torch.randn(16, 20),)


class Block(nn.Module):
    def __init__(self, d, first, second):
        super().__init__()
        self.norm = nn.BatchNorm1d(d)
        self.linear1 = nn.Linear(d, 2 * d)
        self.first = nn.Dropout(first)
        self.linear2 = nn.Linear(2 * d, d)
        self.second = nn.Dropout(second)

    def forward(self, x):
        y = self.first(self.linear1(self.norm(x)).relu())
        return x + self.second(self.linear2(y))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(20, 0.3, 0.2), Block(20, 0.3, 0.2))
        self.head = nn.Sequential(nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 4))

    def forward(self, x):
        return self.head(self.blocks(x))
