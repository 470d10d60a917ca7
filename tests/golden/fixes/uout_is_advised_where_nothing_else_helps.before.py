# left: a layer behind left.0 would move the index of the next one in checkpoints
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(0.4))
        self.left = nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))

    def forward(self, x):
        return self.left(self.trunk(x))
