import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=8, drop=0.3):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.drop = nn.Dropout(drop)
        self.bn = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.bn(self.drop(self.conv(x))).relu().mean((2, 3)))


def build(width=8, drop=0.3):
    return Net(width, drop)


net = Net(drop=0.1)
fast = torch.compile(Net(drop=0.2))
