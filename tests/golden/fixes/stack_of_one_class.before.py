# left: a milder rule than before speaks of it at its new place, and its module has no better one
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Block(nn.Module):
    def __init__(self, channels_in, channels, p):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.drop = nn.Dropout(p)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(self.bn(self.drop(self.conv(x))))


class Net(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        self.blocks = nn.ModuleList([Block(3, 16, p), Block(16, 16, p), Block(16, 16, p)])
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3)))
